"""The last ten minutes of a server: one sample a second, in memory that never grows.

:class:`History` is a ring of rows of doubles, in an array of its own or in memory that several processes
share. A row holds the counters as they stood, not rates: rates are made when somebody reads, from two rows
that follow each other. So whichever process writes next needs to know nothing of the one before it, and a
second that was left out loses nothing: the next sample's mean stands for both.

Times are those of ``time.monotonic``, which all processes of a machine have in common and nobody sets.
"""

from __future__ import annotations

import time
from array import array
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from chat_gevent.command.snapshot import Snapshot

SECONDS: Final = 600
"""How far back it reaches."""

GAUGES: Final = ("connections", "queued_bytes", "loop_lag_p50_seconds", "loop_lag_p99_seconds")
"""Series of values as they were at the moment of the sample."""

RATES: Final = ("messages_per_second", "pushes_per_second", "refused_per_second", "closed_per_second")
"""Series of means since the sample before."""

_ROWS: Final = SECONDS + 2  # the oldest that is shown needs the one before it; this second may be to come
_WIDTH: Final = 1 + len(GAUGES) + len(RATES)

BYTES: Final = 8 * _ROWS * _WIDTH
"""How much memory it needs."""


class History:
    """A ring of samples.

    :param memory: :data:`BYTES` of zeros, or of a ring that is to be continued; its own unless given.
    """

    def __init__(self, memory: memoryview | None = None) -> None:
        # Any: an older mypy takes every memoryview for one of integers.
        self._cells: Any = array("d", bytes(BYTES)) if memory is None else memory.cast("d")

    def add(self, now: float, figures: Snapshot) -> None:
        """Write the sample of ``now``, a time of ``time.monotonic``. One process may write at a time."""
        start = int(now) % _ROWS * _WIDTH
        values = (
            figures.connections,
            figures.queued_bytes,
            figures.lag_p50,
            figures.lag_p99,
            figures.messages,
            figures.pushes,
            sum(figures.refused.values()),
            sum(figures.closed.values()),
        )
        self._cells[start] = 0.0  # nobody takes the row for a sample until it is whole
        for place, value in enumerate(values, start + 1):
            self._cells[place] = value
        self._cells[start] = now

    def rows(self, now: float) -> list[tuple[float, ...]]:
        """The samples of the last ten minutes and two seconds, oldest first: time, gauges, counters."""
        found = []
        for second in range(int(now) - _ROWS + 1, int(now) + 1):
            start = second % _ROWS * _WIDTH
            row = tuple(self._cells[start : start + _WIDTH])
            if row[0] and int(row[0]) == second and self._cells[start] == row[0]:
                found.append(row)
        return found

    def series(self, after: float | None = None) -> dict[str, Any]:
        """All series, ready for JSON: those of seconds that ended later than ``after``, a Unix time.

        ``newest`` is the Unix time of the last value, None where there is none; values are a second apart.
        """
        now = time.monotonic()
        to_unix = time.time() - now
        columns: list[list[float | None]] = [[] for _ in (*GAUGES, *RATES)]
        rows = self.rows(now)
        if after is not None:
            kept = sum(row[0] + to_unix > after + 0.5 for row in rows)
            rows = rows[-kept - 1 :] if kept else []
        elif rows:
            _append(columns, rows[0], [None] * len(RATES))
        for before, row in pairwise(rows):
            took = row[0] - before[0]
            first = 1 + len(GAUGES)
            rates = [(new - old) / took for old, new in zip(before[first:], row[first:], strict=True)]
            for _ in range(int(row[0]) - int(before[0])):  # a second without a sample has the next one's
                _append(columns, row, rates)
        latest = (column[-SECONDS:] for column in columns)
        return {
            "seconds": SECONDS,
            "newest": round(rows[-1][0] + to_unix, 3) if rows else after,
            "series": dict(zip((*GAUGES, *RATES), latest, strict=True)),
        }


def _append(columns: list[list[float | None]], row: tuple[float, ...], rates: list[Any]) -> None:
    gauges: list[float | None] = list(row[1 : 1 + len(GAUGES)])
    for column, value in zip(columns, gauges + rates, strict=True):
        column.append(None if value is None else round(value, 6))
