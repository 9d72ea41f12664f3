"""What users count, in whole microseconds and without loss, at a cost of one dictionary update a request.

Every kind of request (CONNECT, CONFIRM, EXIT, or whatever a user class calls its own) is an
:class:`Entry` of the process's :class:`Counters`. Its latencies:

``service``     from sent to answered
``timeouts``    from sent to the time-out, of requests that had no answer by then: they took at least as long
``response``    from the intended start to answered, or to the time-out; only with a schedule (schedule.py)
``first_byte``  from sent to the first byte of the reply

Nearly every reply comes whole in one read: its first byte and its end are one moment, counted once in
``whole``. Only the others are counted in ``split_first`` and ``split_reply``.

Once a second :meth:`Counters.collect` takes what was counted as :class:`EntryTotals`, whose latencies are
rounded as an HDR histogram of 3 significant digits rounds them: to record a value in such a histogram takes
about 0.7 µs in Python, so they become histograms when a report is made. Counts of workers are added, never
averaged: the percentiles of a distributed run are those of all its samples together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from benchmarks.reports.histograms import add_rounded

REQUEST: Final = "request"
SEND: Final = "send"
RECEIVE: Final = "receive"
PUSH: Final = "push"
CONNECTION: Final = "connection"
TRANSACTION: Final = "transaction"
FIGURE: Final = "figure"
"""What an entry counts: requests with a reply, messages without one, messages that were waited for or came
unasked, what is about the connection, several steps as one, and a user's own figures."""

MESSAGES: Final = (REQUEST, SEND)
"""Kinds that are messages: their rate, latencies and share of errors are those of a run."""

RESERVED: Final = frozenset({"CONNECT", "EXIT", "HOLD", "TLS", "UNEXPECTED", "CONFIRM"})
"""Names of entries that the kit itself counts; a user's own have others."""

Counts = dict[int, int]
"""How often each latency was measured, by whole microseconds."""


def merge_counts(into: Counts, others: Iterable[Mapping[int, int]]) -> None:
    """Add counts to counts."""
    get = into.get
    for counts in others:
        for value, count in counts.items():
            into[value] = get(value, 0) + count


class Entry:
    """The counts of one kind of request; what users increment is public, and cheap."""

    __slots__ = (
        "aborted",
        "bytes_in",
        "bytes_out",
        "failures",
        "kind",
        "name",
        "response",
        "split_first",
        "split_reply",
        "timeouts",
        "untimed",
        "whole",
    )

    def __init__(self, name: str, kind: str = REQUEST) -> None:
        self.name = name
        self.kind = kind
        self.clear()

    def clear(self) -> None:
        """Forget everything, in place: users hold on to their entries."""
        self.whole: defaultdict[int, int] = defaultdict(int)
        self.split_first: defaultdict[int, int] = defaultdict(int)
        self.split_reply: defaultdict[int, int] = defaultdict(int)
        self.response: defaultdict[int, int] = defaultdict(int)
        self.timeouts: defaultdict[int, int] = defaultdict(int)
        self.untimed = 0
        self.failures: Counter[str] = Counter()
        self.aborted = 0
        self.bytes_out = 0
        self.bytes_in = 0


@dataclass(slots=True)
class EntryTotals:
    """What one kind of request has come to; can be sent (``dataclasses.asdict``) and added."""

    kind: str = REQUEST
    service: Counts = field(default_factory=dict)
    timeouts: Counts = field(default_factory=dict)
    response: Counts = field(default_factory=dict)
    split_first: Counts = field(default_factory=dict)
    split_reply: Counts = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    untimed: int = 0
    """Passed, with nothing to be timed: messages that have no reply."""
    aborted: int = 0
    bytes_out: int = 0
    bytes_in: int = 0

    @classmethod
    def of(cls, entry: Entry) -> EntryTotals:
        """Take what ``entry`` has counted, and clear it."""
        kept = cls(
            kind=entry.kind,
            untimed=entry.untimed,
            failures=dict(entry.failures),
            aborted=entry.aborted,
            bytes_out=entry.bytes_out,
            bytes_in=entry.bytes_in,
        )
        for counts in (entry.whole, entry.split_reply):
            add_rounded(counts, kept.service)
        add_rounded(entry.timeouts, kept.timeouts)
        add_rounded(entry.response, kept.response)
        add_rounded(entry.split_first, kept.split_first)
        add_rounded(entry.split_reply, kept.split_reply)
        entry.clear()
        return kept

    def add(self, other: EntryTotals) -> None:
        """Add what was measured later, or elsewhere."""
        merge_counts(self.service, (other.service,))
        merge_counts(self.timeouts, (other.timeouts,))
        merge_counts(self.response, (other.response,))
        merge_counts(self.split_first, (other.split_first,))
        merge_counts(self.split_reply, (other.split_reply,))
        for group, count in other.failures.items():
            self.failures[group] = self.failures.get(group, 0) + count
        self.untimed += other.untimed
        self.aborted += other.aborted
        self.bytes_out += other.bytes_out
        self.bytes_in += other.bytes_in

    @property
    def first_byte(self) -> Counts:
        """From sent to the first byte of the reply: the service time, but for replies that came in pieces."""
        counts = dict(self.service)
        for value, count in self.split_reply.items():
            counts[value] -= count
        merge_counts(counts, (self.split_first,))
        return {value: count for value, count in counts.items() if count}

    @property
    def passed(self) -> int:
        """Requests whose reply came and was right."""
        return sum(self.service.values()) + self.untimed

    @property
    def latencies(self) -> Counts:
        """What percentiles are of: service times, and what those had taken that timed out."""
        if not self.timeouts:
            return self.service
        counts = dict(self.service)
        merge_counts(counts, (self.timeouts,))
        return counts

    @property
    def left_out(self) -> int:
        """Failed requests that are in no percentile: nobody knows how long they would have taken."""
        return self.failed - sum(self.timeouts.values())

    @property
    def failed(self) -> int:
        """Requests that ended in an error."""
        return sum(self.failures.values())

    @property
    def failed_itself(self) -> int:
        """Those that are not counted elsewhere too, as the failed step of a transaction is."""
        return sum(count for group, count in self.failures.items() if not group.startswith("StepFailed("))

    def __bool__(self) -> bool:
        return bool(self.service or self.failures or self.aborted or self.untimed)


def total(kept: Iterable[EntryTotals]) -> EntryTotals:
    """Several added up."""
    result = EntryTotals()
    for number, one in enumerate(kept):
        result.kind = one.kind if not number else result.kind
        result.add(one)
    return result


class Counters:
    """What one process is counting, until it is collected."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.open = 0
        """Connections that are open now."""
        self.opened = 0
        self.sources = 1
        """Addresses that connections come from."""
        self.late_starts = 0
        """Starts of a schedule (of a message, or of several) that were more than a millisecond late."""
        self.intended = 0
        """Messages whose intended start has come, as far as they were looked at."""
        self.samples: dict[str, str] = {}
        """One example in words for each group of errors."""

    def entry(self, name: str, kind: str = REQUEST) -> Entry:
        """The entry called ``name``, made where it is new. Raises ValueError: it counts something else."""
        entry = self.entries.get(name)
        if entry is None:
            entry = self.entries[name] = Entry(name, kind)
        elif entry.kind != kind:
            raise ValueError(f"{name!r} is the name of a {entry.kind} already, and can't be that of a {kind}")
        return entry

    def reset(self) -> None:
        """Begin a new test; connections that are open stay counted as open."""
        for entry in self.entries.values():
            entry.clear()
        self.samples.clear()
        self.opened = self.late_starts = self.intended = 0

    def collect_counts(self) -> dict[str, int]:
        """Take what was counted beside the entries since the last time."""
        taken = {name: getattr(self, name) for name in ("opened", "late_starts", "intended")}
        self.opened = self.late_starts = self.intended = 0
        return taken

    def collect(self) -> dict[str, EntryTotals]:
        """Take what was counted since the last time, by entry."""
        taken = {entry.name: EntryTotals.of(entry) for entry in list(self.entries.values())}
        return {name: kept for name, kept in taken.items() if kept}
