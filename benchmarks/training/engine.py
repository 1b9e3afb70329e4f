"""One run of the benchmark: epochs of steps, a record after each, and a checkpoint to go on from."""

import contextlib
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from benchmarks.base import distributed, environment
from benchmarks.base.config import RunConfig
from benchmarks.base.records import Cost, Epoch, finite
from benchmarks.base.seeds import derive, generator
from benchmarks.training import checkpoint as checkpoints
from benchmarks.training import diagnostics, groups, optimizers
from benchmarks.training.average import Average
from benchmarks.training.checkpoint import CheckpointError
from benchmarks.training.evaluation import evaluate
from benchmarks.training.schedules import Schedules
from benchmarks.training.settings import SettingError, captures, check
from benchmarks.training.step import Batch, Step, cuda_graph, gate
from benchmarks.training.update import Update, judging, switch
from benchmarks.workloads import of

__all__ = ["CheckpointError", "Run", "own_stream", "train"]

CHECKPOINT_EVERY = 30.0  # seconds
AGREE_EVERY = 50  # steps between two questions to the other processes


def train(
    config: RunConfig,
    *,
    data_dir: Path,
    device: torch.device,
    checkpoint: Path,
    on_epoch: Callable[[Epoch], None] = lambda record: None,
    should_stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    on_resume: Callable[[Mapping[str, Any]], None] = lambda made: None,
    checkpoint_every: float = CHECKPOINT_EVERY,
) -> list[Epoch] | None:
    """Trains one run, or goes on with it where `checkpoint` left off.

    On the CPU a run that was interrupted gives the same records as one that was not, but for ``"time"``. Threads of one
    process may each train a run of their own on the same device. In a process group of torchrun the run is shared by
    all processes, and the first one alone writes the checkpoint.

    Args:
        config: the run.
        data_dir: where the data sets lie.
        device: where to train.
        checkpoint: file with the state of the unfinished run, replaced as it goes on.
        on_epoch: called with the record of each epoch, those of the checkpoint included.
        should_stop: asked after each step; True ends the run early, to be resumed.
        on_step: called with the steps done and the steps of the whole run.
        on_resume: called where a checkpoint is gone on from, with the ``"sources"``, ``"torch"`` and ``"device"`` that
            the whole run is made by, joined by a plus sign where there are several: its record must say so.
        checkpoint_every: seconds between checkpoints.

    Returns:
        One record per epoch, the last one marked ``"diverged"`` if the loss stopped being finite; None if stopped.

    Raises:
        BenchmarkError: a setting is wrong, or the checkpoint is of another run or another version of the benchmark.
    """
    check(config)
    with own_stream(device):
        run = Run(config, data_dir, device, captures(config) and device.type == "cuda")
        if checkpoint.exists():
            run.load(checkpoint)
            on_resume(checkpoints.mixed(run.made))
        for record in run.records:
            on_epoch(record)
        saved = time.monotonic()

        def stopped() -> bool:
            nonlocal saved
            stop, due = run.agree(should_stop(), time.monotonic() - saved >= checkpoint_every)
            if stop or due:
                run.save(checkpoint)
                saved = time.monotonic()
            return stop

        while not run.finished:
            for _ in run.steps():
                on_step(run.done, run.total)
                if run.position < run.epoch_steps and stopped():
                    return None
            on_epoch(run.close_epoch())
            if not run.finished and stopped():
                return None
        return run.records


class Run:
    """The state of a run: what is trained, and how far it is.

    Args:
        config: the run.
        data_dir: where the data sets lie.
        device: where to train.
        captured: whether the step is captured in a CUDA graph.

    Raises:
        BenchmarkError: a setting does not go with the others, the model or the number of processes.
    """

    def __init__(self, config: RunConfig, data_dir: Path, device: torch.device, captured: bool) -> None:
        world = distributed.world()
        if config.batch_size % world:
            raise SettingError(f"batch_size must be a multiple of the {world} processes, got {config.batch_size}")
        self.config, self.device = config, device
        self.made = [environment.here(device, config.modules)]
        workload = of(config)
        self.task = workload.task_class(workload, config, data_dir, device)
        self.model = self.task.model()
        self.initial = [p.detach().clone() for p in self.model.parameters()]
        self.average = Average(self.model, config.ema) if config.ema else None
        params = groups.split(self.model, config.groups)
        self.optimizer = optimizers.build(
            config.optimizer, params, config.hyper, capturable=captured, moving=config.schedules
        )
        switch(self.optimizer, "train")
        self.draws = generator(device, config.seed, "augmentation", distributed.rank())
        self.update = Update(config, self.model, self.optimizer, self.draws)
        self.totals = torch.zeros(len(self.task.columns), dtype=torch.float64, device=device)
        self.called = distributed.parallel(self.model)
        self.captured = captured and world == 1
        self.step = Step(self._train_on, cuda_graph(self.draws) if self.captured else None)
        examples = self.task.examples - self.task.examples % world
        self.epoch_examples = min(examples, config.max_steps * config.batch_size or examples)
        self.epoch_steps = math.ceil(self.epoch_examples / config.batch_size)
        self.total = config.epochs * self.epoch_steps
        self.schedules = Schedules(config, self.optimizer, self.total, self.epoch_steps)
        self.records: list[Epoch] = []
        self.position = 0
        self.train_s = self.saving_s = 0.0

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the run diverged."""
        return len(self.records) == self.config.epochs or (bool(self.records) and self.records[-1].diverged)

    @property
    def done(self) -> int:
        """Steps done in the whole run."""
        return len(self.records) * self.epoch_steps + self.position

    def steps(self) -> Iterator[None]:
        """Takes the remaining steps of the epoch, yielding after each; the host never waits for the device."""
        epoch = len(self.records) + 1
        order = torch.Generator().manual_seed(derive(self.config.seed, "order", epoch))
        rest = torch.randperm(self.task.examples, generator=order)[: self.epoch_examples]
        rest = distributed.shard(rest[self.position * self.config.batch_size :])
        started, self.saving_s = time.perf_counter() - self.train_s, 0.0
        for batch in self.task.batches(rest, self.config.batch_size // distributed.world(), epoch):
            self.schedules.apply(self.done)
            self.step(batch)
            self.position += 1
            self.train_s = time.perf_counter() - started - self.saving_s
            yield
        self.totals.sum().item()  # the device has caught up: now the clock says how long the epoch took
        self.train_s = time.perf_counter() - started - self.saving_s

    def _train_on(self, batch: Batch) -> None:
        means = self.update(lambda: self.task.loss(self.called, batch, self.draws))
        if self.average is not None:
            self.average.update()
        self.totals.add_(means, alpha=len(batch[0]))

    def close_epoch(self) -> Epoch:
        """Judges the model, adds the epoch's record and makes ready for the next one."""
        epoch = len(self.records) + 1
        sums = distributed.add(self.totals.clone()).tolist()
        means = {f"online_{k}": v / self.epoch_examples for k, v in zip(self.task.columns, sums, strict=True)}
        started = time.perf_counter()
        with gate.eager(), judging(self.optimizer):
            steps, share = diagnostics.step_sizes(self.optimizer)
            clean = self.task.evaluate_clean(self.model)
            record = Epoch(
                epoch=epoch,
                step=epoch * self.epoch_steps,
                lr=self.schedules.lr(epoch * self.epoch_steps - 1),
                train=finite({**means, **{f"clean_{k}": v for k, v in clean.items()}}),
                test=evaluate(self.task, self.model, epoch, None if self.average is None else self.average.model),
                distance=diagnostics.distance(list(self.model.parameters()), self.initial),
                effective_step=finite(steps),
                floor_share=share,
                time=self._cost(time.perf_counter() - started),
                diverged=not math.isfinite(means["online_loss"]),
            )
        self.records.append(record)
        self.position = 0
        self.train_s = self.update.optimizer_s = 0.0
        self.totals.zero_()
        return record

    def _cost(self, eval_s: float) -> Cost:
        cuda = self.device.type == "cuda"
        # ru_maxrss is in KiB on Linux, in bytes on macOS.
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        state = _tensors(list(self.optimizer.state.values()))
        return Cost(
            train_s=self.train_s,
            eval_s=eval_s,
            step_ms=1e3 * self.train_s / self.epoch_steps,
            # On CUDA the host's clock says nothing about the device: `steptime` measures there.
            optimizer_ms=None if cuda else 1e3 * self.update.optimizer_s / self.epoch_steps,
            peak_memory_bytes=torch.cuda.max_memory_allocated(self.device) if cuda else resident,
            state_bytes_per_param=sum(x.nbytes for x in state) / sum(p.numel() for p in self.model.parameters()),
            mode="graph" if self.captured else "eager",
        )

    def agree(self, stop: bool, due: bool) -> tuple[bool, bool]:
        """Whether any process wants to stop, and whether a checkpoint is due: the same answer in all of them."""
        if distributed.active() and self.position % AGREE_EVERY:
            return False, False
        return distributed.anywhere(stop, self.device), distributed.anywhere(due, self.device)

    def save(self, path: Path) -> None:
        """Writes all that the rest of the run depends on."""
        draws = distributed.gather(self.draws.get_state())
        totals = distributed.gather(self.totals.cpu())  # the device has caught up: from here on time is not training's
        started = time.perf_counter()
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "update": self.update.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "draws": draws,
            "totals": totals,
            "position": self.position,
            "train_s": self.train_s,
            "optimizer_s": self.update.optimizer_s,
            "records": msgspec.to_builtins(self.records),
        }
        if distributed.rank() == 0:
            checkpoints.write(path, self.config, self.made, state)
        distributed.barrier()
        self.saving_s += time.perf_counter() - started

    def load(self, path: Path) -> None:
        """Goes back to what `save` wrote.

        Raises:
            CheckpointError: it is of another run or another version of the benchmark.
        """
        state, made = checkpoints.read(path, self.config)
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.update.load_state_dict(state["update"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.draws.set_state(state["draws"][distributed.rank()])
            self.totals.copy_(state["totals"][distributed.rank()])
            self.records = msgspec.convert(state["records"], list[Epoch])
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise checkpoints.unfit(path, error) from error
        switch(self.optimizer, "train")
        self.schedules.rebind()
        self.position, self.train_s, self.update.optimizer_s = (
            state[name] for name in ("position", "train_s", "optimizer_s")
        )
        self.made = list(dict.fromkeys([*made, *self.made]))


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in what an optimizer keeps."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(part)


@contextlib.contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Everything inside runs on a stream of its own, so that runs in several threads proceed side by side."""
    if device.type != "cuda":
        yield
        return
    torch.backends.cudnn.benchmark = True
    stream = torch.cuda.Stream(device)
    with torch.cuda.device(device), torch.cuda.stream(stream):
        yield
        stream.synchronize()
