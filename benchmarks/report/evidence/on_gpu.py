"""The tables of the page "On a GPU", from what was measured and run on one."""

import json
import math
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.base.store import Store
from benchmarks.report.display import cells
from benchmarks.report.evidence import archive
from benchmarks.report.evidence.claims import READINGS, Pair, early, judged
from benchmarks.report.evidence.documented import Documented
from benchmarks.report.inference import family
from benchmarks.report.results import Report, Series, collect, mixture
from benchmarks.studies import load
from benchmarks.workloads import metrics

RECORDS = Path(__file__).parents[2] / "results" / "gpu"


def tables(root: Path = RECORDS) -> dict[str, Documented]:
    """All of them, by the names that the page gives them."""
    return {
        "gpu-kernels": kernels(sheet(root, "kernels")),
        "gpu-steptime": step_times(sheet(root, "steptime")),
        "gpu-batchnorm": batch_norm(report(root, "paper-bn")),
        "gpu-exponents": trials(report(root, "which-p-cifar10")),
    }


def sheet(root: Path, name: str) -> Mapping[str, Any]:
    """A measurement: its environment and its rows."""
    found: Mapping[str, Any] = json.loads((root / f"{name}.json").read_text(encoding="utf-8"))
    return found


def report(root: Path, name: str) -> Report:
    """A study, as far as there are runs of it."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        archive.unpack(root / f"{name}{archive.SUFFIX}", store)
        return collect(load(name), store)


def kernels(measured: Mapping[str, Any]) -> Documented:
    """Every member's error, and its speed beside a copy."""
    rows = [
        (
            f"`{row['member']}`",
            row["mode"],
            f"{row['error']:.1e}",
            f"{row['ms']:.3g}",
            f"{row['bandwidth %']:.0f} %" if row["mode"].startswith("fused") else cells.DASH,
        )
        for row in measured["rows"]
    ]
    facts = measured["environment"]
    note = (
        "Error: the distance from float64 on the CPU after an eager step and three more with another learning rate, as "
        f"a share of the distance travelled. Time: a step on {facts['elements']:,} numbers in float32, of members that "
        f"see whole tensors on 32 matrices of 256 × 256, the best of {facts['rounds']} times. Bandwidth: that of the "
        f"bytes that a step cannot but move, as a share of a copy's, {facts['copy_bandwidth_gb_s']:,.0f} GB/s. "
        f"{_made(facts)}"
    )
    return Documented(("member", "mode", "error", "step, ms", "of a copy's bandwidth"), rows, note)


def step_times(measured: Mapping[str, Any]) -> Documented:
    """A step of some members beside torch's."""
    rows = [
        (
            row["list"],
            row["optimizer"].replace("p=", "p = "),
            f"{row['ms']:.3g}",
            _ratio(row["vs same mode"]),
            _ratio(row["vs fastest"]),
            f"{row['bandwidth %']:.0f} %",
        )
        for row in measured["rows"]
        if row["bandwidth %"] is not None
    ]
    facts = measured["environment"]
    note = (
        "Median time on the device. The ratios are to the optimizer of torch that is the same at p = 1/2, in the same "
        f"mode and in its fastest; a dash where torch has none. Medians of {facts['rounds']} rounds. {_made(facts)}"
    )
    header = ("tensors", "optimizer", "ms", "to torch's same mode", "to torch's fastest", "of a copy's bandwidth")
    return Documented(header, rows, note)


def batch_norm(found: Report) -> Documented:
    """Padam and SGD after some epochs, by both statistics of batch norm; all comparisons are one family."""
    padam, sgd = (_of(found, optimizer) for optimizer in ("padam", "sgd"))
    epochs = padam.arm.config.epochs
    pairs = [Pair(padam, sgd, epoch, reading) for epoch in (early(epochs), epochs) for reading in READINGS]
    rows = [(str(told.pair.epoch), told.pair.statistics, *told.pair.shown(), told.word) for told in judged(pairs)]
    note = (
        f"Test accuracy in %, with the 95 % interval of the mean over {len(padam.runs)} seeds; the chance of any wrong "
        f"verdict is at most {100 * family.ALPHA:g} %. {_runs(found)}"
    )
    return Documented(("after epoch", "statistics", "Padam", "SGD", "difference", "Padam leads"), rows, note)


def trials(found: Report) -> Documented:
    """What the learning rates of each entry came to, where all of them were tried."""
    entries: dict[str, list[Series]] = {}
    for one in found.trials:
        entries.setdefault(one.arm.entry, []).append(one)
    config = found.trials[0].arm.config
    sign, rows = metrics.sign(config.workload), []

    def score(one: Series) -> float:
        return -math.inf if one.diverged else sign * statistics.fmean(one.finals)

    for entry, tried in entries.items():
        if not all(one.runs for one in tried):
            continue
        rates = sorted(one.arm.config.hyper["lr"] for one in tried)
        worst, *_, best = sorted(tried, key=score)
        lr = best.arm.config.hyper["lr"]
        edge = " (!)" if lr in (rates[0], rates[-1]) else ""
        runs = cells.span(len(one.runs) for one in tried).text
        shown = ("diverged" if one.diverged else f"{abs(score(one)):.2f}" for one in (best, worst))
        rows.append((entry, str(len(tried)), runs, f"{lr:g}{edge}", *shown))
    note = (
        f"Accuracy in % on the held-out tenth after {config.epochs} epochs, the mean over the runs of a rate. Shown "
        f"are entries of which all rates were tried. !: the best is an end of the range. {_runs(found)}"
    )
    header = ("entry", "rates", "runs of a rate", "best rate", "with the best", "with the worst")
    return Documented(header, rows, note)


def _of(found: Report, optimizer: str) -> Series:
    return next(one for one in found.series if one.arm.config.optimizer == optimizer)


def _ratio(value: float | None) -> str:
    return cells.DASH if value is None else f"{value:.2f}"


def _made(facts: Mapping[str, Any]) -> str:
    return f"`{facts['command']}`, {facts['device']}, torch {facts['torch']}, commit {facts['commit']}."


def _runs(found: Report) -> str:
    """Where the runs were made, and a warning where not all of them by equal code on one device."""
    every = [*found.trials, *found.series]
    runs = [run for one in every for run in one.runs.values()]
    facts = runs[0].environment
    made = (
        f"`python -m benchmarks run {found.study.name}`, {len(runs)} runs, {facts['device']}, torch {facts['torch']}, "
        f"commit {facts['commit']}, sources {facts['sources']}."
    )
    return " ".join([made, *mixture(every)])
