"""The results of a run by the names that conditions have for them: ``p99``, ``errors``, ``rate`` ...

Everything that people read of a run is computed here or from the same record, and a percentile that rests on
too few samples is not given at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from benchmarks.reports.histograms import histogram, samples_needed, sure_quantile
from loadtest.count.counters import EntryTotals
from loadtest.count.run_record import RunRecord, measured_seconds

PERCENTS = (50.0, 90.0, 99.0, 99.9)


def percentiles(counts: dict[int, int], percents: tuple[float, ...] = PERCENTS) -> list[float | None]:
    """Percentiles in microseconds; None where fewer than 10 samples lie beyond, which is too few to say."""
    if not counts:
        return [None for _ in percents]
    found = histogram(counts)
    return [sure_quantile(found, percent / 100) for percent in percents]


class Results(Mapping[str, float | None]):
    """What conditions can ask for: ``p99``, ``service.p99``, ``errors``, ``error_share``, ``rate`` ..."""

    def __init__(self, record: RunRecord) -> None:
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
        failed = sum(kept.failed for kept in record.entries.values())
        requests = failed + sum(kept.passed for kept in record.entries.values())
        self._plain: dict[str, float | None] = {
            "errors": float(failed),
            "error_share": failed / requests if requests else None,
            "rate": sum(point.messages for point in full) / seconds if seconds else None,
            "aborted": float(record.aborted),
            "connections": float(max((point.open for _, point in points), default=0)),
        }

    def _counts(self, kind: str) -> dict[int, int]:
        if kind == "connect":
            return self.record.entries.get("CONNECT", EntryTotals()).service
        if kind == "first_byte":
            return self.messages.first_byte
        if kind == "response" or (not kind and self.messages.response):
            return self.messages.response
        return self.messages.service

    def _percentile(self, name: str) -> tuple[dict[int, int], float]:
        match = re.fullmatch(r"(?:(service|response|connect|first_byte)\.)?p(\d+(?:\.\d+)?)", name)
        if not match:
            raise KeyError(name)
        return self._counts(match[1] or ""), float(match[2])

    def __getitem__(self, name: str) -> float | None:
        if name in self._plain:
            return self._plain[name]
        counts, percent = self._percentile(name)
        return percentiles(counts, (percent,))[0]

    def missing(self, name: str) -> str:
        """Why there is no figure called ``name``, to follow its name in a sentence."""
        if name not in self._plain:
            counts, percent = self._percentile(name)
            if counts:
                samples, needed = sum(counts.values()), samples_needed(percent / 100)
                return f"can't be judged by {samples:,} samples: it takes {needed:,}, for 10 to lie beyond it"
        return "was not measured"

    def __iter__(self) -> Iterator[str]:
        return iter(self._plain)

    def __len__(self) -> int:
        return len(self._plain)
