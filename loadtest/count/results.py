"""The results of a run by the names that conditions have for them: ``p99``, ``errors``, ``rate`` ...

Everything that people read of a run is computed here or from the same record, and a percentile that rests on
too few samples is not given at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from benchmarks.reports.histograms import histogram, samples_needed, sure_quantile
from loadtest.count.counters import EntryTotals, total
from loadtest.count.run_record import RunRecord, connects_in, measured_seconds

PERCENTS = (50.0, 90.0, 99.0, 99.9)


def percentiles(counts: dict[int, int], percents: tuple[float, ...] = PERCENTS) -> list[float | None]:
    """Percentiles in microseconds; None where fewer than 10 samples lie beyond, which is too few to say."""
    if not counts:
        return [None for _ in percents]
    found = histogram(counts)
    return [sure_quantile(found, percent / 100) for percent in percents]


class Results(Mapping[str, float | None]):
    """What conditions can ask for of all messages: ``p99``, ``service.p99``, ``errors``, ``rate`` ...

    :meth:`of` has the same of one entry. ``errors`` are all failures, ``error_share`` is that of messages;
    connects have their own. ``workers`` are those that are left, None in a run without any.
    """

    def __init__(self, record: RunRecord, workers: int | None = None) -> None:
        self.record = record
        self.messages = record.messages()
        points = record.points()
        full = [
            point
            for second, point in points[:-1]  # the last one is being filled
            if second >= record.spawned_at and second + 1 <= record.stopping_at
        ]
        full = full or [point for _, point in points]
        seconds = measured_seconds(point.spans for point in full)
        self._seconds = measured_seconds(point.spans for _, point in points)
        requests = self.messages.passed + self.messages.failed
        self._plain: dict[str, float | None] = {
            "errors": float(sum(kept.failed_itself for kept in record.entries.values())),
            "error_share": self.messages.failed / requests if requests else None,
            "rate": sum(point.messages for point in full) / seconds if seconds else None,
            "aborted": float(record.aborted),
            "connections": float(max((point.open for _, point in points), default=0)),
            "workers": None if workers is None else float(workers),
        }

    def entry(self, name: str) -> EntryTotals | None:
        """What is counted as ``name``, for all hosts and framings; None where nothing is."""
        entries = self.record.entries
        if name == "connect":
            return connects_in(entries)
        found = [kept for each, kept in entries.items() if each == name or each.startswith(f"{name} @")]
        return total(found) if found else None

    def of(self, entry: str, figure: str) -> float | None:
        """``figure`` of the entry called ``entry`` (of all messages where that is empty), or None."""
        if not entry and figure in self._plain:
            return self._plain[figure]
        kept = self.entry(entry) if entry else self.messages
        if kept is None:
            return None
        done = kept.passed + kept.failed
        if figure == "errors":
            return float(kept.failed)
        if figure == "error_share":
            return kept.failed / done if done else None
        if figure == "rate":
            return kept.passed / self._seconds if self._seconds else None
        if figure == "aborted":
            return float(kept.aborted)
        counts, percent = self._percentile(kept, figure)
        return percentiles(counts, (percent,))[0]

    def _percentile(self, kept: EntryTotals, figure: str) -> tuple[dict[int, int], float]:
        match = re.fullmatch(r"(?:(service|response|first_byte)\.)?p(\d+(?:\.\d+)?)", figure)
        if not match:
            raise KeyError(figure)
        kind = match[1] or ("response" if kept.response else "service")
        counts = {"service": kept.latencies, "response": kept.response}.get(kind)
        return kept.first_byte if counts is None else counts, float(match[2])

    def __getitem__(self, name: str) -> float | None:
        return self.of("", name)

    def missing(self, entry: str, figure: str) -> str:
        """Why there is no such figure, to follow its name in a sentence."""
        kept = self.entry(entry) if entry else self.messages
        if kept is None:
            return f"was not measured: nothing was counted as {entry!r}"
        if figure not in self._plain:
            counts, percent = self._percentile(kept, figure)
            if counts:
                samples, needed = sum(counts.values()), samples_needed(percent / 100)
                return f"can't be judged by {samples:,} samples: it takes {needed:,}, for 10 to lie beyond it"
        return "was not measured"

    def __iter__(self) -> Iterator[str]:
        return iter(self._plain)

    def __len__(self) -> int:
        return len(self._plain)
