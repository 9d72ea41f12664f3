"""Ratios, their intervals and what is said of them, against references, by properties and by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.experiments.verdict_quality import SCATTERS, differs, quick_run
from benchmarks.judge.scatter import prior
from benchmarks.judge.statistics import (
    Estimate,
    Verdict,
    blocks_needed,
    bootstrap,
    decide,
    geometric_mean,
    holm,
    paired,
    spread,
    unpaired,
)

positive = st.floats(0.001, 1e6)
samples = st.lists(st.tuples(positive, positive), min_size=3, max_size=12)


def _noisy(rng: np.random.Generator, ratio: float, blocks: int, sd: float) -> tuple[list[float], list[float]]:
    """A baseline and a candidate with a drift in common and noise of their own, ``sd`` of their ratio."""
    drift = rng.normal(0, 0.1, blocks)
    one = np.exp(drift + rng.normal(0, sd / math.sqrt(2), blocks))
    two = np.exp(drift + rng.normal(0, sd / math.sqrt(2), blocks)) * ratio
    return one.tolist(), two.tolist()


def test_the_estimate_is_the_median_of_pair_means() -> None:
    """By hand: the pair means of 0, 1, 5 are 0 .5 1 2.5 3 5, and their median is 1.75."""
    estimate = paired([1, 1, 1], [math.exp(0), math.exp(1), math.exp(5)])
    assert math.log(estimate.ratio) == pytest.approx(1.75)


@pytest.mark.parametrize(
    ("n", "rank"), [(6, 1), (7, 3), (8, 4), (9, 6), (10, 9), (12, 14), (15, 26), (20, 53)]
)
def test_the_interval_has_the_published_ranks(n: int, rank: int) -> None:
    """The bounds are the pair means of rank C + 1, C the tables' critical value of the signed-rank test."""
    logs = np.sort(np.random.default_rng(n).normal(size=n))
    means = sorted((logs[i] + logs[j]) / 2 for i in range(n) for j in range(i, n))
    estimate = paired([1.0] * n, np.exp(logs).tolist())
    assert estimate.method == "wilcoxon"
    assert math.log(estimate.low) == pytest.approx(means[rank - 1])
    assert math.log(estimate.high) == pytest.approx(means[-rank])


@pytest.mark.parametrize("n", [6, 8, 10])
def test_interval_and_p_agree(n: int) -> None:
    """The interval leaves 1 out exactly where the exact p is below 0.05: one test gives both."""
    rng = np.random.default_rng(n)
    for _ in range(200):
        estimate = paired(*_noisy(rng, 1.01, n, 0.02))
        assert (estimate.p < 0.05) == (estimate.low > 1 or estimate.high < 1)


def test_the_test_is_chosen_by_counts_alone() -> None:
    """Where ranks cannot reach p = 0.05, with 5 blocks or with 10 and 26 comparisons, it is Student's t."""
    rng = np.random.default_rng(1)
    chosen = [
        paired(*_noisy(rng, 1, blocks, 0.02), comparisons).method
        for blocks, comparisons in [(5, 1), (6, 1), (6, 2), (10, 25), (10, 26)]
    ]
    assert chosen == ["t", "wilcoxon", "t", "wilcoxon", "t"]


def test_student_t_matches_scipy() -> None:
    """With few blocks p and interval are those of scipy's one-sample t test on the logarithms."""
    from scipy.stats import ttest_1samp

    one, two = _noisy(np.random.default_rng(3), 1.05, 5, 0.02)
    reference = ttest_1samp(np.log(two) - np.log(one), 0)
    bounds = reference.confidence_interval(0.95)
    estimate = paired(one, two)
    assert estimate.p == pytest.approx(reference.pvalue)
    assert (math.log(estimate.low), math.log(estimate.high)) == pytest.approx((bounds.low, bounds.high))


@pytest.mark.parametrize("blocks", [5, 6, 10])
def test_intervals_hold_the_truth_as_often_as_they_claim(blocks: int) -> None:
    """At least 93.5% of simulated intervals hold the true ratio; a bootstrap of 5 blocks does not."""
    rng = np.random.default_rng(blocks)
    runs = [_noisy(rng, 1.05, blocks, 0.03) for _ in range(1500)]
    held = sum(e.low <= 1.05 <= e.high for e in (paired(*run) for run in runs))
    assert held / len(runs) > 0.935
    if blocks == 5:
        intervals = [bootstrap(*run) for run in runs[:300]]
        assert sum(low <= 1.05 <= high for low, high in intervals) / 300 < 0.92


@pytest.mark.parametrize("blocks", [5, 10])
def test_a_server_is_not_told_from_itself(blocks: int) -> None:
    """Of 400 simulated comparisons of a server with itself at most 1 in 100 says faster or slower."""
    rng = np.random.default_rng(blocks)
    verdicts = []
    for _ in range(400):
        estimate = paired(*_noisy(rng, 1, blocks, 0.02))
        verdicts.append(decide(estimate, estimate.p, 0.03, 0.0, True))
    wrong = verdicts.count(Verdict.FASTER) + verdicts.count(Verdict.SLOWER)
    assert wrong <= 4


@pytest.mark.parametrize(("ratio", "blocks"), [(1.05, 10), (1.2, 5)])
def test_a_slower_server_is_told(ratio: float, blocks: int) -> None:
    """With 2% of noise 5% are found in 9 of 10 full runs, and 20% in 99 of 100 quick ones."""
    rng = np.random.default_rng(7)
    verdicts = []
    for _ in range(300):
        estimate = paired(*_noisy(rng, ratio, blocks, 0.02), 2)
        verdicts.append(decide(estimate, estimate.p * 2, 0.03, 0.0, True))
    assert verdicts.count(Verdict.SLOWER) / 300 >= (0.9 if blocks == 10 else 0.99)
    assert Verdict.FASTER not in verdicts


def test_one_disturbed_block_does_not_hide_a_slower_server() -> None:
    """A block in which the candidate took twice as long leaves the verdict and the ratio as they are."""
    one, two = _noisy(np.random.default_rng(5), 1.1, 10, 0.01)
    two[3] *= 2
    estimate = paired(one, two)
    assert estimate.ratio == pytest.approx(1.1, rel=0.02)
    assert decide(estimate, estimate.p, 0.03, 0.0, True) is Verdict.SLOWER


@settings(max_examples=25)
@given(samples)
def test_swapping_sides_inverts_the_ratio(pairs: list[tuple[float, float]]) -> None:
    """Candidate against baseline says the same as baseline against candidate, the other way round."""
    one, two = map(list, zip(*pairs, strict=True))
    for method in (paired, unpaired):
        forward, back = method(one, two), method(two, one)
        assert forward.ratio * back.ratio == pytest.approx(1)
        assert forward.p == pytest.approx(back.p)
    forward, back = paired(one, two), paired(two, one)
    assert forward.low * back.high == pytest.approx(1)


@settings(max_examples=25)
@given(samples, positive)
def test_units_do_not_matter(pairs: list[tuple[float, float]], scale: float) -> None:
    """Milliseconds give the ratios that microseconds give."""
    one, two = map(list, zip(*pairs, strict=True))
    plain, scaled = paired(one, two), paired([v * scale for v in one], [v * scale for v in two])
    assert scaled.ratio == pytest.approx(plain.ratio, rel=1e-6)
    assert scaled.low <= scaled.ratio * (1 + 1e-9)
    assert scaled.high >= scaled.ratio * (1 - 1e-9)


@pytest.mark.parametrize("method", [paired, unpaired])
def test_too_few_trials_and_equal_ones(method: object) -> None:
    """Two trials give no interval and no verdict; equal values are a ratio of 1 with p 1."""
    assert callable(method)
    few: Estimate = method([1, 1], [2, 2])
    assert (few.method, few.p) == ("none", 1.0)
    assert decide(few, few.p, 0.03, 0.0, True) is Verdict.UNCLEAR
    assert math.isnan(method([], []).ratio)
    equal: Estimate = method([3.0] * 10, [3.0] * 10)
    assert (equal.ratio, equal.p) == (1, 1)
    assert (equal.low, equal.high) == pytest.approx((1 / 1.001, 1.001))
    assert decide(equal, equal.p, 0.03, 0.0, True) is Verdict.SAME


@pytest.mark.parametrize("bad", [[1, 0, 2], [1, -1, 2], [1, math.nan, 2], [1, math.inf, 2]])
def test_values_without_a_ratio_are_refused(bad: list[float]) -> None:
    """Zero, negative and infinite values raise instead of making figures up."""
    for method in (paired, unpaired):
        with pytest.raises(ValueError, match="positive, finite"):
            method(bad, [1, 1, 1])


@pytest.mark.parametrize("blocks", [3, 5, 10])
@pytest.mark.parametrize("method", [paired, unpaired])
def test_equal_values_are_no_certainty(method: Callable[..., Estimate], blocks: int) -> None:
    """Equal values on both sides, or on one, leave an interval as wide as what was read is known to."""
    for two in ([10.5] * blocks, [10.4, 10.6, *[10.5] * (blocks - 2)]):
        found = method([10.0] * blocks, two)
        assert found.p > 0
        assert found.low * 1.0009 < found.ratio < found.high / 1.0009


def test_ties_and_heavy_tails_do_not_make_a_difference() -> None:
    """Ratios that are tied in two values either side of 1, and a wild one among ten, are not *slower*."""
    for two in ([10.1, 9.9] * 5, [*[10.1, 9.9] * 4, 10.0, 90.0]):
        found = paired([10.0] * 10, two)
        assert decide(found, found.p, 0.03, 0.0, True) is not Verdict.SLOWER
        assert found.low < 1 < found.high


def test_blocks_needed_are_enough() -> None:
    """So many blocks as are named bring the verdict in more than half of simulated runs; far fewer do not."""
    rng = np.random.default_rng(4)
    first = paired(*_noisy(rng, 1.1, 3, 0.06))
    needed = blocks_needed(first, 4, 0.03)
    assert needed
    assert needed > 3
    close = paired(*_noisy(rng, 1.0, 3, 0.2))
    assert (blocks_needed(close, 1, 0.03) or 1001) > 30


def test_unlike_servers_lend_nothing() -> None:
    """Alike scatters are worth degrees of freedom, wildly unlike ones and too few next to none."""
    assert prior([0.02] * 8, 2).freedom == 3
    assert prior([0.02, 0.02], 2).freedom == 0
    assert prior([0.0001, 0.5] * 4, 9).freedom < 1
    assert prior([0.02] * 8, 20).variance == pytest.approx(0.0004, rel=0.5)


@pytest.mark.parametrize("scatter", list(SCATTERS))
def test_a_quick_run_of_nine_servers(scatter: str) -> None:
    """In 3 blocks at most 6 runs in 100 call any of nine equal servers different; 96 find a factor of 2."""
    rng = np.random.default_rng(6)
    wrong = found = 0
    for _ in range(150):
        wrong += any(map(differs, *quick_run(rng, SCATTERS[scatter](rng, 9), 3)))
        estimates, ps = quick_run(rng, SCATTERS[scatter](rng, 9), 3, 2.0)
        found += differs(estimates[-1], ps[-1])
    assert wrong <= 9
    assert found >= 145


def test_mann_whitney_matches_its_tables() -> None:
    """Two runs of 4 that do not overlap: 2 of the 70 orders are as extreme, so p is 2/70."""
    estimate = unpaired([1, 2, 3, 4], [5, 6, 7, 8])
    assert estimate.p == pytest.approx(2 / 70)
    assert estimate.ratio == pytest.approx(math.sqrt(6 * 7) / math.sqrt(2 * 3))


def test_holm_by_hand() -> None:
    """0.01, 0.04, 0.03 become 0.03, 0.06, 0.06: each times what is left, never below the one before."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_keeps_the_order_and_never_lowers(ps: list[float]) -> None:
    """A corrected p is at least the p, at most 1, and smaller ones stay smaller."""
    corrected = holm(ps)
    assert all(p <= q <= 1 for p, q in zip(ps, corrected, strict=True))
    ordered = [q for _, q in sorted(zip(ps, corrected, strict=True))]
    assert ordered == sorted(ordered)


@pytest.mark.parametrize(
    ("bounds", "p", "floor", "lower_is_better", "expected"),
    [
        ((1.05, 1.04, 1.06), 0.01, 0.0, True, Verdict.SLOWER),
        ((1.05, 1.04, 1.06), 0.01, 0.0, False, Verdict.FASTER),
        ((0.95, 0.94, 0.96), 0.01, 0.0, True, Verdict.FASTER),
        ((1.05, 1.04, 1.06), 0.06, 0.0, True, Verdict.UNCLEAR),  # does not survive the correction
        ((1.05, 1.04, 1.06), 0.01, 0.06, True, Verdict.UNCLEAR),  # below the noise floor
        ((1.02, 1.01, 1.025), 0.01, 0.0, True, Verdict.SAME),  # differs, by less than matters
        ((1.02, 1.01, 1.04), 0.01, 0.0, True, Verdict.UNCLEAR),
        ((1.00, 0.98, 1.02), 0.9, 0.5, True, Verdict.SAME),
        ((1.00, 0.9, 1.1), 0.9, 0.5, True, Verdict.UNCLEAR),  # noise makes nothing the same
    ],
)
def test_what_is_said(
    bounds: Sequence[float], p: float, floor: float, lower_is_better: bool, expected: Verdict
) -> None:
    """The rule for each verdict, with a margin of 3%."""
    estimate = Estimate(*bounds, p, 10, "wilcoxon")  # type: ignore[call-arg,arg-type]
    assert decide(estimate, p, 0.03, floor, lower_is_better) is expected


def test_spread_is_blind_to_outliers() -> None:
    """One wild value in twenty changes the spread of 0.02 by less than a third."""
    values = np.random.default_rng(2).normal(0, 0.02, 200)
    values[:10] = 5
    assert spread(values) == pytest.approx(0.02, rel=0.33)
    assert spread([0.1, -0.1, 0.1], centered=True) == pytest.approx(0.14826)


def test_geometric_mean() -> None:
    """Twice as fast and twice as slow make 1."""
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1)
