"""The tables of a report: results, published numbers, diagnostics; verdicts, settings and costs have their own."""

import math
from collections.abc import Callable, Sequence

from benchmarks.base.records import Epoch, Number
from benchmarks.report import published
from benchmarks.report.display import cells
from benchmarks.report.display.table import Cell, Column, Row, Table, slug
from benchmarks.report.inference.statistics import Summary, summarize
from benchmarks.report.results import Report, Series, clean_loss, mixture, online_loss
from benchmarks.report.sections import compared, costs, settings, verdicts
from benchmarks.workloads import metrics

_STATISTICS = {"recalibrated": "final, recalibrated", "ema": "final, average of weights"}
_LOSSES: tuple[tuple[str, str, Callable[[Epoch], Number], str], ...] = (
    (
        "train loss, evaluated",
        "train_loss_evaluated",
        clean_loss,
        "Train loss, evaluated: of the model after the last epoch, in evaluation mode, on the first 5,000 training "
        "examples (fewer if there are fewer), without augmentation.",
    ),
    (
        "train loss, online",
        "train_loss_online",
        online_loss,
        "Train loss, online, is the paper's: the mean over the batches of the last epoch as they were trained on, in "
        "train mode, augmented, while the weights moved.",
    ),
)


def build(report: Report) -> list[Table]:
    """Every table of a study for which there are runs."""
    found: list[Table] = []
    for subject in report.study.subjects:
        series = report.of(subject)
        if series:
            where = f", {subject}" if len(report.study.subjects) > 1 else ""
            found.append(results(series, where))
            found += verdicts.tables(report, subject, where)
            found.append(settings.table(series, _name("settings", where), f"Settings{where}"))
            found += against_published(series, where)
            found += costs.tables(series, where, report.study.target)
            found.append(diagnostics(series, where))
    return [*found, *compared.tables(report)]


def results(series: Sequence[Series], where: str = "") -> Table:
    """Final and best score of each arm."""
    workload = series[0].arm.config.workload
    statistics = {kind: header for kind, header in _STATISTICS.items() if any(one.scores(-1, kind) for one in series)}
    losses = [loss for loss in _LOSSES if any(one.at(-1, loss[2]) for one in series)]
    columns = [
        *cells.WHO,
        Column("runs", "runs"),
        Column("diverged", "diverged", shown=False),
        *cells.spread_columns("final, mean ± sd", "final"),
        *cells.interval_columns("95 % interval", "final"),
        *cells.spread_columns("best epoch, mean ± sd (epoch)", "best"),
        *(column for kind, header in statistics.items() for column in cells.spread_columns(header, f"final_{kind}")),
        *(column for header, name, _, _ in losses for column in cells.spread_columns(header, name)),
    ]
    rows = []
    for one in series:
        final = summarize(one.finals, bounds=metrics.bounds(workload))
        row = [*_who(one), _runs(one), cells.count(one.diverged)]
        row += [*cells.spread(final), *cells.interval(final.low, final.high), *_best(one)]
        for kind in statistics:
            row += cells.spread_of(list(one.scores(-1, kind).values()))
        for _, _, loss, _ in losses:
            row += cells.spread_of(list(one.at(-1, loss).values()), digits=4)
        rows.append(Row(one.arm.label, row))
    notes = [*mixture(series), *(loss[3] for loss in losses)]
    if any(one.diverged for one in series):
        notes.append("Diverged runs count as runs but have no score: means are those of the others.")
    return Table(
        _name("results", where), f"Results: {metrics.title(workload)}{where}", columns, rows, notes, headline=True
    )


def _best(one: Series) -> list[Cell]:
    best = [metrics.best(run.epochs, one.arm.config.workload) for run in one.sound.values()]
    epochs = sorted({epoch for epoch, _ in best})
    when = f" ({epochs[0]})" if len(epochs) == 1 else f" ({epochs[0]}–{epochs[-1]})" if epochs else ""
    return cells.spread_of([score for _, score in best], suffix=when)


def against_published(series: Sequence[Series], where: str = "") -> list[Table]:
    """Our test accuracy beside the paper's and the replication's, at the epochs they state."""
    columns = [
        *cells.WHO,
        Column("epoch", "epoch"),
        *cells.spread_columns("paper", "paper"),
        *cells.spread_columns("replication", "replication"),
        *cells.spread_columns("ours (running)", "running"),
        *cells.spread_columns("ours (recalibrated)", "recalibrated"),
    ]
    rows = []
    for one in series:
        paper, replication = (published.accuracy(one.arm.config, source) for source in ("paper", "replication"))
        for epoch, said in paper.items():
            row = [*_who(one), cells.count(epoch)]
            for mean, sd in (said, replication.get(epoch, (math.nan, math.nan))):
                row += cells.spread(Summary(0, mean, sd, math.nan, math.nan))
            for kind in ("running", "recalibrated"):
                row += cells.spread_of(list(one.scores(epoch, kind).values()))
            rows.append(Row(one.arm.label, row))
    note = (
        "Test accuracy in %. Running and recalibrated are batch norm's statistics at the test; the paper's code "
        "recalibrated, the replication did not."
    )
    title = f"Beside the published numbers{where}"
    return [Table(_name("published", where), title, columns, rows, [*mixture(series), note])] if rows else []


def diagnostics(series: Sequence[Series], where: str = "") -> Table:
    """Where training went: distance, effective step sizes, coordinates at the ε floor."""
    columns = [
        *cells.WHO,
        *cells.spread_columns("‖θ − θ₀‖", "distance"),
        *cells.spread_columns("α·s^(−2p), 1 %", "effective_step_q01"),
        *cells.spread_columns("median", "effective_step_q50"),
        *cells.spread_columns("99 %", "effective_step_q99"),
        *cells.spread_columns("at the ε floor, %", "floor_share"),
    ]
    rows = []
    for one in series:
        row = [*_who(one), *_average(list(one.at(-1, lambda record: record.distance).values()), 2)]
        for quantile in ("q01", "q50", "q99"):
            row += _average(list(one.at(-1, _step_size(quantile)).values()), 3, "e")
        shares = one.at(-1, lambda record: record.floor_share)
        row += _average([100 * share for share in shares.values()], 2)
        rows.append(Row(one.arm.label, row))
    notes = [
        *mixture(series),
        "After the last epoch, means over the runs. The effective step of a coordinate is α·s^(−2p), s being its scale "
        "with its own bias correction: what the numerator is multiplied by. Of an optimizer without a scale it is α.",
    ]
    corrected = [one.arm.title for one in series if one.arm.config.hyper.get("bias_correction") == "adam"]
    if corrected:
        notes.append(
            f'Under bias_correction="adam" ({", ".join(corrected)}) the step also has the factor √c₂/c₁, with '
            "c₁ = 1 − β₁ᵗ and c₂ = 1 − β₂ᵗ, which is not in these columns; it tends to 1."
        )
    return Table(_name("diagnostics", where), f"Diagnostics{where}", columns, rows, notes)


def _average(values: Sequence[float], digits: int, kind: str = "f") -> list[Cell]:
    """The mean alone for people, the spread for programs."""
    summary = summarize(values)
    return [cells.number(value, digits, kind=kind) for value in (summary.mean, summary.sd)]


def _step_size(quantile: str) -> Callable[[Epoch], Number]:
    return lambda record: record.effective_step.get(quantile)


def _who(one: Series) -> list[Cell]:
    return [cells.text(one.arm.title), cells.text(one.arm.label)]


def _runs(one: Series) -> Cell:
    text = f"{len(one.runs)}" + (f" ({one.diverged} diverged)" if one.diverged else "")
    return Cell(text, len(one.runs), "diverged" if one.diverged else "")


def _name(name: str, where: str) -> str:
    return f"{name}_{slug(where)}" if where else name
