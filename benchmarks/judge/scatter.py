"""What the servers of one run tell together of a ratio's scatter, for those with few blocks. Pure numbers.

With 3 blocks a ratio's own standard deviation is known to a factor of several, and Student's t has to allow
for that. The other servers were measured in the same minutes on the same machine. How alike their variances
are is estimated from the variances themselves: each is taken to be a draw around a common one, as in Smyth's
moderated t (Linear models and empirical Bayes methods, 2004). Alike variances are worth some degrees of
freedom, unlike ones few or none, and then nothing is borrowed; nor by a ratio that scatters far more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

LEAST_SERVERS: Final = 3
"""So many variances, the pair's own not among them, tell how alike variances are."""


ALIKE: Final = 0.8
"""A variance that is among the highest fifth of those to be expected borrows nothing."""
MOST_FREEDOM: Final = 3.0
"""Degrees of freedom that the others are worth at most: one server may be far noisier than all of them."""


@dataclass(frozen=True, slots=True)
class Prior:
    """A variance that others had, and how many degrees of freedom that is worth; 0: nothing is known."""

    variance: float
    freedom: float

    def lends_to(self, deviation: float, freedom: float) -> bool:
        """Whether a standard deviation known to ``freedom`` degrees may be one of these."""
        from scipy.stats import f

        if not self.freedom:
            return False
        return bool(deviation**2 / self.variance < f.ppf(ALIKE, freedom, self.freedom))

    def moderated(self, deviation: float, freedom: float) -> float:
        """A standard deviation known to ``freedom`` degrees, drawn towards the prior's."""
        total = self.freedom * self.variance + freedom * deviation**2
        return math.sqrt(total / (self.freedom + freedom))


NOTHING: Final = Prior(0.0, 0.0)


def prior(deviations: Sequence[float], freedom: int) -> Prior:
    """What other ratios' standard deviations, each known to ``freedom`` degrees, tell of one more.

    It is worth at most :data:`MOST_FREEDOM`.
    """
    from scipy.special import digamma, polygamma

    if len(deviations) < LEAST_SERVERS or freedom < 1:
        return NOTHING
    logs = 2 * np.log(np.asarray(deviations, dtype=float))
    half = freedom / 2
    levels = logs - digamma(half) + math.log(half)
    beyond_chance = float(np.var(levels, ddof=1)) - float(polygamma(1, half))
    degrees = MOST_FREEDOM if beyond_chance <= 0 else min(MOST_FREEDOM, 2 * _trigamma_inverse(beyond_chance))
    level = float(np.mean(levels)) + float(digamma(degrees / 2)) - math.log(degrees / 2)
    return Prior(math.exp(level), degrees)


def _trigamma_inverse(value: float) -> float:
    """The x whose trigamma is ``value``, above 0."""
    from scipy.optimize import brentq
    from scipy.special import polygamma

    return float(brentq(lambda x: float(polygamma(1, x)) - value, 1e-6, 1e8))
