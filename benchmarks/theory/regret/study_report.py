"""The report of the regret study: what was measured, beside what the theorem promises."""

import math
from typing import Any

from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.report.display.table import Table
from benchmarks.theory import publish
from benchmarks.theory.publish import COLOURS, GREY, INK
from benchmarks.theory.regret.study import Played, Point, Record
from benchmarks.theory.regret.text import fraction, number, power

TITLE = "Regret of Algorithm 1 beside the bound of Theorem 4.2"
DESCRIPTION = (
    "Six online convex problems, each played by Padam with its projection in the metric v̂^p, αₜ = α/√t and "
    "β₁ₜ = β₁λᵗ⁻¹: the algorithm of the paper in full. The regret is the loss until round t above that of the best "
    "fixed point for these t rounds. The bound is evaluated along each run, with the v̂, the gradients and the G∞ that "
    "it had."
)
SHOWN = 1 / 8  # the p whose bound is drawn: the paper's choice


def report(record: Record) -> publish.Facts:
    """The head of the page."""
    runs = sum(len(one.runs) for one in record.problems)
    rates = len(record.problems[0].of(record.partials[0]))
    summary = f"{runs} runs of {record.rounds:,} rounds; of each problem and p the best of {rates} α is shown."
    return publish.facts("regret", TITLE, DESCRIPTION, summary, record.environment)


def tables(record: Record) -> list[Table]:
    """All tables."""
    return [_results(record), _metric(record), _terms(record), _problems(record)]


def _results(record: Record) -> Table:
    rows = []
    for problem in record.problems:
        for p in record.partials:
            run = problem.best(p)
            end = run.points[-1]
            rows.append(
                [
                    problem.name,
                    fraction(p),
                    _rate(problem, p),
                    number(end.regret),
                    number(end.regret / math.sqrt(end.t)),
                    number(end.regret / end.t),
                    power(end.bound.total),
                    power(end.bound.total / end.regret) if end.regret > 0 else "–",
                    power(end.bound.total / end.trivial),
                ]
            )
    headers = ["problem", "p", "α", "R", "R/√T", "R/T", "bound", "bound / R", "bound / trivial bound"]
    ends = [problem.best(p).points[-1] for problem in record.problems for p in record.partials]
    below = sum(end.bound.total < end.trivial for end in ends)
    edges = sum("*" in row[2] for row in rows)
    notes = [
        "R is the regret at the end. The trivial bound is D∞·ΣₜΣᵢ|gₜᵢ|, which holds whatever is played; the theorem "
        f"says something new where its bound is below that: in {below} of these {len(ends)} runs.",
    ]
    notes += [f"* The best α is at the end of its grid, in {edges} of {len(rows)}."] * bool(edges)
    return Table.plain(f"After {record.rounds:,} rounds", headers, rows, notes, headline=True)


def _metric(record: Record) -> Table:
    problem, p = record.metric
    rows = [
        [f"{right.lr:.3g}", number(right.regret), number(wrong.regret)]
        for right, wrong in zip(problem.of(p), problem.of(p, weighted=False), strict=True)
    ]
    best, worst = problem.best(p).regret, problem.best(p, weighted=False).regret
    note = (
        f"The same steps, projected in the metric that they were taken in, and by the ordinary distance: at best "
        f"{number(best)} and {number(worst)}. The former rests where the gradients of the assets held are equal, at "
        "the best portfolio. The latter rests where they are equal once divided by v̂^p, at another one."
    )
    headers = ["α", "regret, projected in the metric v̂^p", "regret, Euclidean projection"]
    return Table.plain(
        f"The metric of the projection: {problem.name}, p = {fraction(p)}", headers, rows, [note], headline=True
    )


def _terms(record: Record) -> Table:
    rows = []
    for problem in record.problems:
        for p in record.partials:
            end = problem.best(p).points[-1]
            bound = end.bound
            least = min(run.points[-1].bound.total for run in problem.of(p))
            numbers = (bound.distance, bound.gradients, bound.momentum, bound.total, least, end.trivial, useful(end))
            rows.append([problem.name, fraction(p), *map(power, numbers)])
    beta1, beta2 = record.betas
    steps = 1 / ((1 - beta1) ** 2 * (1 - beta1 / math.sqrt(beta2)))
    relaxed, kept = 1 / (1 - record.decay) ** 2, sum(math.sqrt(t) * record.decay ** (t - 1) for t in range(1, 5_000))
    headers = ["problem", "p", "distance", "gradients", "momentum", "sum", "least sum of all α"]
    headers += ["trivial bound", "T from which it is of use"]
    notes = [
        "distance: D∞²√T/(2α(1−β₁))·Σᵢ(√v̂ᵢ+ε)^(2p). gradients: αG∞^(1−2p)√(1+log T)/((1−β₁)²(1−γ)(1−β₂)^p)·Σᵢ‖gᵢ‖₂ "
        "with γ = β₁/√β₂. momentum: β₁dD∞²(G∞+ε)^(2p)/(2α(1−β₁)(1−λ)²).",
        f"The constants make it large: with β = {record.betas} and λ = {record.decay} the second term has the factor "
        f"1/((1−β₁)²(1−γ)) = {steps:,.0f}, the third 1/(1−λ)² = {relaxed:,.0f}. The proof gets the latter by √t ≤ t; "
        f"with Σ√t·λᵗ⁻¹ kept, the third term would be {relaxed / kept:.0f} times smaller.",
        "The last column goes on from these numbers: the first two terms as √T, the third as it is, the trivial bound "
        "as T. It leaves the logarithm out, which is in the theorem's favour.",
    ]
    return Table.plain("The bound term by term, and where it is vacuous", headers, rows, notes)


def useful(end: Point) -> float:
    """The T at which the bound would fall below the trivial one: of √T the root of a quadratic."""
    half = (end.bound.distance + end.bound.gradients) / (2 * end.trivial)
    return end.t * (half + math.sqrt(half**2 + end.bound.momentum / end.trivial)) ** 2


def _problems(record: Record) -> Table:
    rows = [
        [one.name, one.feasible, str(one.dimension), f"{one.diameter:g}", power(one.gap)] for one in record.problems
    ]
    notes = [f"{one.name}: {one.description}" for one in record.problems]
    notes.append(
        "The comparator is solved anew for each t: in closed form, by a linear program, or by accelerated projected "
        "gradient. The gap is its certificate, the most by which a regret here can be too small: for a convex F, "
        "F(x) − min F ≤ max ⟨g, x − z⟩ over the points z of the set."
    )
    return Table.plain("The problems", ["problem", "set", "d", "D∞", "largest gap"], rows, notes)


def figures(record: Record) -> dict[str, Any]:
    """All figures."""
    with publish.styled():
        return {
            "regret": _curves(record, per_root=False),
            "rate": _curves(record, per_root=True),
            "bound": _bounds(record),
            "metric": _projections(record),
        }


def _panels(record: Record, label: str) -> tuple[Any, list[tuple[Any, Played]]]:
    """A figure with a panel for each problem."""
    figure = publish.figure(9.6, 5.6)
    axes = figure.subplots(2, 3, sharex=True)
    for axis in axes[:, 0]:
        axis.set_ylabel(label)
    for axis in axes[1]:
        axis.set_xlabel("t")
    for axis, problem in zip(axes.flat, record.problems, strict=True):
        axis.set_title(problem.name)
        axis.set_xscale("log")
        _label(axis.xaxis)
    return figure, list(zip(axes.flat, record.problems, strict=True))


def _label(axis: Any) -> None:
    """Plain numbers along a logarithmic axis."""
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _legend(figure: Any, axis: Any, columns: int) -> None:
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=columns, handlelength=2.2)


def _curves(record: Record, *, per_root: bool) -> Any:
    """The regret of the best run at each p: as it is, both axes logarithmic, or over √t."""
    figure, panels = _panels(record, "Rₜ / √t" if per_root else "Rₜ")
    for axis, problem in panels:
        for p, colour in zip(record.partials, COLOURS, strict=True):
            points = problem.best(p).points
            values = [point.regret / (math.sqrt(point.t) if per_root else 1) for point in points]
            axis.plot(
                [point.t for point in points],
                values,
                color=colour,
                label=f"p = {fraction(p)}",
                marker="o",
                markersize=3,
            )
        if per_root:
            axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
        else:
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            _label(axis.yaxis)
            positive = [point for p in record.partials for point in problem.best(p).points if point.regret > 0]
            least = 0.7 * min((point.regret / math.sqrt(point.t) for point in positive), default=1)
            ends = [points[0].t, points[-1].t]
            axis.plot(ends, [least * math.sqrt(t) for t in ends], color=GREY, linestyle=":", label="∝ √t")
    _legend(figure, panels[0][0], 5)
    return figure


def _bounds(record: Record) -> Any:
    """The bound's terms over t beside the measured regret."""
    figure, panels = _panels(record, f"loss, at p = {fraction(SHOWN)}")
    for axis, problem in panels:
        points = problem.best(SHOWN).points
        lines: dict[str, tuple[list[float], dict[str, Any]]] = {
            "measured regret": ([point.regret for point in points], {"color": INK, "marker": "o", "markersize": 3}),
            "trivial bound": ([point.trivial for point in points], {"color": GREY, "linestyle": "--"}),
            "1st term: distance": ([point.bound.distance for point in points], {"color": COLOURS[0]}),
            "2nd: gradients": ([point.bound.gradients for point in points], {"color": COLOURS[2]}),
            "3rd: momentum": ([point.bound.momentum for point in points], {"color": COLOURS[3]}),
        }
        for label, (values, style) in lines.items():
            axis.plot([point.t for point in points], values, label=label, **style)
        axis.set_yscale("log")
        axis.yaxis.set_minor_formatter(NullFormatter())
    _legend(figure, panels[0][0], 5)
    return figure


def _projections(record: Record) -> Any:
    """The regret under both projections, a line for each α."""
    problem, p = record.metric
    figure = publish.figure(9.6, 3.4)
    axis = figure.subplots()
    for weighted, colour, label in (
        (True, COLOURS[0], "in the metric v̂^p"),
        (False, COLOURS[3], "by the Euclidean distance"),
    ):
        best = problem.best(p, weighted=weighted)
        for run in problem.of(p, weighted=weighted):
            axis.plot(
                [point.t for point in run.points],
                [point.regret for point in run.points],
                color=colour,
                alpha=1 if run is best else 0.35,
                label=f"projected {label}, best α" if run is best else None,
            )
    axis.set(xscale="log", xlabel="t", ylabel="Rₜ", title=f"{problem.name}, p = {fraction(p)}; paler: other α")
    _label(axis.xaxis)
    axis.legend()
    return figure


def _rate(problem: Played, p: float) -> str:
    """The best learning rate, with a star where it is the first or last of the grid."""
    runs, best = problem.of(p), problem.best(p)
    return f"{best.lr:.3g}" + "*" * (best in (runs[0], runs[-1]))
