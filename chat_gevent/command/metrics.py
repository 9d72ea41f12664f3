"""What a server measures of itself while it runs, and how Prometheus reads it.

The counters are plain integers that the server keeps anyway. They are added up when somebody asks, so
that no message pays for it. Two things are measured on their own: how late the event loop is (for as long
as the process runs, and for each second apart), and how long a custom handler takes.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from collections.abc import Callable
from typing import Any, Final

import gevent

LAG_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the loop lag's histogram, in seconds."""

LAG_SAMPLE_SECONDS: Final = 0.05
"""How often the lag of a single second is sampled; these wakes cost an idle server 0.2% of a core."""

MOST_LAGS: Final = 10_000
"""Most lags that are kept between two turns."""


class LagOfASecond:
    """How late the event loop fires a timer, often enough for quantiles of a single second."""

    def __init__(self) -> None:
        self.p50 = self.p99 = 0.0
        """Seconds, of what came before the last :meth:`turn`."""
        self._lags = array("d")
        self._timer: Any = None
        self._due = 0.0

    def start(self) -> None:
        """Measure from now on."""
        self._timer = gevent.get_hub().loop.timer(LAG_SAMPLE_SECONDS, LAG_SAMPLE_SECONDS, ref=False)
        self._begin()

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def _begin(self) -> None:
        self._due = time.monotonic() + LAG_SAMPLE_SECONDS
        self._timer.again(self._fire, update=True)

    def _fire(self) -> None:
        """Count this lag, and those of the wakes that should have been while the loop was held."""
        lag = max(0.0, time.monotonic() - self._due)
        room = MOST_LAGS - len(self._lags)
        missed = min(room - 1, int(lag / LAG_SAMPLE_SECONDS))
        self._lags.extend(lag - each * LAG_SAMPLE_SECONDS for each in range(missed + 1))
        self._begin()

    def turn(self) -> None:
        """Begin a new second: take the quantiles of the one that ends."""
        lags = sorted(self._lags)
        del self._lags[:]
        if lags:
            self.p50, self.p99 = (lags[min(len(lags) - 1, int(len(lags) * each))] for each in (0.5, 0.99))


class LoopLag:
    """How much later than asked the event loop wakes a greenlet: what clients wait at least."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.counts = [0] * (len(LAG_BUCKETS) + 1)
        self.seconds = 0.0
        self.last = 0.0
        self.second = LagOfASecond()

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
