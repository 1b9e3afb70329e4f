"""Steps of threads that share a device: captures are apart from what launches kernel by kernel."""

import concurrent.futures
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.base.config import RunConfig
from benchmarks.training import engine, step
from benchmarks.training.step import Gate, Step


class Watch(Gate):
    """Notes what is inside at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[str] = []
        self.met: set[tuple[str, ...]] = set()

    @contextlib.contextmanager
    def _noted(self, name: str) -> Iterator[None]:
        self.inside.append(name)
        self.met.add(tuple(sorted(self.inside)))
        try:
            yield
        finally:
            self.inside.remove(name)

    @contextlib.contextmanager
    def eager(self) -> Iterator[None]:
        with super().eager(), self._noted("eager"):
            yield

    @contextlib.contextmanager
    def capture(self) -> Iterator[None]:
        with super().capture(), self._noted("capture"):
            yield


def test_a_capture_is_alone() -> None:
    """While a thread captures, nobody launches kernel by kernel, nor captures; those who launch go side by side."""
    gate = Watch()

    def launches() -> None:
        for _ in range(20):
            with gate.eager():
                time.sleep(0.002)

    def captures() -> None:
        for _ in range(5):
            with gate.capture():
                time.sleep(0.002)

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(work) for work in (launches, captures) * 3]:
            future.result(60)
    assert ("eager", "eager") in gate.met
    assert {met for met in gate.met if "capture" in met} == {("capture",)}


def test_a_capture_comes_first() -> None:
    """Threads that launch again and again do not keep one from capturing: it gets in before they are done."""
    gate = Watch()
    done: list[str] = []

    def launches() -> None:
        for _ in range(100):
            with gate.eager():
                time.sleep(0.002)
        done.append("launches")

    def captures() -> None:
        with gate.capture():
            done.append("capture")

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        busy = [pool.submit(launches) for _ in range(2)]
        while not gate.met:
            time.sleep(0.001)
        for future in (pool.submit(captures), *busy):
            future.result(60)
    assert done == ["capture", "launches", "launches"]


def test_a_failure_opens_the_gate() -> None:
    """What fails inside leaves the gate open."""
    gate = Gate()
    for inside in (gate.eager, gate.capture):
        with pytest.raises(RuntimeError, match="lost"), inside():
            raise RuntimeError("lost")
    with gate.capture():
        pass
    with gate.eager():
        pass


def test_a_graph_is_captured_in_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are CUDA graphs the body is recorded while nobody else launches."""
    gate = Watch()
    monkeypatch.setattr(step, "gate", gate)
    graph = SimpleNamespace(register_generator_state=lambda draws: None, replay=lambda: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", lambda *args, **kwargs: contextlib.nullcontext())
    inside: list[list[str]] = []
    replay = step.cuda_graph(torch.Generator())(lambda: inside.append([*gate.inside]))
    assert inside == [["capture"]]
    assert replay is graph.replay


def test_a_run_is_in_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a run launches kernel by kernel, in its first steps and its judgement, it is inside; replays are not."""
    gate = Watch()
    monkeypatch.setattr(step, "gate", gate)
    monkeypatch.setattr(engine, "gate", gate)
    where: list[tuple[str, bool]] = []

    def body(batch: step.Batch) -> None:
        where.append(("body", bool(gate.inside)))

    taken = Step(body, lambda run: lambda: where.append(("replay", bool(gate.inside))))
    for _ in range(step.WARM_UP + 2):
        taken((torch.ones(2),))
    assert where == [("body", True)] * step.WARM_UP + [("replay", False)] * 2

    run = engine.Run(
        RunConfig("digits-mlp", "sgd", {"lr": 0.1}, epochs=1), tmp_path, torch.device("cpu"), captured=False
    )
    for _ in run.steps():
        pass
    evaluate = engine.evaluate
    monkeypatch.setattr(
        engine, "evaluate", lambda *args: where.append(("judged", bool(gate.inside))) or evaluate(*args)
    )
    run.close_epoch()
    assert where[-1] == ("judged", True)
