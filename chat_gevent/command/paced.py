"""Make something for whoever asks, but for a part of the time only, however many ask."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import gevent
from gevent.lock import BoundedSemaphore

LONGEST_PAUSE: Final = 1.0
"""Most seconds between the end of one making and the beginning of the next."""

PAUSE_FACTOR: Final = 20
"""Up to that, the pause is so many times as long as the making took: 5% of the loop's time at most."""

Key = TypeVar("Key")
Made = TypeVar("Made")


class Paced(Generic[Key, Made]):
    """What ``make(key)`` makes, never begun before it is asked for: those who wait together share one.

    :param make: blocks nobody; what it takes is taken from all.
    :param before: called before each making; it may wait.
    """

    def __init__(self, make: Callable[[Key], Made], before: Callable[[], None] | None = None) -> None:
        self._make = make
        self._before = before
        self._turn = BoundedSemaphore(1)
        self._made: tuple[float, Key, Made] | None = None  # with when that was begun
        self._due = 0.0

    def get(self, key: Key) -> Made:
        """What there is of ``key`` now, or a moment later."""
        came = time.monotonic()
        with self._turn:
            if self._made is not None and self._made[0] >= came and self._made[1] == key:
                return self._made[2]
            while (pause := self._due - time.monotonic()) > 0:
                gevent.sleep(pause)
            asked = time.monotonic()
            if self._before is not None:
                self._before()
            began = time.monotonic()
            try:
                made = self._make(key)
            finally:
                ended = time.monotonic()
                self._due = ended + min(LONGEST_PAUSE, PAUSE_FACTOR * (ended - began))
            self._made = asked, key, made
            return made
