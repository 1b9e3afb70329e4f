"""Budgets, expected bests, sensitivities, profiles and the win matrix: against closed forms and by hand."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reports import arm, report, series

from benchmarks.report.groups import groups
from benchmarks.report.sections import budgets, compared, expected, profiles, sensitivity, tables
from benchmarks.studies import tuning
from benchmarks.studies.study import Study, Tuning
from benchmarks.workloads import metrics

numbers = st.floats(-100, 100)


def trial(lr, *runs, group="sgd", optimizer="sgd", workload="digits-mlp", **point):
    """A trial on the validation split at this learning rate and these other settings."""
    point = {"lr": lr, **point}
    label = ",".join([group, *(f"{key}={value}" for key, value in point.items())])
    return series(
        arm(label, optimizer, workload, group=group, point=point, split="validation"), *([run] for run in runs)
    )


def column(table, header):
    """The numbers under a header, row by row."""
    return [table.cell(row.key, header).value for row in table.rows]


# Budgets


def test_budgets_are_counted_and_differences_set_off():
    """Settings, seeds, diverged settings, seconds of training and evaluation, and what was searched."""
    sgd = [trial(10.0**-i, 90.0, 91.0 if i else math.nan) for i in range(6)]
    adam = [trial(0.1, 80.0, group="adam", optimizer="adam", betas=[0.9, b]) for b in (0.9, 0.99)]
    (table,) = budgets.tables(report(*sgd, *adam))
    assert table.texts == [
        ["Sgd", "6", "2", "1", "18", "lr 1e−5 … 1 (6 values)"],
        ["Adam", "2", "1", "0", "3", "lr 0.1; betas (0.9, 0.9), (0.9, 0.99)"],
    ]
    assert [row.cells[1].mark for row in table.rows] == ["", "flagged"]
    assert "Budgets differ, from 2 to 6 settings" in table.notes[0]


def test_equal_budgets_are_said_to_be_equal_and_missing_trials_shown():
    """Nothing is set off but the entry whose trials are not all in."""
    first = [trial(lr, 90.0) for lr in (0.1, 0.2)]
    second = [trial(0.1, 90.0, group="adam", optimizer="adam"), trial(0.2, group="adam", optimizer="adam")]
    (table,) = budgets.tables(report(trials=[*first, *second]))
    assert column(table, "settings tried") == [2, 1]
    assert [row.cells[1].text for row in table.rows] == ["2", "1 of 2"]
    assert table.notes[0] == "All entries were given 2 settings."


def test_there_is_no_budget_where_nothing_is_searched():
    """One setting an entry is no search."""
    assert budgets.tables(report(series(arm("sgd"), [90.0]), series(arm("adam", "adam"), [80.0]))) == []


def test_entries_of_one_optimizer_are_told_apart():
    """By their label, where their titles are the same."""
    found = groups(report(*(trial(lr, 90.0, group=group) for group in ("wide", "narrow") for lr in (0.1, 0.2))))
    assert [group.title for group in found] == ["Sgd (wide)", "Sgd (narrow)"]
    assert [len(group.candidates) for group in found] == [2, 2]


# Expected best


@settings(max_examples=40, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=8))
def test_the_expected_best_is_the_mean_over_all_choices(values):
    """For every n the mean of the largest over all subsets of n trials, enumerated."""
    for n, mean in enumerate(expected.expected(values), start=1):
        subsets = list(itertools.combinations(values, n))
        assert mean == pytest.approx(sum(map(max, subsets)) / len(subsets), abs=1e-9)


def test_the_band_covers_what_it_says():
    """Of 16 trials on a parabola, the expected best of 1, 4, 8 and 16 lies in the band nine times of ten and more.

    With u uniform in (0, 1) the score is −u²: the best of n is −2/((n + 1)(n + 2)) on average.
    """
    rng, counts = np.random.default_rng(0), (1, 4, 8, 16)
    covered = np.zeros(len(counts))
    for _ in range(200):
        low, high = expected.band(list(-(rng.random(16) ** 2)))
        covered += [low[n - 1] <= -2 / ((n + 1) * (n + 2)) <= high[n - 1] for n in counts]
    assert ((covered / 200 >= 0.9) & (covered / 200 <= 0.995)).all()


def test_the_band_ends_at_what_can_be():
    """No accuracy above 100 %, no perplexity below 1."""
    found = report(trials=[trial(lr, score) for lr, score in ((0.1, 10.0), (0.2, 99.0), (0.4, 100.0))])
    assert max(expected.curves(found, "digits-mlp")[0].high) == 100
    found = report(
        trials=[trial(lr, score, workload="text-lstm") for lr, score in ((0.1, 9.0), (0.2, 1.1), (0.4, 1.0))]
    )
    assert min(expected.curves(found, "text-lstm")[0].low) == 1


def test_the_band_is_the_same_every_time():
    """A report made again says the same."""
    assert expected.band([1.0, 5.0, 2.0]) == expected.band([1.0, 5.0, 2.0])


def test_the_table_of_expected_bests_by_hand():
    """Of 1, 2, 6 (6, not 4, since that trial diverged and counts as the worst): means 3, 14/3 − 1/3, 6."""
    found = report(trials=[trial(0.1, 1.0), trial(0.2, 2.0), trial(0.3, 6.0)])
    (table,) = expected.tables(found)
    assert table.headers == ["optimizer", "1 trial", "2 trials", "3 trials"]
    assert [cell.value for cell in table.rows[0].cells[1:]] == pytest.approx([3.0, (2 + 6 + 6) / 3, 6.0])
    found = report(trials=[trial(0.1, 1.0), trial(0.2, math.nan), trial(0.3, 6.0)])
    (table,) = expected.tables(found)
    assert [cell.value for cell in table.rows[0].cells[1:]] == pytest.approx([8 / 3, (1 + 6 + 6) / 3, 6.0])


def test_the_expected_best_of_a_loss_falls():
    """Where less is better the best is the least, and the band is not upside down."""
    found = report(trials=[trial(lr, lr, workload="text-lstm") for lr in (1.0, 2.0, 6.0)])
    (curve,) = expected.curves(found, "text-lstm")
    assert curve.mean == pytest.approx([3.0, 4 / 3, 1.0])
    assert all(low <= mean <= high for low, mean, high in zip(curve.low, curve.mean, curve.high, strict=True))


def test_nothing_is_expected_from_the_test_set():
    """Arms of an ablation are no trials: their best is chosen on what it is judged on."""
    arms = [arm(f"sgd,lr={lr}", point={"lr": lr}) for lr in (0.1, 0.2, 0.3)]
    assert expected.tables(report(*(series(one, [90.0]) for one in arms))) == []


# Sensitivity

STEEPNESS, SPREAD = 10.0, 0.1
RATES = [10.0 ** (k / 20) for k in range(-80, 1)]  # four decades in steps of 1/20


def parabola(best, *, group="padam", direction=1, workload="digits-mlp", **point):
    """Trials whose score falls with the square of the decades from the best, with a known spread over two seeds."""
    scores = {lr: 90 - direction * STEEPNESS * (math.log10(lr) - best) ** 2 for lr in RATES}
    return [
        trial(lr, score - SPREAD, score + SPREAD, group=group, optimizer=group, workload=workload, **point)
        for lr, score in scores.items()
    ]


@pytest.mark.parametrize(("workload", "direction"), [("digits-mlp", 1), ("text-lstm", -1)])
def test_the_sensitivity_of_a_parabola(workload, direction):
    """a·(log₁₀ 2)² is lost at half and at twice the best rate; 2·√(sd/a) decades lie within one sd, √2·0.1."""
    (table,) = sensitivity.tables(report(trials=parabola(-2.0, workload=workload, direction=direction)))
    loss = direction * STEEPNESS * math.log10(2) ** 2
    assert column(table, "best lr") == pytest.approx([0.01])
    assert column(table, "score there") == pytest.approx([90.0])
    assert column(table, "at lr / 2") == pytest.approx([90 - loss], abs=0.01)
    assert column(table, "at lr × 2") == pytest.approx([90 - loss], abs=0.01)
    width = 2 * math.sqrt(math.sqrt(2) * SPREAD / STEEPNESS)
    assert column(table, "near-optimal, decades") == pytest.approx([width], abs=0.01)
    row = table.rows[0].cells
    assert row[2].mark == ""
    assert not row[-1].text.startswith("≥")


def test_the_slope_of_the_best_rate_against_p():
    """Bests at 10^(−1 − 8p): a slope of −8 decades per unit of p, from three p, each with its own line."""
    trials = [one for p in (0.0625, 0.125, 0.25) for one in parabola(-1 - 8 * p, partial=p)]
    widths, moves = sensitivity.tables(report(trials=trials))
    assert [row.cells[0].text for row in widths.rows] == [f"Padam, p = {p}" for p in (0.0625, 0.125, 0.25)]
    assert column(widths, "best lr") == pytest.approx([10**-1.5, 10**-2, 10**-3])
    assert [cell.value for cell in moves.rows[0].cells[2:]] == pytest.approx([-8.0, 3])


def test_a_best_rate_at_the_end_does_not_count_for_the_slope():
    """It is not known: the two others alone are fitted, and with one of those nothing is."""
    bests = {0.0625: -1.0, 0.125: -2.0, 0.25: -4.0}
    trials = {p: parabola(best, partial=p) for p, best in bests.items()}
    _, moves = sensitivity.tables(report(trials=list(itertools.chain(*trials.values()))))
    assert [cell.value for cell in moves.rows[0].cells[2:]] == pytest.approx([-16.0, 2])
    assert "0.25: 0.0001 (at the end)" in moves.rows[0].cells[1].text
    _, moves = sensitivity.tables(report(trials=trials[0.125] + trials[0.25]))
    assert [cell.text for cell in moves.rows[0].cells[2:]] == ["not measured", "1"]


def test_of_equal_rates_the_first_tried_is_the_best():
    """It is the one that a tuned study trains again, so that what is said of the best rate is said of that."""
    trials = [trial(lr, score) for lr, score in ((0.4, 90.0), (0.1, 90.0), (0.2, 10.0), (0.8, 20.0))]
    (line,) = sensitivity.lines(report(trials=trials), "digits-mlp")
    assert line.profile.lrs[line.profile.best] == line.best.arm.config.hyper["lr"] == 0.4
    assert not line.profile.at_edge
    results = {f"{one.arm.label}/seed{seed}": run for one in trials for seed, run in one.runs.items()}
    arms = tuple(dataclasses.replace(one.arm, refit=one.arm.config) for one in trials)
    study, _ = tuning.select(Study("study", "Study", "", arms, (0,), tuning=Tuning(trials=4)), results)
    assert [arm.config.hyper["lr"] for arm in study.arms] == [0.4]


def test_what_was_not_tried_is_not_measured():
    """Beyond the rates tried there is no score, the width is a lower bound, and the best is set off.

    Between two of them the score is linear in the logarithm: 85 at 0.2, half way from 0.1 to 0.4.
    """
    (table,) = sensitivity.tables(
        report(trials=[trial(lr, score) for lr, score in ((0.025, 50.0), (0.1, 80.0), (0.4, 90.0))])
    )
    assert table.texts[0][2:] == ["0.4", "90.00", "85.00 (−5.00)", "not measured", "≥ 0.03"]
    assert [cell.mark for cell in table.rows[0].cells[2:]] == ["flagged", "", "", "", ""]


def test_what_diverged_is_said_to_have():
    """A neighbour that diverged has no score to interpolate with, and ends the near-optimal range."""
    trials = [trial(lr, score) for lr, score in ((0.1, 50.0), (0.25, 90.0), (1.0, math.nan))]
    (table,) = sensitivity.tables(report(trials=trials))
    assert table.texts[0][5] == "diverged"
    assert table.texts[0][6] == "0.0050"
    assert column(table, "near-optimal, decades")[0] == pytest.approx(math.log10(2.5) * 0.5 / 40)


def test_the_best_of_the_other_settings_counts():
    """Of a full grid the profile is the best over the other axes, rate by rate, a dip included."""
    scores = {0.05: (70.0, 65.0), 0.1: (50.0, 60.0), 0.2: (90.0, 10.0), 0.4: (70.0, 80.0)}
    trials = [trial(lr, s, momentum=m) for lr, pair in scores.items() for m, s in zip((0.5, 0.9), pair, strict=True)]
    (line,) = sensitivity.lines(report(trials=trials), "digits-mlp")
    assert dict(zip(line.profile.lrs, line.profile.scores, strict=True)) == {
        0.05: 70.0,
        0.1: 60.0,
        0.2: 90.0,
        0.4: 80.0,
    }


def test_drawn_settings_that_did_worse_are_put_down_to_the_others():
    """With a momentum drawn anew for each rate, a score below a farther one is left out; diverged ones as well."""
    scores = {1.0: 10.0, 2.0: 5.0, 4.0: 20.0, 8.0: math.nan, 16.0: 7.0}
    trials = [trial(lr, score, momentum=lr / 20) for lr, score in scores.items()]
    (line,) = sensitivity.lines(report(trials=trials), "digits-mlp")
    assert dict(zip(line.profile.lrs, line.profile.scores, strict=True)) == {1.0: 10.0, 4.0: 20.0, 16.0: 7.0}


@settings(max_examples=50, deadline=None)
@given(st.lists(numbers | st.just(math.nan), min_size=1, max_size=12).filter(lambda v: not all(map(math.isnan, v))))
def test_an_envelope_rises_to_the_best_and_falls(values):
    """It keeps the best and both ends, and nothing on it is below what lies farther out."""
    kept = sensitivity.unimodal({float(i + 1): value for i, value in enumerate(values)})
    scores = [-math.inf if math.isnan(value) else value for value in kept.values()]
    top = scores.index(max(scores))
    assert scores[: top + 1] == sorted(scores[: top + 1])
    assert scores[top:] == sorted(scores[top:], reverse=True)
    assert {1.0, float(len(values))} <= kept.keys()


def test_two_rates_are_no_line():
    """Nothing is said of a width from two points."""
    assert sensitivity.tables(report(trials=[trial(0.1, 90.0), trial(0.2, 80.0)])) == []


# Profiles and the win matrix

CURVES = {
    # workload: arm: (score after each of two epochs, seconds an epoch)
    "digits-mlp": {"sgd": ((80.0, 90.0), 1.0), "adam": ((90.0, 95.0), 3.0), "padam": ((85.0, 88.0), 1.0)},
    "text-lstm": {"sgd": ((4.0, 3.0), 1.0), "adam": ((5.0, 4.0), 1.0), "padam": ((3.0, 2.5), 1.0)},
}


def over_workloads(curves=CURVES, spread=0.0, **study):
    """A study of several workloads; seeds differ by the spread."""
    found = []
    for workload, arms in curves.items():
        for label, (scores, seconds) in arms.items():
            one = arm(f"{workload}/{label}", label, workload)
            runs = [tuple(score + step * spread for score in scores) for step in (-1, 0, 1)]
            found.append(series(one, *runs, seconds=seconds))
    return report(*found, reference="sgd", **study)


def test_a_profile_by_hand():
    """Targets 90 and 3, where sgd ends, after two epochs of each: adam is faster on the first, padam on the second."""
    found = profiles.problems([over_workloads()])
    assert [problem.target for problem in found] == pytest.approx([90.0, 3.0])
    assert profiles.ratios(found, "steps") == {"sgd": [2, 2], "adam": [1, math.inf], "padam": [math.inf, 1]}
    assert profiles.ratios(found, "seconds") == {"sgd": [1, 2], "adam": [1.5, math.inf], "padam": [math.inf, 1]}
    steps, seconds = profiles.tables([over_workloads()])[:2]
    assert steps.headers == ["optimizer", "targets reached", *(f"within {x}×" for x in ("1", "1.5", "2", "4", "8"))]
    assert [[cell.value for cell in row.cells[1:]] for row in steps.rows] == [
        [2, 0.0, 0.0, 1.0, 1.0, 1.0],
        [1, *[0.5] * 5],
        [1, *[0.5] * 5],
    ]
    assert [[cell.value for cell in row.cells[1:]] for row in seconds.rows] == [
        [2, 0.5, 0.5, 1.0, 1.0, 1.0],
        [1, 0.0, *[0.5] * 4],
        [1, *[0.5] * 5],
    ]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1, 50) | st.just(math.inf), min_size=1, max_size=9))
def test_a_profile_rises_to_the_share_solved(multiples):
    """It never falls with the factor, and ends at the share of targets reached at all."""
    shares = [profiles.within(multiples, factor) for factor in (1, 1.5, 3, 10, 60, 1e300)]
    assert shares == sorted(shares)
    assert shares[-1] == sum(map(math.isfinite, multiples)) / len(multiples)


def test_most_seeds_must_reach_the_target():
    """The median over the seeds: with two of three that reach it there is a cost, with one of three none."""
    one = series(arm("sgd"), [90.0, 90.0], [80.0, 90.0], [80.0, 80.0])
    assert profiles.cost(one, 90.0, "steps") == 20
    assert profiles.cost(series(arm("sgd"), [90.0], [80.0], [80.0]), 90.0, "steps") == math.inf
    assert profiles.cost(series(arm("sgd"), [90.0], [90.0], [math.nan]), 90.0, "steps") == 10


@pytest.mark.parametrize("odd", [{"device": "another"}, {"side_by_side": 4}, {"threads": 2}])
def test_seconds_compare_on_one_machine_only(odd):
    """A workload whose runs were made on two devices or under other load is left out of the seconds; steps stay."""
    found = over_workloads()
    odd = series(arm("text-lstm/padam", "padam", "text-lstm"), (3.0, 2.5), **odd)
    third = [
        series(arm(f"fashion-cnn/{label}", label, "fashion-cnn"), (90.0, 91.0)) for label in ("sgd", "adam", "padam")
    ]
    mixed = report(*found.series[:-1], odd, *third, reference="sgd")
    steps, seconds = profiles.tables([mixed])[:2]
    assert steps.name == "profile_steps"
    assert column(steps, "targets reached") == [3, 2, 2]
    assert column(seconds, "targets reached") == [2, 2, 1]
    assert any("text-lstm" in note and "Left out" in note for note in seconds.notes)


def test_an_arm_must_have_run_everywhere():
    """What did not run on every workload has no profile, and is named."""
    found = over_workloads()
    table = profiles.tables([report(*found.series[:-1], reference="sgd")])[0]
    assert [row.key for row in table.rows] == ["sgd", "adam"]
    assert any("Padam" in note for note in table.notes)


def test_the_target_of_a_study_counts():
    """Before what its reference reaches; without either there is no profile."""
    assert [one.target for one in profiles.problems([over_workloads(target=50.0)])] == [50.0, 50.0]
    grid = [series(arm(f"digits-mlp/padam,partial={p}", "padam", group="digits-mlp/padam"), [p]) for p in (0.25, 0.5)]
    (point,) = profiles.problems([report(*grid, reference="digits-mlp/padam,partial=0.5")])
    assert point.target == 0.5
    bare = report(*over_workloads().series)
    assert [one.target for one in profiles.problems([bare])] == [None, None]
    assert [table.name for table in profiles.tables([bare])] == ["win_matrix"]


def test_a_win_matrix_by_hand():
    """Adam beats both on the digits and loses to both on the text; sgd and padam are undecided on the digits."""
    curves = {
        "digits-mlp": {"sgd": ((0.0, 90.0), 1), "adam": ((0.0, 95.0), 1), "padam": ((0.0, 90.1), 1)},
        "text-lstm": {"sgd": ((0.0, 3.0), 1), "adam": ((0.0, 9.0), 1), "padam": ((0.0, 5.0), 1)},
    }
    found = over_workloads(curves, spread=0.1)
    wins = profiles.outcomes(profiles.problems([found]))
    assert wins["adam", "sgd"] == wins["adam", "padam"] == [1, -1]
    assert wins["sgd", "padam"] == [0, 1]
    assert wins["padam", "sgd"] == [0, -1]
    matrix = profiles.tables([found])[-1]
    assert [row.cells[0].text for row in matrix.rows] == ["Sgd", "Adam", "Padam"]
    assert [[cell.value for cell in row.cells[1:4]] for row in matrix.rows] == [[2, 1, 1], [2, 2, 0], [1, 2, 1]]
    assert [cell.text for cell in matrix.rows[0].cells[4:]] == ["–", "1 / 1 / 0", "1 / 0 / 1"]


def test_the_whole_matrix_is_one_family():
    """A p that would do among the three pairs of one workload does not among the six of two."""
    close = [90.0, 90.1, 90.2]
    other = [90.44, 90.54, 90.64]
    flat = {label: [[89.0 + i], [90.0 + i], [91.0 + i]] for i, label in enumerate(("a", "b", "c"))}
    one = [series(arm(label), *([score] for score in scores)) for label, scores in (("sgd", close), ("adam", other))]
    wide = series(arm("padam"), [80.0], [90.0], [100.0])
    assert profiles.outcomes(profiles.problems([report(*one, wide)]))["adam", "sgd"] == [1]
    more = [
        series(arm(f"text-lstm/{x}", workload="text-lstm"), *runs)
        for x, runs in zip(("sgd", "adam", "padam"), flat.values(), strict=True)
    ]
    both = profiles.problems([report(*one, wide, *more)])
    assert profiles.outcomes(both)["adam", "sgd"][0] == 0


def test_what_cannot_be_tested_is_not_counted():
    """One run, or a diverged one, has no place in the matrix; the latter is named."""
    arms = [series(arm(x, x), [90.0], [91.0]) for x in ("sgd", "adam", "padam")]
    single = series(arm("adamw", "adamw"), [99.0])
    gone = series(arm("nadam", "nadam"), [99.0], [99.1], [math.nan])
    (matrix,) = profiles.tables([report(*arms, single, gone)])
    assert [row.key for row in matrix.rows] == ["sgd", "adam", "padam"]
    assert any("Nadam (digits-mlp)" in note for note in matrix.notes)


def test_a_large_grid_has_no_matrix():
    """Hundreds of arms are not tested pair by pair: nobody reads it, and nothing would be decided."""
    arms = [series(arm(f"sgd,lr={i}", point={"lr": i}), [90.0], [91.0]) for i in range(13)]
    assert profiles.tables([report(*arms)]) == profiles.figures([report(*arms)]) == []


def test_several_studies_are_one_comparison():
    """Workloads of several studies stand side by side under the study's name; a single study has its own tables."""
    first, second = over_workloads(spread=0.1), over_workloads(spread=0.1, name="second")
    found, drawn = compared.overall([first, second])
    assert [problem.name for problem in profiles.problems([first, second])][2] == "second: digits-mlp"
    assert column(found[0], "targets reached") == [4, 2, 2]
    assert [table.name for table in found] == ["profile_steps", "profile_seconds", "win_matrix"]
    assert [figure.name for figure in drawn] == ["profile_steps", "profile_seconds", "win_matrix"]
    assert compared.overall([first]) == ([], [])


# All of it


@pytest.fixture(scope="module")
def everything():
    """A tuned study of two workloads with all that there is to say."""
    final = over_workloads(spread=0.1)
    trials = [
        one
        for workload in CURVES
        for p in (0.0625, 0.25)
        for one in parabola(-1 - 8 * p, group=f"{workload}/padam", workload=workload, partial=p)
    ]
    return report(*final.series, trials=trials, reference="sgd")


def test_every_table_and_figure_is_well_formed(everything, monkeypatch):
    """Names are unique, rows as wide as their header, charts valid, and each figure says in words what it shows."""
    monkeypatch.setattr(compared.choices, "tables", lambda _: [])  # of a study from a store: see test_tuning
    found, drawn = compared.tables(everything), compared.figures(everything)
    for things in (found, drawn):
        assert len({one.name for one in things}) == len(things)
    assert len(found) == 3 + 4 * 2
    for table in found:
        assert all(len(row.cells) == len(table.columns) for row in table.rows)
        assert len({row.key for row in table.rows}) == len(table.rows)
        assert len({column.name for column in table.columns}) == len(table.columns)
    assert len(drawn) == 3 + 2 * 2
    for figure in drawn:
        figure.chart.to_dict()
        assert any(letter.isdigit() for letter in figure.alternative)
        assert "padam" in figure.alternative.lower()


def test_a_chart_can_be_drawn(everything):
    """The charts are not only valid but drawn, with an axis that says what it shows."""
    import vl_convert

    figure = next(one for one in sensitivity.figures(everything) if "digits" in one.name)
    svg = vl_convert.vegalite_to_svg(figure.chart.to_dict())
    assert "learning rate" in svg
    assert metrics.title("digits-mlp").removeprefix("test ") in svg


def test_a_report_has_these_tables(monkeypatch, everything):
    """They stand in the report of a study, after its own."""
    monkeypatch.setattr(compared.choices, "tables", lambda _: [])
    names = [table.name for table in tables.build(everything)]
    assert {"win_matrix", "profile_steps", "budgets_digits_mlp", "sensitivity_text_lstm"} <= set(names)
