"""Runs of the engine on the CPU, and their records without what depends on the clock."""

import json
from pathlib import Path
from typing import Any

import msgspec
import torch

from benchmarks.base.config import RunConfig
from benchmarks.base.records import Cost, Epoch
from benchmarks.training.engine import train

MACHINE = frozenset({"environment", "time", "sha256"})
CPU = torch.device("cpu")


def timeless(records: list[Epoch] | None) -> str:
    """The records as the store writes them, but for what depends on the clock."""
    assert records is not None
    return "\n".join(
        json.dumps(msgspec.to_builtins(msgspec.structs.replace(r, time=Cost())), allow_nan=False) for r in records
    )


def comparable(path: Path) -> list[Any]:
    """The run stored at `path` without what depends on the clock or the machine."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(item) for key, item in value.items() if key not in MACHINE}
        return [without(item) for item in value] if isinstance(value, list) else value

    return [without(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def trained(config: RunConfig, folder: Path, **options: Any) -> list[Epoch] | None:
    """The records of a run whose checkpoint lies in `folder`; None where it was stopped."""
    return train(config, data_dir=folder, device=CPU, checkpoint=folder / "checkpoint.pt", **options)


def stopped_everywhere(config: RunConfig, folder: Path) -> tuple[str, int]:
    """The records of a run that is stopped after every single step, each resumed from its file, and how often."""
    rounds = 0
    while (records := trained(config, folder, should_stop=lambda: True)) is None:
        rounds += 1
    (folder / "checkpoint.pt").unlink()
    return timeless(records), rounds
