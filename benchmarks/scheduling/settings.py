"""How to run: where the data are, on which devices, how many side by side, for how long."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.base.errors import BenchmarkError


class SettingsError(BenchmarkError, ValueError):
    """A setting that makes no sense, or a device that does not exist."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to run, none of which changes a result on the CPU.

    Args:
        data_dir: where the data sets lie.
        devices: the devices to use, e.g. ``("cuda:0", "cuda:1")``; at least one.
        jobs: runs side by side on each of them, at least 1.
        threads: CPU threads of each run, at least 1; None leaves torch's choice.
        budget: seconds after which to stop, above 0; None for no limit.
        whole: begin no run that, going by earlier runs, would not end within the budget.
        ray: address of a Ray cluster, ``"local"`` for one of this machine's own, None for no Ray.

    Raises:
        SettingsError: a number is out of its range, or there is no such device here.
    """

    data_dir: Path = Path("data")
    devices: tuple[str, ...] = ("cpu",)
    jobs: int = 1
    threads: int | None = None
    budget: float | None = None
    whole: bool = False
    ray: str | None = None

    def __post_init__(self) -> None:
        for name in ("jobs", "threads"):
            value = getattr(self, name)
            if not (type(value) is int and value >= 1) and not (name == "threads" and value is None):
                raise SettingsError(f"{name} must be an integer of at least 1, got {value!r}")
        if self.budget is not None and not self.budget > 0:
            raise SettingsError(f"budget must be a number of seconds above 0, got {self.budget!r}")
        if self.whole and self.budget is None:
            raise SettingsError("whole runs are those that end within a budget: give one")
        object.__setattr__(self, "data_dir", Path(self.data_dir))
        object.__setattr__(self, "devices", devices(self.devices))


def devices(names: Sequence[str] | None) -> tuple[str, ...]:
    """The devices of these names, or the best that there is for None."""
    if names is None:
        return ("cuda",) if torch.cuda.is_available() else ("cpu",)
    if isinstance(names, str) or not names:
        raise SettingsError(f"devices must be a list of at least one, got {names!r}")
    for name in names:
        try:
            kind = torch.device(name).type
        except RuntimeError as error:
            raise SettingsError(f"--device: unknown device {name!r}: cpu, cuda or cuda:N") from error
        if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
            raise SettingsError(f"--device: {name!r} is not available here")
    return tuple(names)


def one_device(names: Sequence[str] | None, threads: int | None = None) -> torch.device:
    """The one device that time is measured on, with so many CPU threads from now on."""
    found = devices(names)
    if len(found) > 1:
        raise SettingsError(f"--device {','.join(found)}: time is measured on one device")
    if threads is not None:
        torch.set_num_threads(threads)
    return torch.device(found[0])
