"""What a test has come to: the totals by entry, the course over time, and the health of each process.

A tally can be added to: a worker sends the tally of its last seconds as plain types, and the master
adds it to the run's. Latencies over time are kept as counts of rounded microseconds for as long as a late
worker may still add to a second, and then as percentiles, so that percentiles are never averaged.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from loadtest.health import Health, Sample, count_files, file_limit
from loadtest.measures import NO_MESSAGES, Kept, Measures, counted_percentile, merge_counts

OPEN_SECONDS: Final = 15
"""For how long a second may be added to; workers report every 3 s."""

Counts = dict[int, int]


def rounded(value: int) -> int:
    """Microseconds to 7 significant bits: within 1%, and few enough values to send and keep."""
    shift = value.bit_length() - 7
    return (value >> shift) << shift if shift > 0 else value


@dataclass(slots=True)
class Second:
    """One second of the course, while it can still be added to."""

    counts: dict[str, Counts] = field(default_factory=dict)
    failed: int = 0
    open: dict[str, int] = field(default_factory=dict)
    lag: int = 0
    cpu: float = 0.0

    def add(self, other: Second) -> None:
        """Add what another process, or a later report of the same, says of this second."""
        for kind, counts in other.counts.items():
            merge_counts(self.counts.setdefault(kind, {}), (counts,))
        self.failed += other.failed
        self.open.update(other.open)
        self.lag, self.cpu = max(self.lag, other.lag), max(self.cpu, other.cpu)


@dataclass(slots=True)
class Point:
    """One second of the course, done. Latencies in microseconds; None where nothing was answered."""

    rate: int
    failed: int
    open: int
    lag: int
    cpu: float
    latency: dict[str, tuple[int, int, int] | None]
    """p50, p99 and highest by kind: service, response, connect."""


class Tally:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.entries: dict[str, Kept] = {}
        self.samples: dict[str, str] = {}
        self.health: dict[str, Health] = {}
        self.gauges: dict[str, dict[str, int]] = {}
        """The latest of each process: ``open``, ``opened``, ``late_starts`` and ``intended``."""
        self.seconds: dict[int, Second] = {}
        self.course: dict[int, Point] = {}
        self._failed = 0

    # -- filling ---------------------------------------------------------------------------------

    def take(
        self, process: str, measures: Measures, interval: dict[str, Counts], sample: Sample, intended: int
    ) -> None:
        """Add the last second of this process; its entries have been collected into ``entries`` already."""
        failed = sum(kept.failed for kept in self.entries.values())
        counts: dict[str, Counts] = {}
        for kind, exact in interval.items():
            coarse = counts[kind] = {}
            for value, count in exact.items():
                key = rounded(value)
                coarse[key] = coarse.get(key, 0) + count
        second = Second(
            counts, failed - self._failed, {process: measures.open}, max(sample.lags, default=0), sample.cpu
        )
        self._failed = failed
        self._add_second(sample.second, second)
        self.samples.update(measures.samples)
        self.gauges[process] = {
            "open": measures.open,
            "opened": measures.opened,
            "late_starts": measures.late_starts,
            "intended": intended,
        }
        health = self.note_health(process, sample)
        health.ports = max(health.ports, measures.open)
        health.files = max(health.files, health.files or count_files(), measures.open)
        health.file_limit = file_limit()

    def note_health(self, process: str, sample: Sample) -> Health:
        """Count a second of a process; an instant that was sampled twice counts once."""
        health = self.health.setdefault(process, Health())
        if sample.cpu or sample.lags:
            health.note(sample)
        return health

    def _add_second(self, number: int, second: Second) -> None:
        if number in self.seconds:
            self.seconds[number].add(second)
        else:
            self.seconds[number] = second

    # -- sending and adding ----------------------------------------------------------------------

    def to_message(self) -> dict[str, Any]:
        """As types that msgpack takes."""
        return {
            "entries": {name: kept.to_message() for name, kept in self.entries.items()},
            "samples": self.samples,
            "health": {name: asdict(health) for name, health in self.health.items()},
            "gauges": self.gauges,
            "seconds": {number: asdict(second) for number, second in self.seconds.items()},
        }

    def add(self, message: dict[str, Any]) -> None:
        """Add what another process's :meth:`to_message` gave."""
        for name, kept in message["entries"].items():
            self.entries.setdefault(name, Kept()).add(kept)
        for group, sample in message["samples"].items():
            self.samples.setdefault(group, sample)
        for name, health in message["health"].items():
            self.health.setdefault(name, Health()).add(Health(**health))
        self.gauges.update(message["gauges"])
        for number, second in message["seconds"].items():
            self._add_second(number, Second(**second))

    # -- reading ---------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        """Turn seconds that nobody adds to any more into points of the course."""
        for number in sorted(n for n in self.seconds if n < now - OPEN_SECONDS):
            self.course[number] = self._point(self.seconds.pop(number))

    def _point(self, second: Second) -> Point:
        latency: dict[str, tuple[int, int, int] | None] = {}
        for kind in ("service", "response", "connect"):
            counts = second.counts.get(kind)
            latency[kind] = (
                (counted_percentile(counts, 50), counted_percentile(counts, 99), max(counts))
                if counts
                else None
            )
        return Point(
            rate=sum(second.counts.get("service", {}).values()),
            failed=second.failed,
            open=sum(second.open.values()),
            lag=second.lag,
            cpu=second.cpu,
            latency=latency,
        )

    def points(self) -> list[tuple[int, Point]]:
        """The whole course so far, by second."""
        settled = list(self.course.items())
        return sorted(settled + [(number, self._point(second)) for number, second in self.seconds.items()])

    def gauge(self, name: str) -> int:
        """A gauge summed over the processes."""
        return sum(gauges.get(name, 0) for gauges in self.gauges.values())

    @property
    def failures(self) -> Counter[tuple[str, str]]:
        """How often each group of errors happened, by entry."""
        found: Counter[tuple[str, str]] = Counter()
        for name, kept in self.entries.items():
            for group, count in kept.failures.items():
                found[name, group] += count
        return found

    def messages(self) -> Kept:
        """All entries that are messages, added up."""
        return self._sum(name for name in self.entries if name not in NO_MESSAGES)

    def _sum(self, names: Any) -> Kept:
        total = Kept()
        for name in names:
            kept = self.entries[name]
            for latency, histogram in kept.histograms.items():
                total.histograms[latency].add(histogram)
            total.failures.update(kept.failures)
            total.aborted += kept.aborted
            total.bytes_in += kept.bytes_in
            total.bytes_out += kept.bytes_out
        return total
