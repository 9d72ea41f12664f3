"""Was the generator fast enough? What each generating process says of itself, once a second.

A load test counters the slower of two programs. So every process notes how late its loop was (a
greenlet that sleeps 50 ms counters how much longer it slept), how busy it kept its core, the longest pause
of the garbage collector, its files and its ports, and :func:`verdicts` says in a sentence where one of
them, and not the server, set the figures.
"""

from __future__ import annotations

import gc
import os
import resource
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import perf_counter, process_time, time
from typing import Any, Final

import gevent

from benchmarks.reports.histograms import quantile
from loadtest.count.counters import Counters, merge_counts

SLICE_SECONDS: Final = 0.05
BUSY: Final = 0.90
"""From this share of one core on, the generator's own work is in the latencies."""
BUSY_SHARE: Final = 0.2
"""... if that was so in this share of the seconds that had load."""
LAG_US: Final = 10_000
"""A loop that was this late, in 1 of 100 looks, adds as much to what it counters."""
NEARLY: Final = 0.95
"""Share of a limit (files, ports) from which on it is worth a word."""


@dataclass(slots=True)
class Sample:
    """One process in one second of the clock, or a part of it. Other times are in µs, ``cpu`` in cores."""

    second: int
    span: float
    """Seconds since the last sample: what was counted meanwhile, divided by it, is a rate."""
    seconds: float
    """The same for ``cpu``, which is not told of short spans: 0 then, and they count in the next sample."""
    cpu: float
    lags: dict[int, int]
    gc_pause: int
    open: int


@dataclass(slots=True)
class Health:
    """One process over a whole test; what workers send and masters add."""

    seconds: float = 0.0
    busy_seconds: float = 0.0
    cpu_seconds: float = 0.0
    lags: dict[int, int] = field(default_factory=dict)
    gc_pause: int = 0
    files: int = 0
    file_limit: int = 0
    sources: int = 0
    ports: int = 0

    def note(self, sample: Sample) -> None:
        """Count one more sample."""
        self.seconds += sample.seconds
        self.busy_seconds += sample.seconds if sample.cpu >= BUSY else 0.0
        self.cpu_seconds += sample.cpu * sample.seconds
        merge_counts(self.lags, (sample.lags,))
        self.gc_pause = max(self.gc_pause, sample.gc_pause)

    def add(self, other: Health) -> None:
        """Add a later part of the same process's test."""
        self.seconds += other.seconds
        self.busy_seconds += other.busy_seconds
        self.cpu_seconds += other.cpu_seconds
        merge_counts(self.lags, (other.lags,))
        self.gc_pause = max(self.gc_pause, other.gc_pause)
        self.files, self.file_limit = max(self.files, other.files), other.file_limit or self.file_limit
        self.sources, self.ports = other.sources or self.sources, max(self.ports, other.ports)

    @property
    def cpu(self) -> float:
        """Mean share of one core."""
        return self.cpu_seconds / self.seconds if self.seconds else 0.0

    @property
    def lag_p99(self) -> int:
        """Lateness of the loop in microseconds, 99th percentile."""
        return quantile(self.lags, 0.99) if self.lags else 0


def count_files() -> int:
    """Open files of this process; 0 where the system doesn't say."""
    try:
        return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - names only, and there may be 20,000
    except OSError:
        return 0


class Sampler:
    """Looks at this process; ``wait`` takes the time that the looking takes."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._pause_began = 0.0
        self._gc_pause = 0.0
        self._lags: dict[int, int] = defaultdict(int)
        self._cpu = process_time()
        self._at = self._cpu_at = perf_counter()
        self._watched = False
        self.base_files = 0
        """Files open before the test, which are no connections."""

    def begin(self) -> None:
        """A test starts: forget what was before it."""
        if not self._watched:
            gc.callbacks.append(self._on_gc)
            self._watched = True
        self.base_files = max(0, count_files() - self._counters.open)
        self.sample()

    def end(self) -> None:
        """No more tests are looked at: the garbage collector, which outlives this, forgets it."""
        if self._watched:
            gc.callbacks.remove(self._on_gc)
            self._watched = False

    def _on_gc(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._pause_began = perf_counter()
        else:
            self._gc_pause = max(self._gc_pause, perf_counter() - self._pause_began)

    def wait(self) -> None:
        """Sleep until the clock's next whole second, and measure how late each slice of the sleep ends."""
        until = perf_counter() + 1 - time() % 1
        while (begin := perf_counter()) < until:
            pause = min(SLICE_SECONDS, until - begin)
            gevent.sleep(pause)
            self._lags[max(0, int((perf_counter() - begin - pause) * 1e6))] += 1

    def sample(self) -> Sample:
        """What happened since the last sample."""
        now, cpu = perf_counter(), process_time()
        span, self._at = now - self._at, now
        passed = max(now - self._cpu_at, 1e-6)
        long_enough = passed > 0.2
        sample = Sample(
            second=int(time() - span / 2),
            span=span,
            seconds=passed if long_enough else 0.0,
            cpu=(cpu - self._cpu) / passed if long_enough else 0.0,
            lags=dict(self._lags),
            gc_pause=int(self._gc_pause * 1e6),
            open=self._counters.open,
        )
        if long_enough:
            self._cpu_at, self._cpu = now, cpu
        self._lags.clear()
        self._gc_pause = 0.0
        return sample


def file_limit() -> int:
    """Files this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def advice(users: int, processes: int, sources: int, ports_each: int) -> list[str]:
    """What will not fit before a test starts: files of a process, ports of a source address."""
    found = []
    each = -(-users // max(1, processes))
    files = file_limit() - 50  # what Locust itself and its page have open
    if each > files:
        found.append(
            f"{each} users are too many for a process that may have {file_limit()} files open, one for each "
            f"connection: raise the hard limit (ulimit -Hn), or give --processes {-(-users // files)}"
        )
    if users > ports_each * max(1, sources):
        found.append(
            f"{users} connections are more than the {ports_each} ports of a source address to one "
            f"destination (net.ipv4.ip_local_port_range): give {-(-users // ports_each)} addresses with "
            "--source-addresses"
        )
    return found


def verdicts(
    processes: Iterable[tuple[str, Health]], failures: Iterable[str], ports_each: int
) -> list[tuple[str, str]]:
    """Why the generator may have been the bottleneck: short names, and sentences for a person."""
    found = []
    groups = set(failures)
    for name, health in processes:
        if health.seconds and health.busy_seconds >= BUSY_SHARE * health.seconds:
            found.append(
                (
                    "generator-busy",
                    f"the generator was the bottleneck: {name} used {BUSY:.0%} or more of its core in "
                    f"{health.busy_seconds:.0f} of {health.seconds:.0f} s, so rates and latencies are its "
                    "own as much as the server's; spread the users with --processes or workers",
                )
            )
        elif health.lag_p99 > LAG_US:
            found.append(
                (
                    "generator-late",
                    f"the generator's loop in {name} was {health.lag_p99 / 1e3:.1f} ms late or more in 1 of "
                    "100 looks, and latencies contain that",
                )
            )
        if "ConnectFailed(EMFILE)" in groups or (
            health.file_limit and health.files > NEARLY * health.file_limit
        ):
            found.append(
                (
                    "generator-files",
                    f"{name} had {health.files} of {health.file_limit} files open, one for each connection: "
                    "raise the hard limit (ulimit -Hn) or spread the users with --processes",
                )
            )
        limit = ports_each * max(1, health.sources)
        if "ConnectFailed(EADDRNOTAVAIL)" in groups and not health.ports:
            found.append(
                (
                    "generator-address",
                    f"{name} could connect from none of its --source-addresses: are they this machine's?",
                )
            )
        elif "ConnectFailed(EADDRNOTAVAIL)" in groups or health.ports > NEARLY * limit:
            found.append(
                (
                    "generator-ports",
                    f"{name} had {health.ports} connections and a source address has {ports_each} ports to "
                    "one destination (net.ipv4.ip_local_port_range): give more with --source-addresses",
                )
            )
    return found
