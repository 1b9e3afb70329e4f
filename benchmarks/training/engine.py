"""One run of the benchmark: epochs of steps, a record after each, and a checkpoint to go on from."""

import contextlib
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from benchmarks.base import distributed
from benchmarks.base.config import RunConfig
from benchmarks.base.errors import BenchmarkError
from benchmarks.base.files import replacing
from benchmarks.base.records import Cost, Epoch, finite
from benchmarks.base.seeds import derive, generator
from benchmarks.training import diagnostics, optimizers
from benchmarks.training.evaluation import evaluate
from benchmarks.training.step import Batch, Step, cuda_graph
from benchmarks.workloads import of

CHECKPOINT_EVERY = 30.0  # seconds
AGREE_EVERY = 50  # steps between two questions to the other processes


class CheckpointError(BenchmarkError, RuntimeError):
    """A checkpoint that cannot be read, or belongs to another run."""


def train(
    config: RunConfig,
    *,
    data_dir: Path,
    device: torch.device,
    checkpoint: Path,
    on_epoch: Callable[[Epoch], None] = lambda record: None,
    should_stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[int, int], None] = lambda done, total: None,
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
        checkpoint_every: seconds between checkpoints.

    Returns:
        One record per epoch, the last one marked ``"diverged"`` if the loss stopped being finite; None if stopped.
    """
    with _own_stream(device):
        run = _Run(config, data_dir, device, optimizers.find(config.optimizer).capturable and device.type == "cuda")
        if checkpoint.exists():
            run.load(checkpoint)
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


class _Run:
    """The state of a run: what is trained, and how far it is."""

    def __init__(self, config: RunConfig, data_dir: Path, device: torch.device, captured: bool) -> None:
        world = distributed.world()
        if config.batch_size % world:
            raise ValueError(f"batch_size must be a multiple of the {world} processes, got {config.batch_size}")
        self.config, self.device = config, device
        workload = of(config)
        self.task = workload.task_class(workload, config, data_dir, device)
        self.model = self.task.model()
        self.initial = [p.detach().clone() for p in self.model.parameters()]
        self.optimizer = optimizers.build(config.optimizer, self.model.parameters(), config.hyper, capturable=captured)
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.draws = generator(device, config.seed, "augmentation", distributed.rank())
        self.totals = torch.zeros(len(self.task.columns), dtype=torch.float64, device=device)
        self.called = distributed.parallel(self.model)
        self.captured = captured and world == 1
        self.step = Step(self._train_on, cuda_graph(self.draws) if self.captured else None)
        examples = self.task.examples - self.task.examples % world
        self.epoch_examples = min(examples, config.max_steps * config.batch_size or examples)
        self.epoch_steps = math.ceil(self.epoch_examples / config.batch_size)
        self.total = config.epochs * self.epoch_steps
        self.records: list[Epoch] = []
        self.position = 0
        self.train_s = self.optimizer_s = self.saving_s = 0.0

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the run diverged."""
        return len(self.records) == self.config.epochs or (bool(self.records) and self.records[-1].diverged)

    @property
    def done(self) -> int:
        """Steps done in the whole run."""
        return len(self.records) * self.epoch_steps + self.position

    @property
    def lr(self) -> float:
        """The learning rate of the current epoch, of the first parameter group."""
        return self.rates[0] * self._decay()

    def _decay(self) -> float:
        epoch = len(self.records) + 1
        return self.config.gamma ** sum(milestone < epoch for milestone in self.config.milestones)

    def steps(self) -> Iterator[None]:
        """Takes the remaining steps of the epoch, yielding after each; the host never waits for the device."""
        epoch = len(self.records) + 1
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * self._decay())
            else:
                group["lr"] = rate * self._decay()
        order = torch.Generator().manual_seed(derive(self.config.seed, "order", epoch))
        rest = torch.randperm(self.task.examples, generator=order)[: self.epoch_examples]
        rest = distributed.shard(rest[self.position * self.config.batch_size :])
        started, self.saving_s = time.perf_counter() - self.train_s, 0.0
        for batch in self.task.batches(rest, self.config.batch_size // distributed.world(), epoch):
            self.step(batch)
            self.position += 1
            self.train_s = time.perf_counter() - started - self.saving_s
            yield
        self.totals.sum().item()  # the device has caught up: now the clock says how long the epoch took
        self.train_s = time.perf_counter() - started - self.saving_s

    def _train_on(self, batch: Batch) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss, means = self.task.loss(self.called, batch, self.draws)
        loss.backward()
        started = time.perf_counter()
        self.optimizer.step()
        self.optimizer_s += time.perf_counter() - started
        self.totals.add_(means, alpha=len(batch[0]))

    def close_epoch(self) -> Epoch:
        """Judges the model, adds the epoch's record and makes ready for the next one."""
        lr, epoch = self.lr, len(self.records) + 1
        sums = distributed.add(self.totals.clone()).tolist()
        means = {f"online_{k}": v / self.epoch_examples for k, v in zip(self.task.columns, sums, strict=True)}
        started = time.perf_counter()
        clean = self.task.evaluate_clean(self.model)
        steps, share = diagnostics.step_sizes(self.optimizer)
        record = Epoch(
            epoch=epoch,
            step=epoch * self.epoch_steps,
            lr=lr,
            train=finite({**means, **{f"clean_{k}": v for k, v in clean.items()}}),
            test=evaluate(self.task, self.model, epoch),
            distance=diagnostics.distance(list(self.model.parameters()), self.initial),
            effective_step=finite(steps),
            floor_share=share,
            time=self._cost(time.perf_counter() - started),
            diverged=not math.isfinite(means["online_loss"]),
        )
        self.records.append(record)
        self.position = 0
        self.train_s = self.optimizer_s = 0.0
        self.totals.zero_()
        return self.records[-1]

    def _cost(self, eval_s: float) -> Cost:
        cuda = self.device.type == "cuda"
        # ru_maxrss is in KiB on Linux, in bytes on macOS.
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        state = (x for entry in self.optimizer.state.values() for x in entry.values() if isinstance(x, Tensor))
        return Cost(
            train_s=self.train_s,
            eval_s=eval_s,
            step_ms=1e3 * self.train_s / self.epoch_steps,
            # On CUDA the host's clock says nothing about the device: `steptime` measures there.
            optimizer_ms=None if cuda else 1e3 * self.optimizer_s / self.epoch_steps,
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
            "config": self.config.to_dict(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "draws": draws,
            "totals": totals,
            "position": self.position,
            "train_s": self.train_s,
            "optimizer_s": self.optimizer_s,
            "records": msgspec.to_builtins(self.records),
        }
        if distributed.rank() == 0:
            with replacing(path) as file:
                torch.save(state, file)
        distributed.barrier()
        self.saving_s += time.perf_counter() - started

    def load(self, path: Path) -> None:
        """Goes back to what `save` wrote."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            config = state["config"]
        except Exception as error:
            raise CheckpointError(
                f"{path} is no checkpoint of the benchmark ({error}); delete it to start over"
            ) from error
        if config != self.config.to_dict() or len(state["draws"]) != distributed.world():
            raise CheckpointError(f"{path} belongs to another run; delete it to start over")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.draws.set_state(state["draws"][distributed.rank()])
        self.totals.copy_(state["totals"][distributed.rank()])
        self.position, self.records = state["position"], msgspec.convert(state["records"], list[Epoch])
        self.train_s, self.optimizer_s = state["train_s"], state["optimizer_s"]


@contextlib.contextmanager
def _own_stream(device: torch.device) -> Iterator[None]:
    """Everything inside runs on a stream of its own, so that runs in several threads proceed side by side."""
    if device.type != "cuda":
        yield
        return
    torch.backends.cudnn.benchmark = True
    stream = torch.cuda.Stream(device)
    with torch.cuda.device(device), torch.cuda.stream(stream):
        yield
        stream.synchronize()
