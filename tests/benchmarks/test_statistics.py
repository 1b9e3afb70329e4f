"""The statistics, against scipy and numbers worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.report.statistics import holm, paired, pooled_sd, smallest_detectable, summarize, welch

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


def test_welch_is_scipys():
    """Difference, interval and p of the unequal-variance test."""
    ours, reference = welch(A, B), stats.ttest_ind(A, B, equal_var=False)
    interval = reference.confidence_interval(0.95)
    assert ours.difference == pytest.approx(np.mean(A) - np.mean(B))
    assert (ours.low, ours.high, ours.p) == pytest.approx((interval.low, interval.high, reference.pvalue), rel=1e-9)


def test_paired_is_scipys():
    """The paired test on the seeds that two arms share."""
    ours, reference = paired(A[:3], B), stats.ttest_rel(A[:3], B)
    interval = reference.confidence_interval(0.95)
    assert (ours.low, ours.high, ours.p) == pytest.approx((interval.low, interval.high, reference.pvalue), rel=1e-9)


@pytest.mark.parametrize("test", [welch, paired])
def test_no_spread_decides_nothing(test):
    """Two arms without any spread, or a single run, give no p-value instead of a perfect one."""
    assert math.isnan(test([1.0, 1.0], [2.0, 2.0]).p)
    assert not test([1.0], [2.0]).decided


def test_holm_by_hand():
    """p·(m − rank), never decreasing, at most 1; NaN is no test."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    adjusted = holm([0.01, math.nan])
    assert adjusted[0] == 0.01
    assert math.isnan(adjusted[1])


def test_smallest_detectable_difference_has_its_power():
    """A simulated true difference of that size is found four times in five."""
    shift = smallest_detectable(sd=2.0, n=6)
    draws = np.random.default_rng(0).normal(0, 2.0, (2, 20_000, 6))
    found = stats.ttest_ind(draws[0] + shift, draws[1], axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_fourteen_seeds_for_the_papers_claim():
    """0.13 points at the paper's spread (0.08 and 0.12) need some 12 to 14 seeds an arm, not 3."""
    sd = math.sqrt((0.08**2 + 0.12**2) / 2)
    assert smallest_detectable(sd, 3) > 0.13 > smallest_detectable(sd, 14)


def test_pooled_sd_by_hand():
    """Within groups: √((2·1 + 1·0.5) / 3); single runs add nothing."""
    assert pooled_sd([[1.0, 2.0, 3.0], [0.0, 1.0], [9.0]]) == pytest.approx(math.sqrt(2.5 / 3))
    assert math.isnan(pooled_sd([[1.0], []]))
