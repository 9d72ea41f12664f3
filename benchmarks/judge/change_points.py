"""Where a series of figures, one a run, changed its level. Pure numbers, no reports.

Binary segmentation (the library ruptures) splits a series where that lowers the sum of squares most, and
goes on in both parts as long as a split gains more than a threshold. The noise is that of neighbours: half
the mean square of their differences, which a step hardly changes. The threshold is the gain that the best
split of a series of normal noise, of that length, exceeds in 5 histories of 100; where a history has
several series, in 5 of 100 of all of them together. :func:`false_alarms` measures what is left of that
claim with noise that was really seen.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

ALPHA: Final = 0.05
"""Share of histories without a change that have an alarm all the same."""
LEAST_RUNS: Final = 3
"""A level is at least so many runs: what one or two runs show is not one yet."""
LEAST: Final = 10
"""So many runs a series needs: of fewer the noise is not known."""
_SIMULATED: Final = 20_000
_SEED: Final = 20_240_229

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Change:
    """From run ``at`` (counted from 0) on the level is ``ratio`` times that of the runs before."""

    at: int
    ratio: float


def change_points(values: Sequence[float], series: int = 1) -> list[Change]:
    """The changes of level of positive ``values``, in the order of the runs; none where there are too few.

    ``series`` is how many are looked at together.
    """
    import ruptures

    logs = np.log(np.asarray(values, dtype=float))
    if len(logs) < LEAST:
        return []
    noise = float(_noise(logs[None, :])[0])
    if noise == 0:
        noise = 1e-12
    search = ruptures.Binseg(model="l2", min_size=LEAST_RUNS, jump=1).fit(logs / noise)
    ends = [0, *search.predict(pen=threshold(len(logs), series))]
    levels = [float(np.mean(logs[one:two])) for one, two in itertools.pairwise(ends)]
    steps = zip(ends[1:], levels[:-1], levels[1:], strict=False)
    return [Change(at, math.exp(after - before)) for at, before, after in steps]


def false_alarms(noise: Sequence[float], runs: int, series: int = 1, histories: int = 1000) -> float:
    """Share of simulated histories of ``series`` series without a change that have an alarm.

    ``noise`` are deviations of logarithms that were seen; each run draws one of them.
    """
    if runs < LEAST or not len(noise):
        return 0.0
    rng = np.random.default_rng(_SEED)
    alarms = np.zeros(histories, dtype=bool)
    for _ in range(series):
        drawn = rng.choice(np.asarray(noise, dtype=float), (histories, runs))
        alarms |= best_gain(drawn) > threshold(runs, series)
    return float(np.mean(alarms))


def residuals(values: Sequence[float], changes: Sequence[Change]) -> list[float]:
    """The logarithms of ``values`` as deviations from their level, scaled for the levels' being fitted."""
    logs = np.log(np.asarray(values, dtype=float))
    ends = [0, *(change.at for change in changes), len(logs)]
    parts = [logs[one:two] for one, two in itertools.pairwise(ends)]
    scale = math.sqrt(len(logs) / max(1, len(logs) - len(parts)))
    return [float(value) for part in parts for value in (part - np.mean(part)) * scale]


@functools.lru_cache(maxsize=64)
def threshold(runs: int, series: int) -> float:
    """The gain that the best split of normal noise exceeds in ``ALPHA / series`` of series so long."""
    simulated = np.random.default_rng(_SEED).standard_normal((_SIMULATED, runs))
    return float(np.quantile(best_gain(simulated), 1 - ALPHA / series))


def best_gain(series: Floats) -> Floats:
    """For each row how much its best split lowers the sum of squares, in units of its noise."""
    runs = series.shape[1]
    before = np.arange(LEAST_RUNS, runs - LEAST_RUNS + 1)
    sums = np.cumsum(series, axis=1)
    first = sums[:, before - 1]
    means = first / before - (sums[:, -1:] - first) / (runs - before)
    gains = means**2 * (before * (runs - before) / runs)
    return np.asarray(gains.max(axis=1) / np.maximum(_noise(series), 1e-12) ** 2)


def _noise(series: Floats) -> Floats:
    """The standard deviation of each row as its neighbours tell it."""
    return np.asarray(np.sqrt(np.mean(np.diff(series, axis=1) ** 2, axis=1) / 2))
