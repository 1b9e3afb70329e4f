"""Draws the figures of the documentation, in a minute on one core: ``python docs/figures.py [--png]``."""

import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import exponent_figures
import gpu_figures
import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from benchmarks.report.evidence import on_gpu, studied
from benchmarks.theory import counterexample, counterexample_report, publish
from benchmarks.theory.record import load as load_record
from benchmarks.theory.regret import study, study_report
from benchmarks.theory.width import study as width
from benchmarks.theory.width import study_report as width_report
from benchmarks.workloads.data import load
from benchmarks.workloads.models.small import mlp
from partial_adaptive import Constraint, Geometric, InverseSqrt, Padam, Schedule, Simplex

HERE = Path(__file__).parent
EXPONENTS = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
NAMES = {0.0: "0", 1 / 16: "1/16", 1 / 8: "1/8", 1 / 4: "1/4", 1 / 2: "1/2"}
RATES = [float(rate) for rate in np.logspace(-4, 1, 16)]
SEEDS = (0, 1, 2)
EPOCHS, BATCH = 10, 64

STYLE: Any = publish.STYLE | {
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.axisbelow": True,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "lines.linewidth": 1.8,
    "svg.fonttype": "path",
}


def main() -> None:
    """Draw all figures."""
    torch.set_num_threads(1)
    with matplotlib.rc_context(STYLE):
        save("why", why())
        save("bias-correction", bias_correction())
        save("metric", metric())
        save("spectrum", spectrum())
        found = studied.studies()
        source = exponent_figures.source()
        save("which-p", exponent_figures.by_estimator(studied.curves(found)), source)
        save("headline", exponent_figures.headline([one for one in found if not one.question]), source)
        trained = on_gpu.report(on_gpu.RECORDS, gpu_figures.STUDY)
        save("batch-norm", gpu_figures.batch_norm(trained), gpu_figures.source())
    regret = load_record(study.Record, HERE / "regret.json", "")
    save("regret", study_report.figures(regret)["bound"])
    examples = load_record(counterexample.Record, HERE / "counterexample.json", "")
    save("counter-example", counterexample_report.figures(examples)["critical"])
    rates = load_record(width.Record, HERE / "width.json", "")
    for name, figure in width_report.figures(rates).items():
        save(f"width-{name}", figure)


def save(name: str, figure: Figure, source: str | None = None) -> None:
    """Write a figure as SVG, the same bytes for the same figure, and what it was drawn from."""
    with matplotlib.rc_context({"svg.hashsalt": name}):  # of the identifiers, random otherwise
        figure.savefig(HERE / "figures" / f"{name}.svg", facecolor="white", metadata={"Date": None, "Source": source})
    if "--png" in sys.argv:
        figure.savefig(HERE / "figures" / f"{name}.png", facecolor="white", dpi=160)


def colour(p: float) -> Any:
    """The colour of an exponent, from violet (0) to orange (1/2)."""
    return matplotlib.colormaps["plasma"](0.02 + 0.76 * EXPONENTS.index(p) / (len(EXPONENTS) - 1))


def why() -> Figure:
    """What p does: to the steps of the coordinates of one network, and to the learning rates that train it."""
    scales = trained_scales()
    accuracy = {p: [[digits(lr, p, seed)[1] for seed in SEEDS] for lr in RATES] for p in EXPONENTS}
    figure = Figure(figsize=(9.2, 3.5), layout="constrained")
    steps, rates = figure.subplots(1, 2, width_ratios=(1.12, 1))
    _draw_steps(steps, scales)
    _draw_rates(rates, accuracy)
    layout: Any = figure.get_layout_engine()
    layout.set(wspace=0.06)
    return figure


def _draw_steps(axis: Any, scales: Tensor) -> None:
    for row, p in enumerate(EXPONENTS):
        step = scales.pow(-2 * p)
        low, quarter, median, three_quarters, high = (
            (step.quantile(q) / step.median()).item() for q in (0.01, 0.25, 0.5, 0.75, 0.99)
        )
        axis.plot([low, high], [row, row], color=colour(p), linewidth=2, solid_capstyle="round")
        axis.plot([quarter, three_quarters], [row, row], color=colour(p), linewidth=11, solid_capstyle="butt")
        axis.plot([median], [row], marker="|", color="white" if p else colour(p), markersize=11, markeredgewidth=2)
        ratio = f"{high / low:,.0f}" if high / low >= 10 else f"{high / low:.1f}" if p else "1"
        axis.text(1.6e4, row, f"{ratio}×", ha="right", va="center", color=colour(p), fontweight="bold")
    axis.text(1.6e4, len(EXPONENTS) - 0.35, "99 % / 1 %", ha="right", va="center", color="#59636e", fontsize=8.5)
    axis.set_xscale("log")
    axis.set_xlim(0.1, 1.6e4)
    axis.set_xticks([0.1, 1, 10, 100, 1000], ["0.1", "1", "10", "100", "1,000"])
    axis.minorticks_off()
    axis.set_ylim(-0.6, len(EXPONENTS) - 0.1)
    ends = {0.0: "p = 0 (SGD)", 1 / 2: "p = 1/2 (Amsgrad)"}
    axis.set_yticks(range(len(EXPONENTS)), [ends.get(p, f"p = {NAMES[p]}") for p in EXPONENTS])
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")
    axis.spines["left"].set_visible(False)
    axis.set_xlabel("step of a coordinate, α·s$^{−2p}$, relative to the median one")
    axis.set_title("p sets how far the steps spread")


def _draw_rates(axis: Any, accuracy: dict[float, list[list[float]]]) -> None:
    for p, runs in accuracy.items():
        mean = np.array([statistics.mean(run) for run in runs])
        low, high = (np.array([limit(run) for run in runs]) for limit in (min, max))
        axis.plot(RATES, mean, color=colour(p), label=f"p = {NAMES[p]}")
        axis.fill_between(RATES, low, high, color=colour(p), alpha=0.15, linewidth=0)
    axis.set_xscale("log")
    axis.set_ylim(80, 100)
    axis.set_yticks(range(80, 101, 5))
    axis.set_xlim(2e-4, 6)
    axis.set_xlabel("learning rate α")
    axis.set_ylabel("test accuracy, %")
    axis.legend(loc="lower left", bbox_to_anchor=(0.055, 0.02), fontsize=8.5, handlelength=1.0, handletextpad=0.5)
    axis.set_title("and with it the learning rate to use")


def trained_scales() -> Tensor:
    """The scales s of a network trained with Padam, of all coordinates that have ever had a gradient."""
    optimizer, _ = digits(0.1, 1 / 8, seed=0)
    params = [param for group in optimizer.param_groups for param in group["params"]]
    scales = torch.cat([scale.flatten() for param in params if (scale := optimizer.scale_of(param)) is not None])
    return scales[scales > 2 * optimizer.defaults["eps"]]


def digits(lr: float, p: float, seed: int) -> tuple[Padam, float]:
    """Train the benchmark's network for scikit-learn's digits at a constant rate; its test accuracy in percent."""
    torch.manual_seed(seed)
    data = load("digits", _cache())
    x_train, x_test = (torch.from_numpy(x).float().div(16) for x in (data.x_train, data.x_test))
    y_train, y_test = (torch.from_numpy(y).long() for y in (data.y_train, data.y_test))
    model = mlp(64, 10)
    optimizer = Padam(model.parameters(), lr=lr, partial=p)
    for batch in _batches(len(x_train)):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x_train[batch]), y_train[batch]).backward()
        optimizer.step()
    with torch.no_grad():
        return optimizer, 100 * (model(x_test).argmax(1) == y_test).float().mean().item()


def _batches(examples: int) -> Iterator[Sequence[int]]:
    for _ in range(EPOCHS):
        yield from torch.randperm(examples).split(BATCH)


def _cache() -> Path:
    """Where the decoded digits are kept: the benchmark's data directory."""
    path = HERE.parent / "data"
    path.mkdir(exist_ok=True)
    return path


def bias_correction() -> Figure:
    """The factor by which the authors' correction makes the step smaller: c₂^(1/2 − p), c₂ = 1 − β₂^t."""
    t = np.logspace(0, 4, 400)
    corrected = -np.expm1(t * np.log(0.999))
    figure = Figure(figsize=(6.4, 3.3), layout="constrained")
    axis = figure.subplots()
    for p in (1 / 8, 1 / 4, 1 / 2):
        axis.plot(t, corrected ** (0.5 - p), color=colour(p), label=f"p = {NAMES[p]}")
    for step, place in ((1, (1.35, 0.03)), (100, (115, 0.355)), (1406, (1500, 0.815))):
        factor = (1 - 0.999**step) ** (3 / 8)
        axis.plot([step], [factor], marker="o", markersize=5, color=colour(1 / 8), clip_on=False, zorder=3)
        axis.annotate(f"{factor:.2g} at t = {step:,}", place, color=colour(1 / 8), fontsize=9)
    axis.set_xscale("log")
    axis.set(xlim=(1, 1e4), ylim=(0, 1.05), xlabel="step t (β₂ = 0.999)", ylabel=r"$c_2^{\,1/2-p}$")
    axis.legend(loc="upper left", bbox_to_anchor=(0.02, 0.92))
    axis.set_title("The step with “adam”, as a share of that with “consistent”")
    return figure


@dataclass(frozen=True)
class Euclidean(Constraint):
    """The simplex, but projected onto as if all weights were 1."""

    def project(self, x: Tensor, weights: Tensor) -> Tensor:
        """The nearest point, whatever the weights."""
        return Simplex().project(x, torch.ones_like(x))


PUBLISHED = {0.0: "SGD", 7 / 16: "HTMuon", 1 / 2: "Muon", 5 / 8: "DynMuon's end"}


def spectrum() -> Figure:
    """What p does to the singular values of a step, and to how many of them count."""
    optimizer, _ = digits(0.1, 1 / 8, seed=0)
    momenta = [state["exp_avg"] for param, state in optimizer.state.items() if param.shape == (64, 64)]
    values = torch.linalg.svdvals(momenta[-1].double())
    values = values[values > 1e-6 * values[0]]
    figure = Figure(figsize=(9.2, 3.5), layout="constrained")
    steps, ranks = figure.subplots(1, 2, width_ratios=(1.2, 1))
    for p in EXPONENTS:
        step = (values / values[0]) ** (1 - 2 * p)
        steps.plot(range(1, len(step) + 1), step, color=colour(p), label=f"p = {NAMES[p]}")
    beyond = (values / values[0]) ** (1 - 2 * 5 / 8)
    steps.plot(range(1, len(beyond) + 1), beyond, ":", color=publish.INK, label="p = 5/8")
    steps.set(yscale="log", xlim=(1, len(values)), xlabel="number of the singular value")
    steps.set_ylabel("singular value of the step,\nrelative to the first")
    steps.legend(loc="lower left", fontsize=8.5)
    steps.set_title("p sets how far singular values spread")
    _draw_ranks(ranks, values)
    layout: Any = figure.get_layout_engine()
    layout.set(wspace=0.06)
    return figure


def _draw_ranks(axis: Any, values: Tensor) -> None:
    """The effective rank of a step, by p, and where published methods are."""

    def rank(p: float) -> float:
        share = values ** (1 - 2 * p) / (values ** (1 - 2 * p)).sum()
        return float(torch.exp(-(share * share.log()).sum()))

    exponents = np.linspace(0, 0.8, 161)
    axis.plot(exponents, [rank(p) for p in exponents], color=publish.INK)
    for p, name in PUBLISHED.items():
        axis.plot([p], [rank(p)], "o", color=publish.INK, markersize=5, clip_on=False, zorder=3)
        left = p not in (0.0, 5 / 8)
        axis.annotate(
            name,
            (p, rank(p)),
            (-8 if left else 7, 2 if left else -12),
            textcoords="offset points",
            ha="right" if left else "left",
            fontsize=8.5,
        )
    axis.plot([1 / 8], [rank(1 / 8)], "o", color=colour(1 / 8), markersize=6, zorder=3)
    axis.annotate("1/8", (1 / 8, rank(1 / 8)), (7, -10), textcoords="offset points", color=colour(1 / 8), fontsize=8.5)
    axis.set(xlim=(0, 0.8), ylim=(0, None), xlabel="p", ylabel="effective rank of the step")
    axis.set_title("and how many of them count")


SETS = {"in the metric $s^{2p}$": (Simplex(), "-"), "Euclidean": (Euclidean(), ":")}


def metric() -> Figure:
    """The two projections of a point onto the simplex, and where optimizers with either of them go."""
    figure = Figure(figsize=(9.2, 3.7), layout="constrained")
    plane, coordinate = figure.subplots(1, 2, width_ratios=(1, 1.25))
    _draw_projections(plane, torch.tensor([0.55, 0.9]), torch.tensor([1.0, 6.0]))
    _draw_coordinates(coordinate)
    layout: Any = figure.get_layout_engine()
    layout.set(wspace=0.06)
    return figure


def _draw_projections(axis: Any, point: Tensor, weights: Tensor) -> None:
    """A point, its projections onto the simplex, and the curves of equal distance that touch it there."""
    axis.plot([0, 1], [1, 0], color=publish.INK, linewidth=2.5, solid_capstyle="round")
    angle = np.linspace(0, 2 * np.pi, 400)
    for (label, (constraint, style)), ends, hue in zip(
        SETS.items(), (weights, torch.ones(2)), (0.25, 0.5), strict=True
    ):
        nearest = constraint.project(point, weights)
        radius = (ends * (nearest - point).square()).sum().sqrt()
        x, y = (point[i] + radius / ends[i].sqrt() * curve(angle) for i, curve in enumerate((np.cos, np.sin)))
        axis.plot(x, y, style, color=colour(hue), linewidth=1.4)
        axis.plot(*torch.stack([point, nearest], 1), style, color=colour(hue), linewidth=1.4)
        axis.plot(*nearest, marker="o", color=colour(hue), markersize=6, clip_on=False, zorder=3)
        axis.plot([], [], style, marker="o", color=colour(hue), label=label)
    axis.plot(*point, marker="s", color=publish.INK, markersize=5, clip_on=False, zorder=3)
    axis.annotate("b", point, (6, 2), textcoords="offset points")
    axis.annotate("X", (0.85, 0.15), (6, 4), textcoords="offset points")
    axis.set_aspect("equal")
    axis.set(xlim=(-0.05, 1.2), ylim=(0, 1.35), xlabel="$x_1$  (w = 1)", ylabel="$x_2$  (w = 6)")
    axis.legend(loc="lower left", fontsize=8.5)
    axis.set_title("The nearest point depends on the metric")


def _draw_coordinates(axis: Any) -> None:
    """The first coordinate in the minimization of docs/theory.md, averaged over the two signs."""
    count = 2000
    target = torch.tensor([0.8, 0.6], dtype=torch.float64)
    for p in (1 / 8, 1 / 4, 1 / 2):
        for constraint, style in SETS.values():
            x = torch.nn.Parameter(torch.tensor([0.5, 0.5], dtype=torch.float64))
            optimizer = Padam([x], lr=0.1, partial=p, bias_correction="none", constraint=constraint)
            schedule = Schedule(optimizer, lr=InverseSqrt(), beta1=Geometric(0.99))
            seen = []
            for t in range(count):
                x.grad = x.detach() - target
                x.grad[1] += 3 * (-1) ** t
                optimizer.step()
                schedule.step()
                seen.append(x[0].item())
            means = np.convolve(seen, (0.25, 0.5, 0.25), "valid")
            axis.plot(range(2, count), means, style, color=colour(p), label=f"p = {NAMES[p]}" if style == "-" else None)
    axis.axhline(0.6, color=publish.INK, linewidth=0.8, zorder=1)
    axis.annotate("optimum", (700, 0.606), fontsize=8.5)
    axis.set(xscale="log", xlim=(2, count), ylim=(0.49, 0.82), xlabel="step", ylabel="$x_1$")
    axis.legend(loc="lower right")
    axis.set_title("and one of them leaves the optimum")


if __name__ == "__main__":
    main()
