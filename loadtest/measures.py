"""What is measured, in whole microseconds and without loss, at a cost of one dictionary update a request.

An HDR histogram in Python takes about 0.7 µs to record a value. So the hot path counts each latency in a
plain dictionary keyed by whole microseconds, and once a second :meth:`Measures.collect` moves those counts
into HDR histograms (3 significant digits, 1 µs to 1 h), a ``record_value(value, count)`` for each distinct
value. Histograms of workers are added, never averaged, so that percentiles of a distributed run are those
of all its samples together.

Every kind of request (CONNECT, CONFIRM, EXIT, or whatever a user class calls its own) is an
:class:`Entry`. Four latencies are kept apart:

``service``     from sent to answered
``response``    from the intended start to answered; only where a schedule gave one (pacing.py)
``first_byte``  from sent to the first byte of the reply
``connect``     is the service time of the CONNECT entry

Nearly every reply comes whole in one read: its first byte and its end are one moment, counted once in
``whole``. Only the others are counted in ``split_first`` and ``split_reply``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, Final

from hdrh.histogram import HdrHistogram

LOWEST_US: Final = 1
HIGHEST_US: Final = 3_600_000_000
DIGITS: Final = 3
LATENCIES: Final = ("service", "response", "first_byte")
NO_MESSAGES: Final = frozenset({"CONNECT", "EXIT", "HOLD"})
"""Entries that are about the connection."""

Counts = defaultdict[int, int]


def new_histogram() -> HdrHistogram:
    """An empty histogram of microseconds."""
    return HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)


def record(histogram: HdrHistogram, counts: dict[int, int]) -> None:
    """Add counted microseconds; what is outside of the histogram's range is counted at its end."""
    for value, count in counts.items():
        histogram.record_value(min(max(value, LOWEST_US), HIGHEST_US), count)


def encode(histogram: HdrHistogram) -> str:
    """HDR V2, compressed, base64."""
    return histogram.encode().decode("ascii")  # type: ignore[no-any-return]


def decode(text: str) -> HdrHistogram:
    """What :func:`encode` gave. Raises ValueError, HdrLengthException and the like for anything else."""
    return HdrHistogram.decode(text.encode("ascii"))


def percentile_us(histogram: HdrHistogram, percent: float) -> float:
    """The latency in microseconds that ``percent`` of the samples did not exceed; 0 without samples."""
    return float(histogram.get_value_at_percentile(percent)) if histogram.get_total_count() else 0.0


def counted_percentile(counts: dict[int, int], percent: float) -> int:
    """The same of plain counts."""
    need = max(1, -int(-sum(counts.values()) * percent // 100))
    seen = 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= need:
            return value
    return 0


class Entry:
    """The counts of one kind of request; what users increment is public, and cheap."""

    __slots__ = (
        "aborted",
        "bytes_in",
        "bytes_out",
        "failures",
        "name",
        "response",
        "split_first",
        "split_reply",
        "whole",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.clear()

    def clear(self) -> None:
        """Forget everything, in place: users hold on to their entries."""
        self.whole: Counts = defaultdict(int)
        self.split_first: Counts = defaultdict(int)
        self.split_reply: Counts = defaultdict(int)
        self.response: Counts = defaultdict(int)
        self.failures: Counter[str] = Counter()
        self.aborted = 0
        self.bytes_out = 0
        self.bytes_in = 0


class Kept:
    """The totals of one kind of request: histograms and counts that can be added and sent."""

    def __init__(self) -> None:
        self.histograms = {latency: new_histogram() for latency in LATENCIES}
        self.failures: Counter[str] = Counter()
        self.aborted = 0
        self.bytes_out = 0
        self.bytes_in = 0

    @property
    def passed(self) -> int:
        """Requests whose reply came and was right."""
        return int(self.histograms["service"].get_total_count())

    @property
    def failed(self) -> int:
        """Requests that ended in an error."""
        return sum(self.failures.values())

    def take(self, entry: Entry) -> None:
        """Move the counts of ``entry`` here."""
        for counts in (entry.whole, entry.split_reply):
            record(self.histograms["service"], counts)
        for counts in (entry.whole, entry.split_first):
            record(self.histograms["first_byte"], counts)
        record(self.histograms["response"], entry.response)
        self.failures.update(entry.failures)
        self.aborted += entry.aborted
        self.bytes_out += entry.bytes_out
        self.bytes_in += entry.bytes_in
        entry.clear()

    def to_message(self) -> dict[str, Any]:
        """As types that msgpack and JSON take."""
        return {
            "histograms": {n: encode(h) for n, h in self.histograms.items() if h.get_total_count()},
            "failures": dict(self.failures),
            "aborted": self.aborted,
            "bytes_out": self.bytes_out,
            "bytes_in": self.bytes_in,
        }

    def add(self, message: dict[str, Any]) -> None:
        """Add what another process's :meth:`to_message` gave."""
        for name, text in message["histograms"].items():
            self.histograms[name].add(decode(text))
        self.failures.update(message["failures"])
        self.aborted += message["aborted"]
        self.bytes_out += message["bytes_out"]
        self.bytes_in += message["bytes_in"]


class Measures:
    """What one process is counting, until it is collected."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.open = 0
        """Connections that are open now."""
        self.opened = 0
        self.late_starts = 0
        """Messages of a schedule that left more than a millisecond after their intended start."""
        self.intended = 0
        """Messages whose intended start has come, sent or not."""
        self.samples: dict[str, str] = {}
        """One example in words for each group of errors."""

    def entry(self, name: str) -> Entry:
        """The entry called ``name``, made where it is new."""
        try:
            return self.entries[name]
        except KeyError:
            return self.entries.setdefault(name, Entry(name))

    def reset(self) -> None:
        """Begin a new test; connections that are open stay counted as open."""
        for entry in self.entries.values():
            entry.clear()
        self.samples.clear()
        self.opened = self.late_starts = self.intended = 0

    def collect(self, into: dict[str, Kept]) -> dict[str, dict[int, int]]:
        """Move what was counted ``into`` totals by entry; returns the interval's latencies by kind.

        The kinds are ``service`` and ``response`` of all messages together, and ``connect``; CONNECT and
        EXIT are no messages.
        """
        interval: dict[str, dict[int, int]] = {"service": {}, "response": {}, "connect": {}}
        for entry in list(self.entries.values()):
            if entry.name == "CONNECT":
                merge_counts(interval["connect"], (entry.whole,))
            elif entry.name not in NO_MESSAGES:
                merge_counts(interval["service"], (entry.whole, entry.split_reply))
                merge_counts(interval["response"], (entry.response,))
            if entry.name not in into:
                into[entry.name] = Kept()
            into[entry.name].take(entry)
        return interval


def merge_counts(into: dict[int, int], others: Iterable[dict[int, int]]) -> None:
    """Add counts to counts."""
    for counts in others:
        for value, count in counts.items():
            into[value] = into.get(value, 0) + count
