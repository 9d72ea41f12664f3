"""What a test has come to: the totals by entry, the course over time, and the health of each process.

A record can be added to: a worker sends the record of its last seconds as plain types, and the master
adds it to the run's. Seconds are kept by the clock for as long as a late worker may add to them, and
then go into one of at most :data:`WINDOWS` parts of the run, which double in length when the run gets
longer. Whatever is a percentile is computed from added counts, never averaged. What comes later still is
counted in the totals, in its part of the run and in the course.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from benchmarks.reports.histograms import quantile
from loadtest.count.counters import CONNECTION, MESSAGES, Counters, EntryTotals, total
from loadtest.count.health import Health, Sample, file_limit

OPEN_SECONDS: Final = 15
"""For how long a second may be added to; workers report every 3 s."""
WINDOWS: Final = 20


@dataclass(slots=True)
class Second:
    """One second of all processes: what was answered, and how many connections were open."""

    entries: dict[str, EntryTotals] = field(default_factory=dict)
    open: dict[str, int] = field(default_factory=dict)
    spans: dict[str, float] = field(default_factory=dict)
    """For how many seconds each process counted; not exactly 1, and less where it began or ended."""
    lag: int = 0
    cpu: float = 0.0

    def add(self, other: Second) -> None:
        """Add what another process, or a later report of the same, says of this second."""
        for name, kept in other.entries.items():
            self.entries.setdefault(name, EntryTotals(kept.kind)).add(kept)
        self.open.update(other.open)
        for process, span in other.spans.items():
            self.spans[process] = self.spans.get(process, 0.0) + span
        self.lag, self.cpu = max(self.lag, other.lag), max(self.cpu, other.cpu)


@dataclass(slots=True)
class Point:
    """What is drawn of one second. Latencies are (p50, p99, highest) in µs, or None without answers."""

    messages: int
    failed: int
    opens: dict[str, int]
    """Open connections of each process."""
    spans: dict[str, float]
    lag: int
    cpu: float
    service: tuple[int, int, int] | None
    response: tuple[int, int, int] | None
    connect: tuple[int, int, int] | None

    @classmethod
    def of(cls, second: Second) -> Point:
        """Reduce a second to figures."""
        messages = total(messages_of(second.entries))
        connect = connects_in(second.entries).latencies

        def three(counts: dict[int, int]) -> tuple[int, int, int] | None:
            return (quantile(counts, 0.5), quantile(counts, 0.99), max(counts)) if counts else None

        return cls(
            messages=messages.passed,
            failed=sum(kept.failed_itself for kept in second.entries.values()),
            opens=dict(second.open),
            spans=dict(second.spans),
            lag=second.lag,
            cpu=second.cpu,
            service=three(messages.latencies),
            response=three(messages.response),
            connect=three(connect),
        )

    def add(self, late: Point) -> None:
        """Add a part of the second that came when it had been reduced already.

        Percentiles can't be added: those of the part with more messages are drawn, and the highest of both.
        """
        for kind in ("service", "response", "connect"):
            found = [three for three in (getattr(self, kind), getattr(late, kind)) if three]
            if found:
                larger = found[-1] if late.messages > self.messages else found[0]
                setattr(self, kind, (*larger[:2], max(highest for _, _, highest in found)))
        self.messages += late.messages
        self.failed += late.failed
        self.opens.update(late.opens)
        for process, span in late.spans.items():
            self.spans[process] = self.spans.get(process, 0.0) + span
        self.lag, self.cpu = max(self.lag, late.lag), max(self.cpu, late.cpu)

    @property
    def open(self) -> int:
        """Connections that were open."""
        return sum(self.opens.values())

    @property
    def rate(self) -> float:
        """Messages a second, to be drawn; a second that was measured in part only counts as a whole one."""
        return self.messages / max(1.0, measured_seconds([self.spans]))


def measured_seconds(spans: Iterable[dict[str, float]]) -> float:
    """For how long these were counted, by the process that counted longest."""
    totals: defaultdict[str, float] = defaultdict(float)
    for one in spans:
        for process, seconds in one.items():
            totals[process] += seconds
    return max(totals.values(), default=0.0)


def messages_of(entries: dict[str, EntryTotals]) -> list[EntryTotals]:
    """Those entries that are messages."""
    return [kept for kept in entries.values() if kept.kind in MESSAGES]


def connects_in(entries: dict[str, EntryTotals]) -> EntryTotals:
    """All connects, to whatever host."""
    return total(
        kept
        for name, kept in entries.items()
        if kept.kind == CONNECTION and name.partition(" ")[0] == "CONNECT"
    )


class RunRecord:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.entries: dict[str, EntryTotals] = {}
        self.samples: dict[str, str] = {}
        self.health: dict[str, Health] = {}
        self.open: dict[str, int] = {}
        """Connections of each process that were open at the last look."""
        self.counts: Counter[str] = Counter()
        """Connections ``opened``, ``late_starts``, and messages ``intended``. Workers send what came to these
        since their last report, as they send all else, so a record may begin at any time."""
        self.seconds: dict[int, Second] = {}
        self.keep_seconds = OPEN_SECONDS
        self.course: dict[int, Point] = {}
        self.spawned_at = 0.0
        """Unix time at which all users were there; rates are those of later seconds."""
        self.stopping_at = math.inf
        """Unix time at which the test was told to stop; rates are those of earlier seconds."""
        self.window_seconds = 1
        self.windows: dict[int, Second] = {}
        """Parts of the run that are done, by their first second."""

    # -- filling ---------------------------------------------------------------------------------

    def take(self, process: str, counters: Counters, sample: Sample, base_files: int) -> None:
        """Collect what this process has counted since the last time."""
        taken = counters.collect()
        for name, kept in taken.items():
            self.entries.setdefault(name, EntryTotals(kept.kind)).add(kept)
        spans = {process: sample.span}
        second = Second(taken, {process: counters.open}, spans, max(sample.lags, default=0), sample.cpu)
        self._add_second(sample.second, second)
        self.samples.update(counters.samples)
        self.open[process] = counters.open
        self.counts.update(counters.collect_counts())
        health = self.note_health(process, sample)
        health.ports = max(health.ports, counters.open)
        health.files = max(health.files, base_files + counters.open)
        health.file_limit = file_limit()
        health.sources = counters.sources

    def forget_open(self, process: str) -> None:
        """A process is lost, and the connections that it said were open with it."""
        self.open.pop(process, None)

    def note_health(self, process: str, sample: Sample) -> Health:
        """Count a sample of a process."""
        health = self.health.setdefault(process, Health())
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
            "samples": self.samples,
            "health": {name: asdict(health) for name, health in self.health.items()},
            "open": self.open,
            "counts": dict(self.counts),
            "seconds": {number: asdict(second) for number, second in self.seconds.items()},
        }

    def add(self, message: dict[str, Any]) -> None:
        """Add what another process's :meth:`to_message` gave."""
        for group, sample in message["samples"].items():
            self.samples.setdefault(group, sample)
        for name, health in message["health"].items():
            self.health.setdefault(name, Health()).add(Health(**health))
        self.open.update(message["open"])
        self.counts.update(message["counts"])
        for number, plain in message["seconds"].items():
            entries = {name: EntryTotals(**kept) for name, kept in plain["entries"].items()}
            for name, kept in entries.items():
                self.entries.setdefault(name, EntryTotals(kept.kind)).add(kept)
            self._add_second(number, Second(**{**plain, "entries": entries}))

    # -- reading ---------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        """Put seconds that nobody adds to any more into the course and into their part of the run."""
        for number in sorted(n for n in self.seconds if n < now - self.keep_seconds):
            second = self.seconds.pop(number)
            if number in self.course:
                self.course[number].add(Point.of(second))
            else:
                self.course[number] = Point.of(second)
            self._into_window(number, second)
        while len(self.windows) > WINDOWS:
            windows, self.windows = self.windows, {}
            self.window_seconds *= 2
            for number, second in sorted(windows.items()):
                self._into_window(number, second)

    def _into_window(self, number: int, second: Second) -> None:
        first = number - number % self.window_seconds
        self.windows.setdefault(first, Second()).add(second)

    def points(self) -> list[tuple[int, Point]]:
        """The whole course so far, by second."""
        points = {number: Point.of(second) for number, second in self.seconds.items()}
        for number, point in self.course.items():
            if number in points:  # a late part that is not settled yet
                points[number].add(point)
            else:
                points[number] = point
        return sorted(points.items())

    def between(self, first: float, last: float) -> list[Second]:
        """The seconds from ``first`` to ``last`` that are still kept."""
        return [second for number, second in self.seconds.items() if first <= number <= last]

    @property
    def failures(self) -> Counter[tuple[str, str]]:
        """How often each group of errors happened, by entry."""
        found: Counter[tuple[str, str]] = Counter()
        for name, kept in self.entries.items():
            for group, count in kept.failures.items():
                found[name, group] += count
        return found

    @property
    def aborted(self) -> int:
        """Requests that were in flight when their users were stopped."""
        return sum(kept.aborted for kept in self.entries.values())

    def messages(self) -> EntryTotals:
        """All entries that are messages, added up."""
        return total(messages_of(self.entries))


def messages_in(seconds: Iterable[Second]) -> EntryTotals:
    """The messages of several seconds, added up."""
    return total(kept for second in seconds for kept in messages_of(second.entries))
