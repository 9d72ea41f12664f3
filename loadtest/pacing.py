"""The schedule of a paced user: intended starts that do not wait for slow replies.

A user that waits for its reply and then for its pause sends less while the server stalls, so the stall
is sampled once a user instead of once for each message that should have been sent (coordinated
omission). Here the intended starts are ``first + k * interval`` whatever happens. A user that is late
sends at once, until it has caught up, and its response time counts from the intended start.
"""

from __future__ import annotations

import math
from time import perf_counter
from typing import Final

LATE_SECONDS: Final = 0.001
"""A start more than this after its intended time is counted as late."""


class Schedule:
    """Intended starts of one user, at most ``most``, in seconds on the clock of ``time.perf_counter``."""

    __slots__ = ("first", "interval", "most", "taken")

    def __init__(self, first: float, interval: float, most: float = math.inf) -> None:
        if not (interval > 0 and math.isfinite(interval)):
            raise ValueError(f"an interval of {interval} seconds is no schedule")
        self.first = first
        self.interval = interval
        self.most = most
        self.taken = 0

    def take(self) -> float:
        """The next intended start; it may be in the past. None is ever skipped."""
        intended = self.first + self.taken * self.interval
        self.taken += 1
        return intended

    def change(self, interval: float) -> None:
        """Go on at another pace from the last start taken (users came or went and share one rate)."""
        if interval == self.interval:
            return
        last = self.first + (self.taken - 1) * self.interval if self.taken else perf_counter()
        self.first = last - (self.taken - 1) * interval if self.taken else last
        self.interval = interval

    def due(self, now: float) -> int:
        """How many intended starts have come by ``now``."""
        if now < self.first:
            return 0
        return int(min(self.most, math.floor((now - self.first) / self.interval) + 1))


def parse_rate(text: str) -> tuple[float, bool]:
    """``200`` (messages a second in all) or ``20/user``; returns the rate and whether it is per user.

    Raises ValueError with a sentence for a person.
    """
    number, slash, unit = text.partition("/")
    try:
        rate = float(number)
    except ValueError:
        rate = math.nan
    if not (rate > 0 and math.isfinite(rate)) or (slash and unit.strip() != "user"):
        raise ValueError(f"rate {text!r}: write messages a second in all (200) or per user (20/user)")
    return rate, bool(slash)
