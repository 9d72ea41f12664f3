"""The schedule of a paced user: intended starts that do not wait for slow replies.

A user that waits for its reply and then for its pause sends less while the server stalls, so the stall
is sampled once a user instead of once for each message that should have been sent (coordinated
omission). Here the intended starts are ``first + k * interval`` whatever happens. A user that is late
sends at once, until it has caught up, and its response time counts from the intended start.
"""

from __future__ import annotations

import math
from typing import Final

LATE_SECONDS: Final = 0.001
"""A start more than this after its intended time is counted as late."""


class Schedule:
    """Intended starts of one user's messages, in seconds on the clock of ``time.perf_counter``.

    Messages that are sent together have one start, and the next is as much later as they are messages: the
    rate is kept whatever the sizes of the batches. ``batch`` is the usual size, ``most`` how many messages
    there are in all.

    >>> schedule = Schedule(first=100.0, interval=0.5)
    >>> [schedule.take() for _ in range(3)]
    [100.0, 100.5, 101.0]
    """

    __slots__ = ("batch", "counted", "first", "interval", "most", "size", "taken")

    def __init__(self, first: float, interval: float, batch: int = 1, most: float = math.inf) -> None:
        if not (interval > 0 and math.isfinite(interval)):
            raise ValueError(f"an interval of {interval} seconds is no schedule")
        self.first = first
        self.interval = interval
        """Seconds from one message to the next."""
        self.batch = batch
        self.most = most
        self.taken = 0
        self.size = 0
        """Messages of the last start taken."""
        self.counted = 0

    def take(self, size: int = 1) -> float:
        """The intended start of the next ``size`` messages; it may be in the past. None is ever skipped."""
        intended = self.first + self.taken * self.interval
        self.taken += size
        self.size = size
        return intended

    def change(self, interval: float) -> None:
        """Go on at another pace from the last start taken (users came or went and share one rate)."""
        self.first += (self.taken - self.size) * (self.interval - interval)
        self.interval = interval

    def due(self, now: float) -> int:
        """How many messages have an intended start that has come by ``now``."""
        coming = self.first + self.taken * self.interval
        if now < coming:
            return self.taken - (self.size if now < coming - self.size * self.interval else 0)
        batches = math.floor((now - coming) / (self.interval * self.batch)) + 1
        return int(min(self.most, self.taken + batches * self.batch))

    def newly_due(self, now: float) -> int:
        """How many are due now that were not at the last call; negative where the pace has become slower."""
        due = self.due(now)
        due, self.counted = due - self.counted, due
        return due


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
