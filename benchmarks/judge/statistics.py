"""Ratios with intervals from a few trials, and what may be said of them. Pure numbers, no reports.

A sample is a trial: one fresh server process. Trials of one run come in blocks, so a ratio is taken in
each block and what drifts between blocks cancels (:func:`paired`); two runs share no blocks
(:func:`unpaired`). All arithmetic is on logarithms: twice as slow and twice as fast are equally far
from 1.

**Which interval.** The estimate of a paired ratio is Hodges and Lehmann's: the median of the means of all
pairs of blocks. A percentile bootstrap of it, which claims 95%, holds the truth 86 to 88 times in 100 at 5 or
6 blocks and 91 to 94 at 10 (``python -m benchmarks experiment verdict-quality coverage``), so it is not used.
The interval is the one that Wilcoxon's signed-rank test itself gives (the order statistics of those means;
Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3.3): exact for any symmetric noise. With n
blocks that test's p cannot be below 2**(1-n). Where that is too large to survive Holm's correction for the
number of comparisons made, Student's t on the logarithms takes its place; which of the two is settled by the
counts alone, before any figure is looked at. Few blocks tell little of their own scatter, so t borrows from
the other servers of the run: the variance is a mean of the pair's own and of theirs, weighted by how alike
those are (:mod:`benchmarks.judge.scatter`). ``python -m benchmarks experiment verdict-quality few-blocks``
measures how often that errs. Between two runs it is the ratio of the medians with a percentile bootstrap, and
Mann and Whitney's test.

**What is said** (:func:`decide`). *Slower* or *faster* takes both: a p, corrected, below 0.05, and an
estimate farther from 1 than the margin asked for and than the noise floor. *Same* takes an interval wholly
inside the margin asked for. All else is *unclear*.

**Equal values.** Five equal readings are no certainty: what was read has a resolution (:data:`RESOLUTION`).
No interval is narrower than that, and no variance is smaller than rounding to it makes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.judge.scatter import Prior

ALPHA: Final = 0.05
"""Chance of a wrong *faster* or *slower* among all comparisons of a report, and 1 - coverage of intervals."""

LEAST: Final = 3
"""So many blocks, or trials of each server, an interval takes."""

RESOLUTION: Final = 0.001
"""What a figure is known to at best, as a fraction: histograms keep three digits, memory comes in pages."""
LEAST_HALF: Final = math.log1p(RESOLUTION)
"""No interval of a logarithm reaches less far to either side."""
LEAST_SCATTER: Final = RESOLUTION * math.sqrt(2 / 12)
"""The standard deviation of a ratio of two values that are rounded to the resolution."""
MOST_BLOCKS: Final = 1000
"""So many blocks are the most that anybody is told to measure."""

RESAMPLES: Final = 4999
_SEED: Final = 20_240_229  # equal reports give equal intervals

Method = Literal["wilcoxon", "t", "pooled-t", "mann-whitney", "none"]
Floats = NDArray[np.floating[Any]]


class Verdict(StrEnum):
    """What a comparison says of the candidate against the baseline."""

    FASTER = "faster"
    SLOWER = "slower"
    SAME = "same"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A ratio candidate / baseline with its 95% interval; ``n`` blocks, or the smaller count of trials.

    ``p`` is two-sided and not corrected. Without enough trials for an interval it is (0, inf), p is 1 and
    the method ``none``. ``scatter`` is the standard deviation of the logarithm of a block's ratio.
    """

    ratio: float
    low: float
    high: float
    p: float
    n: int
    method: Method
    scatter: float = math.nan


def paired(
    baseline: Sequence[float],
    candidate: Sequence[float],
    comparisons: int = 1,
    prior: Prior | None = None,
) -> Estimate:
    """The ratio of two servers measured in the same blocks: ``baseline[i]`` and ``candidate[i]`` share one.

    ``comparisons`` is how many are corrected for together; ``prior`` what the run's other servers tell of the
    scatter. Values must be positive, and as many.
    """
    if len(baseline) != len(candidate):
        raise ValueError("paired samples must be of one length")
    logs = _logs(candidate) - _logs(baseline)
    n = len(logs)
    if n == 0:
        return Estimate(math.nan, 0.0, math.inf, 1.0, 0, "none")
    means = np.sort(_walsh(logs))
    center = float(np.median(means))
    if n < LEAST:
        return Estimate(math.exp(center), 0.0, math.inf, 1.0, n, "none")
    scatter = max(float(np.std(logs, ddof=1)), LEAST_SCATTER)
    method: Method = "wilcoxon"
    if 2.0 ** (1 - n) * comparisons <= ALPHA:
        rank = _signed_rank_bound(n)
        low, high = float(means[rank - 1]), float(means[-rank])
        p = _wilcoxon_p(logs)
    elif prior is None or not prior.lends_to(scatter, n - 1):
        method = "t"
        low, high, p = _student(float(np.mean(logs)), scatter, n, n - 1)
    else:
        method = "pooled-t"
        scatter = prior.moderated(scatter, n - 1)
        low, high, p = _student(center, scatter, n, n - 1 + prior.freedom)
    low, high = min(low, center - LEAST_HALF), max(high, center + LEAST_HALF)
    return Estimate(math.exp(center), math.exp(low), math.exp(high), p, n, method, scatter)


def blocks_needed(estimate: Estimate, comparisons: int, margin: float) -> int | None:
    """How many blocks would bring a verdict, were ratio and scatter as found; None: over a thousand."""
    from scipy.stats import t

    center, room = abs(math.log(estimate.ratio)), math.log1p(margin)
    for n in range(LEAST, MOST_BLOCKS + 1):
        error = estimate.scatter / math.sqrt(n)
        if center > room:
            enough = 2 * t.sf(center / error, n - 1) * comparisons < ALPHA
        else:
            enough = t.ppf(1 - ALPHA / 2, n - 1) * error < room - center
        if enough:
            return n
    return None


def bootstrap(baseline: Sequence[float], candidate: Sequence[float]) -> tuple[float, float]:
    """The percentile bootstrap's 95% interval of :func:`paired`'s ratio, to show what it would be worth."""
    logs = _logs(candidate) - _logs(baseline)
    resampled = logs[np.random.default_rng(_SEED).integers(0, len(logs), (RESAMPLES, len(logs)))]
    low, high = np.quantile(np.median(_walsh(resampled), axis=-1), [ALPHA / 2, 1 - ALPHA / 2])
    return math.exp(low), math.exp(high)


def unpaired(baseline: Sequence[float], candidate: Sequence[float]) -> Estimate:
    """The ratio of the medians of two runs' trials, with a bootstrap interval and Mann and Whitney's p."""
    one, two = _logs(baseline), _logs(candidate)
    n = min(len(one), len(two))
    if n == 0:
        return Estimate(math.nan, 0.0, math.inf, 1.0, 0, "none")
    center = float(np.median(two) - np.median(one))
    if n < LEAST:
        return Estimate(math.exp(center), 0.0, math.inf, 1.0, n, "none")
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(_SEED)
    medians = [
        np.median(sample[rng.integers(0, len(sample), (RESAMPLES, len(sample)))], axis=1)
        for sample in (one, two)
    ]
    low, high = np.quantile(medians[1] - medians[0], [ALPHA / 2, 1 - ALPHA / 2])
    low, high = min(low, center - LEAST_HALF), max(high, center + LEAST_HALF)
    tied = len(np.unique(np.concatenate([one, two]))) < len(one) + len(two)
    exact = not tied and len(one) * len(two) <= 10_000
    p = float(mannwhitneyu(one, two, method="exact" if exact else "asymptotic").pvalue)
    # The asymptotic p has no variance to divide by where all values are equal: no rank tells them apart.
    p = 1.0 if math.isnan(p) else p
    return Estimate(math.exp(center), math.exp(float(low)), math.exp(float(high)), p, n, "mann-whitney")


def more_often(failed: int, of: int, failed_after: int, of_after: int) -> float:
    """The one-sided p of so many failures or more in the second, were they as likely in both (binomial)."""
    from scipy.stats import binomtest

    if not failed_after:
        return 1.0
    share = of_after / (of + of_after)
    return float(binomtest(failed_after, failed + failed_after, share, alternative="greater").pvalue)


def holm(ps: Sequence[float]) -> list[float]:
    """``ps`` corrected by Holm's step-down method, in the order given."""
    corrected = [1.0] * len(ps)
    worst = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        worst = max(worst, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = worst
    return corrected


def decide(estimate: Estimate, p: float, margin: float, floor: float, lower_is_better: bool) -> Verdict:
    """What may be said of ``estimate``, whose p after correction is ``p``.

    ``margin`` and ``floor`` are fractions: 0.03 stands for ratios from 1/1.03 to 1.03.
    """
    if estimate.method == "none":
        return Verdict.UNCLEAR
    distance = abs(math.log(estimate.ratio))
    excludes_one = estimate.low > 1 or estimate.high < 1
    if p < ALPHA and excludes_one and distance > math.log1p(max(margin, floor)):
        more = estimate.ratio > 1
        return Verdict.SLOWER if more == lower_is_better else Verdict.FASTER
    if 1 / (1 + margin) < estimate.low and estimate.high < 1 + margin:
        return Verdict.SAME
    return Verdict.UNCLEAR


def spread(logs: Sequence[float] | Floats, centered: bool = False) -> float:
    """The standard deviation of ``logs`` as their median absolute deviation tells it: outliers do not.

    With ``centered`` they are deviations from a known 0, as ratios of a server with itself are.
    """
    values = np.asarray(logs, dtype=float)
    center = 0.0 if centered else float(np.median(values))
    return 1.4826 * float(np.median(np.abs(values - center)))


def geometric_mean(ratios: Sequence[float]) -> float:
    """The geometric mean, the only mean that ratios have."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def _logs(values: Sequence[float]) -> Floats:
    array = np.asarray(values, dtype=float)
    if np.any(array <= 0) or not np.all(np.isfinite(array)):
        raise ValueError("a ratio needs positive, finite values")
    logs: Floats = np.log(array)
    return logs


def _walsh(logs: Floats) -> Floats:
    """The means of all pairs along the last axis, each value with itself too."""
    first, second = np.triu_indices(logs.shape[-1])
    return np.asarray((logs[..., first] + logs[..., second]) / 2)


def _signed_rank_bound(n: int) -> int:
    """The rank, from 1, of the pair means that bound an interval covering at least 1 - ALPHA."""
    ways = np.ones(1)
    for rank in range(1, n + 1):  # ways[w]: how many of the 2**n sign patterns have rank sum w
        ways = np.pad(ways, (0, rank)) + np.pad(ways, (rank, 0))
    below = np.cumsum(ways) / 2.0**n
    return max(1, int(np.searchsorted(below, ALPHA / 2, side="right")))


def _wilcoxon_p(logs: Floats) -> float:
    from scipy.stats import wilcoxon

    if not np.any(logs):
        return 1.0
    return float(wilcoxon(logs, zero_method="pratt").pvalue)


def _student(center: float, scatter: float, n: int, freedom: float) -> tuple[float, float, float]:
    """Interval and two-sided p of a mean logarithm."""
    from scipy.stats import t

    error = scatter / math.sqrt(n)
    half = float(t.ppf(1 - ALPHA / 2, freedom)) * error
    return center - half, center + half, float(2 * t.sf(abs(center) / error, freedom))
