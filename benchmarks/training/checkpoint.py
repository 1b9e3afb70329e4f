"""The file that an unfinished run goes on from, and which code it has been trained by."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.base import distributed
from benchmarks.base.config import RunConfig
from benchmarks.base.environment import Provenance
from benchmarks.base.errors import BenchmarkError
from benchmarks.base.files import replacing

FORMAT = 2
"""Of the file. Format 1 had no number."""


class CheckpointError(BenchmarkError, RuntimeError):
    """A checkpoint that cannot be read, or belongs to another run or another version of the benchmark."""


def write(path: Path, config: RunConfig, made: list[Provenance], state: Mapping[str, Any]) -> None:
    """Keep the state of a run.

    Args:
        path: replaced once all is written.
        config: the run.
        made: by what code, torch and device it was trained so far, in order.
        state: all that the rest of it depends on, as tensors and plain types.
    """
    head = {"format": FORMAT, "config": config.to_dict(), "processes": distributed.world(), "made": [*map(list, made)]}
    with replacing(path) as file:
        torch.save({**head, **state}, file)


def read(path: Path, config: RunConfig) -> tuple[dict[str, Any], list[Provenance]]:
    """What `write` kept of this run: its state, and by what it was trained.

    Raises:
        CheckpointError: it is no checkpoint, or one of another version, run or number of processes.
    """
    over = "; delete it to start over"
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        version, theirs = state.get("format", 1), state["config"]
    except Exception as error:
        raise CheckpointError(f"{path} is no checkpoint of the benchmark, or a damaged one{over}") from error
    if version != FORMAT:
        raise CheckpointError(
            f"{path} is of format {version}, which {'a later' if version > FORMAT else 'an earlier'} version of the "
            f"benchmark wrote; this one reads {FORMAT}{over}"
        )
    if theirs != config.to_dict():
        raise CheckpointError(f"{path} belongs to another run{over}")
    if state["processes"] != distributed.world():
        raise CheckpointError(
            f"{path} belongs to another run, of {state['processes']} processes instead of {distributed.world()}{over}"
        )
    return state, [Provenance(*one) for one in state["made"]]


def unfit(path: Path, error: Exception) -> CheckpointError:
    """For a checkpoint whose state does not fit the model or the optimizer of this version."""
    reason = str(error).partition("\n")[0]
    return CheckpointError(
        f"{path} does not fit what this version of the benchmark trains ({type(error).__name__}: {reason}); "
        "delete it to start over"
    )


def mixed(made: list[Provenance]) -> dict[str, str]:
    """What a run's record must say of it: sources, torch and device, joined by a plus sign where there were several."""
    return {
        name: "+".join(dict.fromkeys(getattr(one, name) for one in made)) for name in ("sources", "torch", "device")
    }
