"""What the documentation shows of studies: a table in a few columns, with what is needed to repeat it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from benchmarks.base.records import number
from benchmarks.report.inference.statistics import Summary, summarize
from benchmarks.report.results import Report, Series, clean_loss
from benchmarks.training import optimizers


class Documented(NamedTuple):
    """A table and a note below it."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str


def quick(report: Report) -> Documented:
    """Every optimizer on digits."""
    rows = []
    for one in report.series:
        accuracy, loss = _ends(one)
        records = [record for run in one.sound.values() for record in run.epochs]
        times = [
            min(map(number, column))
            for column in zip(*((record.time.step_ms, record.time.optimizer_ms) for record in records), strict=True)
        ]
        cells = (f"{accuracy.mean:.2f} ± {accuracy.sd:.2f}", f"{loss.mean:.4f}", *(f"{time:.2f}" for time in times))
        rows.append((one.arm.title, *cells))
    header = ("optimizer", "test accuracy, %", "final train loss, evaluated", "step, ms", "of it the optimizer, ms")
    runs = sorted({len(one.runs) for one in report.series})
    facts = report.environment
    note = (
        f"Final epoch, mean ± standard deviation over {' or '.join(map(str, runs))} seeds; the train loss is that of "
        "the model in evaluation mode on at most 5,000 training examples; times of the fastest epoch. "
        f"`python -m benchmarks run quick` on {facts['device']}, with {facts['threads']} thread for each run, "
        f"torch {facts['torch']}."
    )
    return Documented(header, rows, note)


def eight_bit(report: Report) -> Documented:
    """State in 8 bits, and how far from float32 state its results are, in standard errors."""
    rows = []
    wide = {_but_state(one): _ends(one) for one in report.series if "state_dtype" not in one.arm.config.hyper}
    for one in report.series:
        config = one.arm.config
        param = torch.zeros(64, 32)
        param.grad = torch.ones_like(param)
        optimizer = optimizers.build(config.optimizer, [param], config.hyper, capturable=False)
        optimizer.step()
        cells = []
        for end, reference, digits in zip(_ends(one), wide[_but_state(one)], (2, 4), strict=True):
            error = (end.sd**2 / end.n + reference.sd**2 / reference.n) ** 0.5
            narrow = "state_dtype" in config.hyper and error > 0
            apart = f" ({(end.mean - reference.mean) / error:+.1f})" if narrow else ""
            cells.append(f"{end.mean:.{digits}f} ± {end.sd:.{digits}f}{apart}")
        rows.append((config.workload, one.arm.title, f"{state_bytes(optimizer, param):.3g}", *cells))
    header = (
        "workload",
        "state",
        "bytes per element",
        "test accuracy, %, or perplexity",
        "final train loss, evaluated",
    )
    note = (
        f"Final epoch, mean ± standard deviation over {len(report.series[0].runs)} seeds; in brackets the difference "
        "to float32 state in standard errors. `python -m benchmarks run eight-bit`."
    )
    return Documented(header, rows, note)


STUDIES: Mapping[str, Callable[[Report], Documented]] = {"quick": quick, "eight-bit": eight_bit}


def state_bytes(optimizer: torch.optim.Optimizer, param: torch.Tensor) -> float:
    """Bytes of state per element of a parameter, without its counts."""
    kept: int = sum(x.nbytes for x in optimizer.state[param].values() if x.ndim)
    return kept / param.numel()


def _but_state(series: Series) -> str:
    """Its configuration without the type of its state."""
    config = series.arm.config
    hyper = {name: value for name, value in config.hyper.items() if name != "state_dtype"}
    return repr(dataclasses.replace(config, hyper=hyper))


def _ends(series: Series) -> tuple[Summary, Summary]:
    """The metric and the training loss at the end."""
    loss = series.at(-1, clean_loss)
    return summarize(series.finals), summarize(list(loss.values()))
