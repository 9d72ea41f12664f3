"""What a server measures of itself while it runs, and how Prometheus reads it.

The counters are plain integers that the server keeps anyway. They are added up when somebody asks, so
that no message pays for it. Two things are measured on their own: how late the event loop is, and how long
a custom handler takes.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Any, Final

import gevent

LAG_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the loop lag's histogram, in seconds."""


class LoopLag:
    """How much later than asked the event loop wakes a greenlet: what clients wait at least."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.counts = [0] * (len(LAG_BUCKETS) + 1)
        self.seconds = 0.0
        self.last = 0.0

    def sample(self) -> None:
        """Sleep for the interval and count how much longer it took."""
        before = time.monotonic()
        gevent.sleep(self.interval)
        self.last = max(0.0, time.monotonic() - before - self.interval)
        self.counts[bisect_left(LAG_BUCKETS, self.last)] += 1
        self.seconds += self.last


class TimedHandler:
    """A handler that counts its calls and their time, in seconds; what it waits for counts as well."""

    def __init__(self, handler: Callable[[Any, Any], Any]) -> None:
        self._handler = handler
        self.calls = 0
        self.seconds = 0.0
        self.running = 0

    def __call__(self, message: Any, client: Any) -> Any:
        """Have the message answered. Raises what the handler raises."""
        began = time.perf_counter()
        self.running += 1
        try:
            return self._handler(message, client)
        finally:
            self.running -= 1
            self.calls += 1
            self.seconds += time.perf_counter() - began
