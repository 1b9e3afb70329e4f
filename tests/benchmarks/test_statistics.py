"""The statistics, against scipy and numbers worked out by hand."""

import math

import numpy as np
import pytest
from scipy import special, stats

from benchmarks.report.inference import family
from benchmarks.report.inference.family import holm
from benchmarks.report.inference.power import power, seeds_needed, smallest_detectable
from benchmarks.report.inference.statistics import paired, pooled_sd, summarize

A = [93.1, 93.4, 93.5, 93.9]
B = [92.8, 93.0, 93.2]


def test_summary_by_hand():
    """Mean, sd with n − 1 and the t-interval: 2 ± 4.303·1/√3 for 1, 2, 3."""
    summary = summarize([1.0, 2.0, 3.0])
    assert (summary.n, summary.mean, summary.sd) == (3, 2.0, 1.0)
    assert summary.low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-5)
    assert summary.high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-5)


@pytest.mark.parametrize("values", [[], [1.0]])
def test_summary_claims_nothing_from_too_few(values):
    """One run has no spread and no interval."""
    summary = summarize(values)
    assert math.isnan(summary.sd)
    assert math.isnan(summary.low)


def test_paired_is_scipys():
    """The paired test on the seeds that two arms share."""
    ours, reference = paired(A[:3], B), stats.ttest_rel(A[:3], B)
    interval = reference.confidence_interval(0.95)
    assert (ours.low, ours.high, ours.p) == pytest.approx((interval.low, interval.high, reference.pvalue), rel=1e-9)


@pytest.mark.parametrize("values", [([1.0, 1.0], [2.0, 2.0]), ([1.0], [2.0])])
def test_no_spread_decides_nothing(values):
    """Two arms without any spread, or a single run, give no p-value instead of a perfect one."""
    arm, base = values
    verdict = family.judge([arm], base)
    assert np.isnan([paired(arm, base).p, paired(arm, base).low, verdict.p[0], verdict.low[0]]).all()
    assert not verdict.decided[0]


def test_holm_by_hand():
    """p·(m − rank), never decreasing, at most 1; NaN is no test; many families at once are judged one by one."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    adjusted = holm([0.01, math.nan])
    assert adjusted[0] == 0.01
    assert math.isnan(adjusted[1])
    assert holm([[0.04, 0.01, 0.03], [0.9, math.nan, 0.01]])[1] == pytest.approx([0.9, math.nan, 0.02], nan_ok=True)


def test_a_family_is_welchs_and_holms():
    """Differences and p-values are scipy's, adjusted by Holm; an arm with one run, or none, is no test."""
    arms, base = [A, [90.0, 91.0, 92.0, 90.5], [93.0], []], B
    found = family.judge(arms, base)
    expected = [stats.ttest_ind(arm, base, equal_var=False).pvalue for arm in arms[:2]]
    assert found.difference[0] == pytest.approx(np.mean(A) - np.mean(B))
    assert found.p[:2] == pytest.approx(expected, rel=1e-9)
    assert found.adjusted[:2] == pytest.approx(holm(expected))
    assert np.isnan(found.p[2:]).all()
    assert not found.decided[2:].any()
    assert found.difference[2] == pytest.approx(0.0)
    alone = family.judge([A], B)
    interval = stats.ttest_ind(A, B, equal_var=False).confidence_interval(1 - family.level(len(A), len(B), 0.05))
    assert (alone.low[0], alone.high[0]) == pytest.approx((interval.low, interval.high), rel=1e-9)


def draws(n, m, ratio, trials, shift=0.0, counts=None):
    """Families of `m` arms of normal runs against a base with a standard deviation of 1; the first arm is shifted."""
    rng = np.random.default_rng([n, m, int(100 * ratio)])
    counts = counts or [n] * m
    arms = [rng.normal(0, ratio, (trials, count)) for count in counts]
    arms[0] += shift
    base = rng.normal(0, 1, (trials, 1, n))
    means, variances = (np.stack(x, -1) for x in zip(*((a.mean(-1), a.var(-1, ddof=1)) for a in arms), strict=True))
    bases = family.Moments(base.mean(-1), base.var(-1, ddof=1), [n] * m)
    return family.judge_moments(family.Moments(means, variances, counts), bases)


@pytest.mark.parametrize("m", [1, 4, 17])
@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("ratio", [0.2, 1.0, 5.0])
def test_false_positives_over_a_family(n, m, ratio):
    """Any wrong verdict at all in at most 5 % of families in which nothing differs, whatever the spreads.

    Welch's test alone with Holm's method has 8 % for 3 seeds, 17 comparisons and a ratio of 5.
    """
    trials = 10_000
    rate = draws(n, m, ratio, trials).decided.any(-1).mean()
    assert rate <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / trials)


def test_the_guard_is_needed():
    """What it protects from is there: without it more than 7 % of families have a wrong verdict."""
    assert (draws(3, 17, 5.0, 10_000).adjusted < 0.05).any(-1).mean() > 0.07


def test_unequal_numbers_of_runs_are_guarded_too():
    """Arms that lost seeds to a time budget."""
    rate = draws(5, 4, 4.0, 10_000, counts=[2, 3, 5, 10]).decided.any(-1).mean()
    assert rate <= 0.0557


def test_verdict_and_interval_agree():
    """Decided means that the interval excludes 0, and then Holm's p is below the level; at each step, not the first."""
    found = draws(4, 6, 1.0, 5_000, shift=6.0)
    excluded = (found.low > 0) | (found.high < 0)
    assert (excluded == found.decided).all()
    assert (found.adjusted[found.decided] < 0.05).all()
    arms, bases = (
        family.Moments(np.array([means]), np.ones((1, 4)), [20] * 4) for means in ([50.0, 40.0, 3.1, 0.0], [0.0] * 4)
    )
    steps = family.judge_moments(arms, bases)
    widths = (steps.high - steps.low)[0]
    assert steps.decided[0].tolist() == [True, True, True, False]
    assert sorted(widths, reverse=True) == pytest.approx(widths.tolist())
    assert widths[0] > widths[3]


def test_the_guard_changes_little_for_many_seeds():
    """A guarded level is Welch's own from some ten runs on, and never above it."""
    assert family.level(30, 30, 0.05) == pytest.approx(0.05, rel=0.01)
    assert family.level(3, 3, 0.05) < 0.05
    assert family.level(3, 3, 0.05 / 17) < 0.05 / 17 / 2


@pytest.mark.parametrize(("n", "m", "ratio"), [(2, 1, 1.0), (3, 17, 1.0), (3, 4, 3.0), (5, 17, 0.5), (10, 4, 1.0)])
def test_smallest_detectable_difference_has_its_power(n, m, ratio):
    """A simulated true difference of that size is found four times in five, by the verdict, in its family."""
    shift = smallest_detectable((ratio, 1.0), (n, n), m)
    assert draws(n, m, ratio, 10_000, shift).decided[:, 0].mean() == pytest.approx(0.8, abs=0.02)


def test_power_by_the_noncentral_t():
    """With equal spreads and many runs it is the power of Student's test."""
    n, difference = 40, 0.8
    freedom, shift = 2 * n - 2, difference * math.sqrt(n / 2)
    critical = stats.t.ppf(0.975, freedom)
    assert power(difference, (1.0, 1.0), (n, n)) == pytest.approx(stats.nct.sf(critical, freedom, shift), abs=2e-3)


def test_seeds_for_the_papers_claim():
    """0.13 points at the paper's spreads (0.12 and 0.08) need 11 seeds an arm, and 16 among five optimizers."""
    assert seeds_needed(0.13, (0.12, 0.08)) == 11
    assert seeds_needed(0.13, (0.12, 0.08), comparisons=4) == 16
    assert smallest_detectable((0.12, 0.08), (16, 16), 4) <= 0.13 < smallest_detectable((0.12, 0.08), (15, 15), 4)


def test_more_seeds_find_less():
    """The smallest difference falls with the seeds, and rises with the comparisons."""
    found = [smallest_detectable((1.0, 1.0), (n, n), 4) for n in (2, 3, 4, 6, 10, 30)]
    assert found == sorted(found, reverse=True)
    assert smallest_detectable((1.0, 1.0), (5, 5), 17) > smallest_detectable((1.0, 1.0), (5, 5), 1)
    assert math.isnan(smallest_detectable((1.0, 1.0), (1, 5)))
    assert math.isnan(smallest_detectable((0.0, 0.0), (5, 5)))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((0.0, 1.0), "difference"),
        ((1.0, 0.0), "sd"),
        ((1.0, 1.0, 0), "comparisons"),
        ((1.0, 1.0, 1, 1.0), "power"),
        ((1.0, 1.0, 1, 0.8, 0.0), "alpha"),
        ((1e-9, 1.0), "more than"),
    ],
)
def test_seeds_needed_names_what_is_out_of_range(arguments, name):
    """Which argument, and what it was."""
    with pytest.raises(ValueError, match=name):
        seeds_needed(*arguments)


@pytest.mark.parametrize(
    ("values", "bounds"),
    [([99.5, 99.9], (0, 100)), ([0.1, 0.3, 0.1], (0, 100)), ([1.01, 1.4], (1, math.inf)), ([0.2, 0.9], (-math.inf, 1))],
)
def test_intervals_respect_the_bounds(values, bounds):
    """They end inside, with the mean in them, where the usual one reaches beyond."""
    usual, ours = summarize(values), summarize(values, bounds=bounds)
    assert usual.low < bounds[0] or usual.high > bounds[1]
    assert bounds[0] < ours.low < ours.mean < ours.high < bounds[1] or ours.high == bounds[1] == math.inf


def test_intervals_far_from_the_bounds_are_the_usual_ones():
    """To the first order: an accuracy around 50 % with a small spread."""
    values = [50.0, 50.1, 49.9, 50.05]
    usual, ours = summarize(values), summarize(values, bounds=(0, 100))
    assert (ours.low, ours.high) == pytest.approx((usual.low, usual.high), abs=1e-5)


@pytest.mark.parametrize("score", [97.63, 100.0])
def test_equal_runs_have_no_interval(score):
    """Two runs of one score, on a bound or not: an interval of no width would say that nothing else can come out."""
    ours = summarize([score, score], bounds=(0, 100))
    assert (ours.mean, ours.sd) == (score, 0.0)
    assert math.isnan(ours.low)
    assert math.isnan(ours.high)


def test_a_mean_on_a_bound_is_cut_off():
    """A metric that does not keep to the bounds it was given has no other scale."""
    ours = summarize([99.0, 101.0], bounds=(0, 100))
    assert (ours.mean, ours.high) == (100.0, 100.0)
    assert 80 < ours.low < 95


def test_coverage_near_a_bound():
    """The interval of 5 accuracies around 99 % covers their mean in about 95 % of cases, within two points."""
    rng = np.random.default_rng(0)
    runs = 100 - rng.gamma(4, 0.25, (3_000, 5))
    found = [summarize(list(row), bounds=(0.0, 100.0)) for row in runs]
    assert np.mean([one.low <= 99 <= one.high for one in found]) == pytest.approx(0.95, abs=0.02)


def test_pooled_sd_by_hand():
    """Within groups: √((2·1 + 1·0.5) / 3); single runs add nothing."""
    assert pooled_sd([[1.0, 2.0, 3.0], [0.0, 1.0], [9.0]]) == pytest.approx(math.sqrt(2.5 / 3))
    assert math.isnan(pooled_sd([[1.0], []]))


@pytest.mark.parametrize(("count", "base_count"), [(3, 3), (3, 5), (5, 5), (2, 10)])
def test_the_guarded_level_holds_between_the_points_it_was_made_from(count, base_count):
    """At every ratio of the spreads, with exact quantiles and a finer quadrature, Welch errs at most as often."""
    nodes, weights = np.polynomial.legendre.leggauss(120)
    first, second = (2 * special.gammaincinv((n - 1) / 2, (nodes + 1) / 2) / (n - 1) for n in (count, base_count))
    chances = weights[:, None] * weights[None, :] / 4
    for alpha in (0.05, 0.05 / 4):
        level = family.level(count, base_count, alpha)
        worst = 0.0
        for ratio in np.geomspace(1 / 32, 32, 120):
            share, base_share = first[:, None] / (1 + ratio**2), second[None, :] * ratio**2 / (1 + ratio**2)
            freedom = family.degrees_of_freedom(share, base_share, count, base_count)
            critical = -special.stdtrit(freedom, level / 2) * np.sqrt(share + base_share)
            worst = max(worst, 2 * float(np.sum(special.ndtr(-critical) * chances)))
        assert 0.98 * alpha < worst <= alpha
