"""Whatever interrupts saving or loading leaves the optimizer as it was, and on disk a checkpoint that is whole."""

import copy
import gc
import inspect
import io
import multiprocessing
import random
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from family import maker
from torch import Tensor

import partial_adaptive as pa
from partial_adaptive.testing.harness import contents, parameters, params_of, same, train

RECIPE = re.search(
    r"^```python\n(import os\n\n\ndef save\(.*?)^```",
    (Path(__file__).parent.parent / "docs" / "usage.md").read_text(),
    re.DOTALL | re.MULTILINE,
)
KILLS = 4
SIZE = 200_000  # elements, for saving to take a while


class Interruption(BaseException):
    """What a user's Ctrl-C is, at a chosen moment."""


def traced(action: Callable[[], object], calls: int = 0) -> int:
    """How many functions an action calls; it is interrupted at one of them where that is not 0.

    Without the garbage collector, which calls functions of others, at any moment, and swallows what they raise.
    """
    done = 0

    def trace(frame: FrameType, *_: Any) -> None:
        nonlocal done
        if frame.f_code.co_flags & inspect.CO_GENERATOR:
            return  # Python swallows what is raised where it throws one away
        done += 1
        if done == calls:
            sys.settrace(None)
            raise Interruption

    before, collects = sys.gettrace(), gc.isenabled()
    gc.disable()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
        if collects:
            gc.enable()
    return done


def moments(action: Callable[[], object]) -> list[int]:
    """At which of the functions that it calls an action is to be interrupted: some of all, and each of the last ones.

    Loading changes things at the end.
    """
    calls = traced(action)
    return [*range(1, calls - 40, 1 + calls // 20), *range(max(1, calls - 40), calls + 1)]


def everything(optimizer: pa.PartialAdaptiveOptimizer) -> Any:
    """What an interruption must leave as it was: values, names of entries, hyperparameters."""
    groups = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    return contents(optimizer), (groups, [sorted(optimizer.state.get(param, {})) for param in params_of(optimizer)])


def assert_as_before(optimizer: pa.PartialAdaptiveOptimizer, before: Any, when: str) -> None:
    tensors, rest = everything(optimizer)
    assert rest == before[1], when
    same(tensors, before[0], when)


@pytest.mark.parametrize("partial", [0.0, 0.25])
@pytest.mark.parametrize("name", pa.MEMBERS)
def test_interrupted_loading(name: str, partial: float) -> None:
    """load_state_dict, interrupted at any call, has done nothing; then it can be done again."""
    source, optimizer = (maker(name, lr=lr)(parameters(), partial=0.25) for lr in (0.3, 0.2))
    train(source, 2)
    optimizer.param_groups[0]["partial"] = partial
    train(optimizer, 1)
    checkpoint = source.state_dict()
    before = copy.deepcopy(everything(optimizer))
    twin = copy.deepcopy(optimizer)
    for calls in moments(lambda: twin.load_state_dict(checkpoint)):
        with suppress(Interruption):
            traced(lambda: optimizer.load_state_dict(checkpoint), calls)
            break  # it has come to its end, a few calls before the twin, which did not find things remembered
        assert_as_before(optimizer, before, f"after {calls} calls")
    optimizer.load_state_dict(checkpoint)
    assert optimizer.param_groups[0]["lr"] == 0.3
    same(contents(optimizer)[len(params_of(optimizer)) :], contents(source)[len(params_of(source)) :], "not loaded")


@pytest.mark.parametrize("partial", [0.0, 0.25])
@pytest.mark.parametrize("name", pa.MEMBERS)
def test_interrupted_saving(name: str, partial: float) -> None:
    """state_dict, interrupted at any call, and torch.save on a full disk, change nothing."""
    optimizer = maker(name)(parameters(), partial=partial)
    train(optimizer, 2)
    before = copy.deepcopy(everything(optimizer))
    for calls in moments(optimizer.state_dict):
        with pytest.raises(Interruption):
            traced(optimizer.state_dict, calls)
        assert_as_before(optimizer, before, f"after {calls} calls")

    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() + len(data) > 2000:
                raise OSError("no space left on device")
            return super().write(data)

    with pytest.raises((OSError, RuntimeError)):
        torch.save(optimizer.state_dict(), Full())
    assert_as_before(optimizer, before, "after torch.save")


def test_a_hook_that_fails() -> None:
    """A hook of the user's that raises after loading has undone it."""
    source, optimizer = pa.Padam(parameters(), lr=0.3), pa.Padam(parameters(), lr=0.2)
    train(source, 2)
    train(optimizer, 1)
    before = copy.deepcopy(everything(optimizer))

    def fail(_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), optimizer.register_load_state_dict_post_hook(fail):
        optimizer.load_state_dict(source.state_dict())
    assert_as_before(optimizer, before, "after a hook has failed")
    optimizer.load_state_dict(source.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.3


def trained() -> pa.Padam:
    """An optimizer with a state of some size."""
    optimizer = pa.Padam([torch.zeros(SIZE), torch.zeros(SIZE)], lr=0.1)
    train(optimizer, 1)
    return optimizer


def marked(optimizer: pa.Padam, number: int) -> pa.Padam:
    """The same with one number in all of its state, so that a mixture of two would be seen."""
    for state in optimizer.state.values():
        for value in state.values():
            value.fill_(number)
    return optimizer


def save_files(folder: Path, recipe: str) -> None:
    """Save by the recipe of the documentation for ever, into one file."""
    torch.set_num_threads(1)
    names: dict[str, Any] = {}
    exec("import os\nimport torch\n" + recipe, names)
    optimizer = trained()
    for number in count(1):
        names["save"](folder / "checkpoint.pt", {"optimizer": marked(optimizer, number).state_dict()})


def save_folders(folder: Path, recipe: str) -> None:
    """Save by torch.distributed.checkpoint for ever, into a folder of its own each time."""
    torch.set_num_threads(1)
    optimizer = trained()
    for number in count(1):
        state = marked(optimizer, number).state_dict()["state"]
        dcp.save({"state": {str(key): value for key, value in state.items()}}, checkpoint_id=folder / str(number))


def first_file(folder: Path) -> dict[Any, Any]:
    """The state that is read from the file."""
    state: dict[Any, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)["optimizer"]["state"]
    return state


def last_folder(folder: Path) -> dict[Any, Any]:
    """The state that is read from the last folder that is whole."""
    whole = max((path for path in folder.iterdir() if (path / ".metadata").exists()), key=lambda path: int(path.name))
    state = trained().state_dict()["state"]
    target = {str(key): dict(value) for key, value in state.items()}
    dcp.load({"state": target}, checkpoint_id=whole)
    return target


@pytest.mark.filterwarnings("ignore:torch.distributed is .*single process")
@pytest.mark.parametrize(("save", "load"), [(save_files, first_file), (save_folders, last_folder)], ids=["file", "dcp"])
def test_killed_while_saving(save: Any, load: Any, tmp_path: Path) -> None:
    """A process that is killed while it saves leaves a checkpoint that is whole, and goes on from there."""
    assert RECIPE is not None, "docs/usage.md has no recipe"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed.checkpoint", "partial_adaptive"])
    chance = random.Random(0)
    for attempt in range(KILLS):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        process: BaseProcess = context.Process(target=save, args=(folder, RECIPE[1]), daemon=True)
        process.start()
        deadline = time.monotonic() + 60
        while not list(folder.glob("checkpoint.pt")) + list(folder.glob("*/.metadata")):
            assert process.is_alive(), "it has ended by itself"
            assert time.monotonic() < deadline, "nothing is saved"
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        entries: list[Tensor] = [value for state in load(folder).values() for value in state.values()]
        assert len(entries) == 10
        assert len({float(value) for entry in entries for value in (entry.min(), entry.max())}) == 1
