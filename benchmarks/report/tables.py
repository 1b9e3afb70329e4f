"""The tables of a report, as rows of text; Markdown here, HTML in `page`."""

import math
from collections.abc import Callable, Mapping, Sequence

from benchmarks.base.records import Epoch, Number
from benchmarks.report import compared, published
from benchmarks.report.results import Report, Series, train_loss
from benchmarks.report.statistics import Comparison, holm, paired, pooled_sd, smallest_detectable, summarize, welch
from benchmarks.report.table import Table
from benchmarks.workloads import metrics

DASH, MINUS = "–", "−"


def build(report: Report) -> list[Table]:
    """Every table of a study for which there are runs."""
    found: list[Table] = []
    for workload in report.study.workloads:
        series = report.of(workload)
        if series:
            where = f", {workload}" if len(report.study.workloads) > 1 else ""
            found.append(results(series, workload, where))
            found += comparisons(series, workload, where, report.study.reference)
            found += against_published(series, where)
            found.append(costs(series, where, report.study.target))
            found.append(diagnostics(series, where))
    return [*found, *compared.tables(report)]


def results(series: Sequence[Series], workload: str, where: str = "") -> Table:
    """Final and best score of each arm."""
    recalibrated = any(one.scores(-1, "recalibrated") for one in series)
    headers = ["optimizer", "runs", "final, mean ± sd", "95 % interval", "best epoch, mean ± sd (epoch)"]
    headers += ["final, recalibrated"] * recalibrated + ["final train loss"]
    rows = []
    for one in series:
        final = summarize(list(one.scores().values()))
        best = [metrics.best(run.epochs, workload) for run in one.sound.values()]
        peak = summarize([score for _, score in best])
        epochs = sorted({epoch for epoch, _ in best})
        row = [one.arm.title, _runs(one), _mean(final.mean, final.sd), _interval(final.low, final.high)]
        row.append(_mean(peak.mean, peak.sd) + (f" ({_range(epochs)})" if epochs else ""))
        if recalibrated:
            again = summarize(list(one.scores(-1, "recalibrated").values()))
            row.append(_mean(again.mean, again.sd))
        loss = summarize(list(one.at(-1, train_loss).values()))
        rows.append([*row, _mean(loss.mean, loss.sd, digits=4)])
    notes = []
    if any(one.diverged for one in series):
        notes.append(
            "Diverged runs count as runs but have no score: means are those of the others, and no such arm is compared."
        )
    return Table.plain(f"Results: {metrics.title(workload)}{where}", headers, rows, notes, headline=True)


def comparisons(series: Sequence[Series], workload: str, where: str, reference: str | None) -> list[Table]:
    """Each arm against the reference, and what can be said about the best; nothing where no arm has two runs."""
    scores = {one.arm.title: one.scores() for one in series if not one.diverged}
    names = (reference, f"{workload}/{reference}")
    bases = [one for one in series if one.arm.label in names or one.arm.group in names]
    if not bases or bases[0].arm.title not in scores or all(len(values) < 2 for values in scores.values()):
        return []
    base = bases[0].arm.title
    others = [one.arm.title for one in series if one.arm.title in scores and one.arm.title != base]
    tests = {title: welch(list(scores[title].values()), list(scores[base].values())) for title in others}
    adjusted = dict(zip(others, holm([test.p for test in tests.values()]), strict=True))
    sign = 1 if metrics.higher_is_better(workload) else -1
    rows = []
    for one in series:
        title = one.arm.title
        if title == base:
            continue
        if title not in tests:
            rows.append([title, *[DASH] * 6, "diverged"])
            continue
        test, same = tests[title], _paired(scores[title], scores[base])
        row = [title, _signed(test.difference), _interval(test.low, test.high), _p(test.p), _p(adjusted[title])]
        rows.append([*row, _interval(same.low, same.high), _p(same.p), _verdict(test, adjusted[title], sign)])
    headers = ["optimizer", "difference", "95 % interval (Welch)", "p", "p, Holm"]
    headers += ["95 % interval (paired)", "p, paired", "verdict"]
    groups = [list(values.values()) for values in scores.values()]
    n, sd = min(len(group) for group in groups), pooled_sd(groups)
    smallest = smallest_detectable(sd, n)
    notes = [
        f"Smallest detectable difference: {_number(smallest)} (the true difference of two arms found with power "
        f"0.8 at level 0.05; {n} runs an arm, pooled sd {_number(sd)})."
        if not math.isnan(smallest)
        else "Smallest detectable difference: unknown, at least two runs an arm are needed.",
        "Better and worse are said only where the Welch interval excludes 0 and Holm's p is below 0.05. The paired "
        "columns use that equal seeds share initial weights and data order; they have no part in the verdict.",
        _leader(scores, sign),
    ]
    return [Table.plain(f"Against {base}{where}", headers, rows, notes, headline=True)]


def _paired(a: Mapping[int, float], b: Mapping[int, float]) -> Comparison:
    common = sorted(a.keys() & b.keys())
    return paired([a[seed] for seed in common], [b[seed] for seed in common])


def _verdict(test: Comparison, adjusted: float, sign: int) -> str:
    if not test.decided or math.isnan(adjusted) or adjusted >= 0.05:
        return "undecided"
    return "better" if sign * test.difference > 0 else "worse"


def _leader(scores: Mapping[str, Mapping[int, float]], sign: int) -> str:
    """Which arm is best, if that can be said."""
    means = {title: summarize(list(values.values())).mean for title, values in scores.items() if values}
    leader = max(means, key=lambda title: sign * means[title])
    others = [title for title in means if title != leader]
    tests = [welch(list(scores[leader].values()), list(scores[title].values())) for title in others]
    adjusted = holm([test.p for test in tests])
    near = [
        title for title, test, p in zip(others, tests, adjusted, strict=True) if _verdict(test, p, sign) != "better"
    ]
    if not near:
        return f"Best: {leader}; its difference from every other arm has an interval above 0, and Holm's p below 0.05."
    count = f"{len(near)} others" if len(near) > 4 else ", ".join(near)
    return f"Best: not decided. {leader} has the best mean, but these runs do not tell it from {count}."


def against_published(series: Sequence[Series], where: str = "") -> list[Table]:
    """Our test accuracy beside the paper's and the replication's, at the epochs they state."""
    rows = []
    for one in series:
        paper, replication = (published.accuracy(one.arm.config, source) for source in ("paper", "replication"))
        for epoch, (mean, sd) in paper.items():
            ours = [summarize(list(one.scores(epoch, kind).values())) for kind in ("running", "recalibrated")]
            row = [one.arm.title, str(epoch), _mean(mean, sd), _mean(*replication.get(epoch, (math.nan, math.nan)))]
            rows.append([*row, *(_mean(summary.mean, summary.sd) for summary in ours)])
    if not rows:
        return []
    headers = ["optimizer", "epoch", "paper", "replication", "ours (running)", "ours (recalibrated)"]
    note = (
        "Test accuracy in %. Running and recalibrated are batch norm's statistics at the test; the paper's code "
        "recalibrated, the replication did not."
    )
    return [Table.plain(f"Beside the published numbers{where}", headers, rows, [note])]


def costs(series: Sequence[Series], where: str = "", target: float | None = None) -> Table:
    """What a result costs in time and memory; evaluation is not in it."""
    headers = [
        "optimizer",
        "s per epoch",
        "step, ms",
        "optimizer, ms",
        "peak memory, MiB",
        "state, B/parameter",
        "mode",
    ]
    if target is not None:
        headers[1:1] = [f"epochs to {target:g}", f"seconds to {target:g}"]
    rows = []
    for one in series:
        row = [one.arm.title]
        if target is not None:
            reached = one.to_target(target)
            short = f" ({len(reached)} of {len(one.runs)})" if reached and len(reached) < len(one.runs) else ""
            epochs, seconds = ([pair[i] for pair in reached.values()] for i in (0, 1))
            row += [_average(epochs, 1) + short, _average(seconds, 1)]
        row += [
            _average(one.time(lambda cost: cost.train_s), 2),
            _average(one.time(lambda cost: cost.step_ms), 2),
            _average(one.time(lambda cost: cost.optimizer_ms), 3),
        ]
        row += [_average([value / 2**20 for value in one.time(lambda cost: cost.peak_memory_bytes)], 0)]
        row += [_average(one.time(lambda cost: cost.state_bytes_per_param), 1), ", ".join(_modes(one)) or DASH]
        rows.append(row)
    note = "Means over the runs; times of training alone, without evaluation. Only arms of one mode and device compare."
    return Table.plain(f"Cost{where}", headers, rows, [note])


def diagnostics(series: Sequence[Series], where: str = "") -> Table:
    """Where training went: distance, effective step sizes, coordinates at the ε floor."""
    headers = ["optimizer", "‖θ − θ₀‖", "effective step, 1 %", "median", "99 %", "at the ε floor, %"]
    rows = []
    for one in series:
        row = [one.arm.title, _average(list(one.at(-1, lambda record: record.distance).values()), 2)]
        for quantile in ("q01", "q50", "q99"):
            row.append(_average(list(one.at(-1, _step_size(quantile)).values()), 3, "e"))
        shares = one.at(-1, lambda record: record.floor_share)
        rows.append([*row, _average([100 * share for share in shares.values()], 2)])
    note = "After the last epoch. The effective step of a coordinate is α·s^(−2p), what its momentum is multiplied by."
    return Table.plain(f"Diagnostics{where}", headers, rows, [note])


def _step_size(quantile: str) -> Callable[[Epoch], Number]:
    return lambda record: record.effective_step.get(quantile)


def _runs(one: Series) -> str:
    return f"{len(one.runs)}" + (f" ({one.diverged} diverged)" if one.diverged else "")


def _range(numbers: Sequence[int]) -> str:
    return f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]}–{numbers[-1]}"


def _modes(one: Series) -> list[str]:
    modes = [run.epochs[-1].time.mode for run in one.runs.values() if run.epochs]
    return sorted({str(mode) for mode in modes if mode is not None})


def _average(values: Sequence[float], digits: int, kind: str = "f") -> str:
    return f"{sum(values) / len(values):,.{digits}{kind}}" if values else DASH


def _number(value: float, digits: int = 2) -> str:
    return DASH if math.isnan(value) else f"{value:.{digits}f}"


def _mean(mean: float, sd: float, digits: int = 2) -> str:
    return _number(mean, digits) + ("" if math.isnan(mean) or math.isnan(sd) else f" ± {sd:.{digits}f}")


def _interval(low: float, high: float) -> str:
    return DASH if math.isnan(low) else f"[{low:.2f}, {high:.2f}]".replace("-", MINUS)


def _signed(value: float) -> str:
    return DASH if math.isnan(value) else f"{value:+.2f}".replace("-", MINUS)


def _p(value: float) -> str:
    return DASH if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"
