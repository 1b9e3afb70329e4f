"""The regret study: exact gradients, certified comparators, Algorithm 1 as printed, and the theorem's bound held."""

import json
import re

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from benchmarks import cli
from benchmarks.base.store import StoreError
from benchmarks.theory.record import load, save
from benchmarks.theory.regret import problems, sets, study, study_report
from benchmarks.theory.regret.bound import bound, trivial
from benchmarks.theory.regret.play import BETAS, DECAY, EPS, Euclidean, Mark, play
from partial_adaptive import Box, L1Ball, L2Ball, NonNegative, Simplex

ROUNDS = 200
NAMES = list(problems.PROBLEMS)


@pytest.fixture(scope="module")
def built():
    """The problems, over fewer rounds than in the study."""
    return {name: build(ROUNDS) for name, build in problems.PROBLEMS.items()}


@pytest.fixture(scope="module")
def measured(built):
    """Every problem played at every p and α, as the study does it."""
    return {name: study.measure(problem, study.marks(ROUNDS)) for name, problem in built.items()}


def inside(problem, draw, *, spread=1.0):
    """A random point of a problem's set."""
    return sets.nearest(problem.feasible, draw.normal(scale=spread, size=problem.dimension))


def total(problem, t, x):
    """The sum of the first t losses."""
    return sum(problem.loss(s, x) for s in range(1, t + 1))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_exact(built, name):
    """Central differences of the loss, at points away from kinks, in several rounds."""
    problem, draw = built[name], np.random.default_rng(0)
    for t in (1, 7, ROUNDS):
        x, direction, h = inside(problem, draw), draw.normal(size=problem.dimension), 1e-6
        slope = (problem.loss(t, x + h * direction) - problem.loss(t, x - h * direction)) / (2 * h)
        assert problem.gradient(t, x) @ direction == pytest.approx(slope, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_convex(built, name):
    """No loss is below its tangent: the only thing that the theorem asks of them."""
    problem, draw = built[name], np.random.default_rng(1)
    for t in range(1, 100):
        x, y = inside(problem, draw), inside(problem, draw)
        assert problem.loss(t, y) >= problem.loss(t, x) + problem.gradient(t, x) @ (y - x) - 1e-12


@pytest.mark.parametrize("feasible", [Box(-2, 1), L1Ball(3), L2Ball(3), Simplex(2)], ids=repr)
def test_width_and_lowest_points_of_the_sets(feasible):
    """D∞ is the width along the axes; no point is lower than `lowest`, and the point farthest down is as low."""
    axes, draw, form = np.eye(5), np.random.default_rng(2), sets.form(feasible)
    assert form.diameter == pytest.approx(max(-form.lowest(axis) - form.lowest(-axis) for axis in axes))
    for _ in range(20):
        normal = draw.normal(size=5)
        points = [sets.nearest(feasible, scale * draw.normal(size=5)) for scale in (0.1, 1, 10)]
        assert min(normal @ point for point in points) >= form.lowest(normal)
        assert normal @ sets.nearest(feasible, -1e9 * normal) == pytest.approx(form.lowest(normal), rel=1e-6)


def test_unbounded_sets():
    """The theorem asks for a bounded set; another one is refused by name."""
    with pytest.raises(TypeError, match=r"feasible must be .* bounded, got NonNegative"):
        sets.form(NonNegative())


@pytest.mark.parametrize("t", [10, 60, ROUNDS])
@pytest.mark.parametrize("name", NAMES)
def test_comparators_are_certified(built, name, t):
    """A point of the set, the loss that it has, and a gap that is next to nothing beside that of the start."""
    problem = built[name]
    best = problem.best(t)
    np.testing.assert_allclose(sets.nearest(problem.feasible, best.point), best.point, rtol=0, atol=1e-12)
    assert best.value == pytest.approx(total(problem, t, best.point), rel=1e-12, abs=1e-12)
    assert best.gap <= 1e-11 * total(problem, t, problem.start) + 1e-11 * abs(best.value) + 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_no_random_point_beats_a_comparator(built, name):
    """Feasible points near it and far from it."""
    problem, draw, t = built[name], np.random.default_rng(3), 60
    best = problem.best(t)
    for spread in np.geomspace(1e-6, 3, 60):
        point = sets.nearest(problem.feasible, best.point + spread * draw.normal(size=problem.dimension))
        assert total(problem, t, point) >= best.value - 1e-9 * abs(best.value)


def second(problem, t):
    """The least total loss by another solver, SLSQP; the L1 ball by the parts above and below 0."""
    d, signs = problem.dimension, np.eye(problem.dimension)
    match problem.feasible:
        case Box(low, high):
            bounds, constraints = [(low, high)] * d, []
        case L2Ball(radius):
            bounds, constraints = None, [{"type": "ineq", "fun": lambda x: radius**2 - x @ x, "jac": lambda x: -2 * x}]
        case Simplex(size):
            bounds, constraints = [(0, 1)] * d, [{"type": "eq", "fun": lambda x: x.sum() - size}]
        case L1Ball(radius):
            signs = np.hstack([signs, -signs])
            bounds, constraints = [(0, None)] * (2 * d), [{"type": "ineq", "fun": lambda x: radius - x.sum()}]

    def loss(x):
        return total(problem, t, signs @ x)

    def slope(x):
        return sum(problem.gradient(s, signs @ x) for s in range(1, t + 1)) @ signs

    start = problem.start if signs.shape[1] == d else np.full(2 * d, 0.01)
    options = {"maxiter": 100, "ftol": 1e-13}
    found = minimize(loss, start, jac=slope, bounds=bounds, constraints=constraints, method="SLSQP", options=options)
    return total(problem, t, sets.nearest(problem.feasible, signs @ found.x))


@pytest.mark.parametrize("name", NAMES)
def test_no_second_solver_beats_a_comparator(built, name):
    """SLSQP finds nothing better; and where the loss is smooth, nothing that is much worse."""
    problem, t = built[name], 40
    best, other = problem.best(t).value, second(problem, t)
    assert other >= best - 1e-9 * abs(best)
    if name != "absolute":
        assert other <= best + 1e-5 * abs(best)


def algorithm_1(problem, p, alpha, rounds, *, weighted=True):
    """Algorithm 1 as printed, in NumPy: the points played, the gradients and the last v̂."""
    x, m, v, highest = problem.start, 0.0, 0.0, 0.0
    points, gradients = [], []
    for t in range(1, rounds + 1):
        points.append(x)
        gradients.append(g := problem.gradient(t, x))
        beta = BETAS[0] * DECAY ** (t - 1)
        m, v = beta * m + (1 - beta) * g, BETAS[1] * v + (1 - BETAS[1]) * g * g
        highest = np.maximum(highest, v)
        metric = (np.sqrt(highest) + EPS) ** (2 * p)
        step = torch.from_numpy(x - alpha / np.sqrt(t) * m / metric)
        weights = torch.from_numpy(metric if weighted else np.ones_like(metric))
        x = problem.feasible.project(step, weights).numpy()
    return np.array(points), np.array(gradients), highest


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_algorithm_1(built, name, weighted):
    """What the library plays, and the quantities that the bound is made of, are those of the printed algorithm."""
    problem, p, alpha, t = built[name], 1 / 8, 0.3, 40
    points, gradients, highest = algorithm_1(problem, p, alpha, t, weighted=weighted)
    seen = play(problem, p, alpha, (15, t), None if weighted else Euclidean(problem.feasible))
    assert [mark.t for mark in seen] == [15, t]
    expected = Mark(
        t,
        sum(problem.loss(s, x) for s, x in enumerate(points, start=1)),
        ((np.sqrt(highest) + EPS) ** (2 * p)).sum(),
        np.linalg.norm(gradients, axis=0).sum(),
        np.abs(gradients).max(),
        np.abs(gradients).sum(),
    )
    for field, value in vars(expected).items():
        assert getattr(seen[-1], field) == pytest.approx(value, rel=1e-10), field


def test_bound_is_the_theorems(built):
    """By hand, for D∞ = 2, d = 50, α = 1/2, β = (0.9, 0.999), λ = 0.99, T = 4, G∞ = 4, Σv̂^p = 3, Σ‖g‖ = 5, p = 1/4."""
    mark = Mark(t=4, loss=0.0, scales=3.0, norms=5.0, largest=4.0, sum=11.0)
    found = bound(built["linear"], 1 / 4, 0.5, mark)
    assert found.distance == pytest.approx(4 * 2 / (2 * 0.5 * 0.1) * 3)
    gamma = 0.9 / 0.999**0.5
    assert found.gradients == pytest.approx(
        0.5 * 2 * (1 + np.log(4)) ** 0.5 / (0.01 * (1 - gamma) * 0.001**0.25) * 5, rel=1e-9
    )
    assert found.momentum == pytest.approx(0.9 * 50 * 4 * 2 / (2 * 0.5 * 0.1 * 0.01**2))
    assert found.total == found.distance + found.gradients + found.momentum
    assert trivial(built["linear"], mark) == 22.0


@pytest.mark.parametrize("name", NAMES)
def test_regret_is_below_the_bound(measured, name):
    """At every p, α and checkpoint, the comparator's gap counted against us; below the trivial bound too."""
    played = measured[name]
    assert len([run for run in played.runs if run.weighted]) == len(study.PARTIALS) * len(study.STEPS)
    for run in played.runs:
        for point in run.points:
            assert point.regret + played.gap <= point.trivial
            if run.weighted:
                assert point.regret + played.gap <= point.bound.total


@pytest.mark.parametrize("name", NAMES)
def test_regret_per_round_falls(measured, name):
    """R_t/t goes to 0 at every p: at the end it is well below what it was in the first third."""
    for p in study.PARTIALS:
        points = measured[name].best(p).points
        early, late = points[-4], points[-1]
        assert late.regret / late.t < 0.85 * early.regret / early.t


def test_the_metric_of_the_projection_matters():
    """At p = 1/2 the portfolio's regret after 1,500 rounds is a small part of that by the Euclidean projection."""
    problem, t = problems.portfolio(1_500), 1_500
    ways = (None, Euclidean(problem.feasible))
    right, wrong = (play(problem, 1 / 2, problem.rate, [t], way)[0].loss - problem.best(t).value for way in ways)
    assert 0 < right < wrong / 10


def test_where_the_bound_gets_of_use(measured):
    """At the T of the report's last column the terms, carried on, add up to the trivial bound."""
    end = measured["sparse"].best(1 / 8).points[-1]
    growth = study_report.useful(end) / end.t
    assert growth > 1
    carried = (end.bound.distance + end.bound.gradients) * growth**0.5 + end.bound.momentum
    assert carried == pytest.approx(end.trivial * growth)


def test_records_are_read_as_they_were_written(measured, tmp_path):
    """Every digit; and a file that is no record is an error that names it."""
    record = study.Record(BETAS, DECAY, EPS, tuple(measured.values()), {"torch": "2"})
    save(tmp_path / "regret.json", record)
    assert load(study.Record, tmp_path / "regret.json", "") == record
    (tmp_path / "regret.json").write_text('{"problems": 3}')
    with pytest.raises(StoreError, match=r"regret\.json is not a record of this study .*run it again"):
        load(study.Record, tmp_path / "regret.json", "run it again")


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Calls the command line in an empty directory, with a study of few rounds and α; returns exit code and output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "ROUNDS", 30)
    monkeypatch.setattr(study, "STEPS", (0, 1))

    def run(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def files(directory):
    """The bytes of the files of a report, without the page's date."""
    return {
        str(path.relative_to(directory)): re.sub(rb'<p class="made">.*?</p>', b"", path.read_bytes())
        for path in sorted(directory.rglob("*.*"))
    }


def test_run_then_report(call, tmp_path):
    """A record with its origin, tables on the screen, a page with its figures; `report` makes the same page again."""
    code, out = call("run", "regret", "--threads", 1)
    assert code == 0
    assert "| portfolio" in out
    assert str(tmp_path / "runs/report/regret.html") in out
    record = json.loads((tmp_path / "runs/regret.json").read_text())
    assert {"torch", "numpy", "device", "commit", "command"} <= record["environment"].keys()
    first = files(tmp_path / "runs/report")
    assert {
        "regret.html",
        "regret.md",
        "regret/regret.svg",
        "regret/bound.png",
        "regret/the_problems.csv",
    } <= first.keys()
    assert first["regret.html"].count(b"<svg") == 4
    assert call("report", "regret")[0] == 0
    assert files(tmp_path / "runs/report") == first


def test_list_names_both_studies(call):
    """Beside those of training runs."""
    out = call("list")[1]
    assert re.search(r"^  regret +Algorithm 1", out, re.MULTILINE)
    assert re.search(r"^  counterexample +Reddi", out, re.MULTILINE)


@pytest.mark.parametrize("name", ["regret", "counterexample"])
@pytest.mark.parametrize(
    "options",
    [
        ("--seeds", "3"),
        ("--only", "linear"),
        ("--time-budget", "5"),
        ("--jobs-per-device", "2"),
        ("--ray",),
        ("--dry-run",),
        ("--force",),
        ("--data-dir", "elsewhere"),
        ("--device", "cuda"),
    ],
)
def test_options_without_a_meaning_are_refused(call, tmp_path, monkeypatch, name, options):
    """By name and before anything is done."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    code, out = call("run", name, *options)
    assert code == 2
    assert f"error: {options[0]}" in out
    assert name in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["regret", "counterexample"])
def test_a_report_without_a_record_says_how_to_make_one(call, name):
    """Exit code 2 and the command."""
    code, out = call("report", name)
    assert code == 2
    assert f"`python -m benchmarks run {name}` makes it" in out
