"""Locust's own tables, with the precision that a TCP server on the same machine needs.

Locust rounds response times to whole milliseconds and prints whole milliseconds, so everything below
0.5 ms is 0. :func:`install` replaces Locust's rounding (a module-level function that is meant to be
replaced: docs.locust.io, "Customizing response time bucketing") by three significant digits, and
the three methods that print a row by ones that print them.
"""

from __future__ import annotations

from typing import Any

from locust import stats


def three_digits(milliseconds: float) -> float:
    """Round to three significant digits, 1 µs at the finest."""
    if milliseconds < 1:
        return int(milliseconds * 1000 + 0.5) / 1000
    if milliseconds < 10:
        return int(milliseconds * 100 + 0.5) / 100
    if milliseconds < 100:
        return int(milliseconds * 10 + 0.5) / 10
    if milliseconds < 1000:
        return int(milliseconds + 0.5)
    if milliseconds < 10_000:
        return int(milliseconds / 10 + 0.5) * 10
    return int(milliseconds / 100 + 0.5) * 100


def show(milliseconds: float | None) -> str:
    """Three significant digits in at most six characters: ``0.137``, ``1.37``, ``13.7``, ``137``."""
    return f"{three_digits(milliseconds or 0):.6g}"


def _to_string(self: Any, current: bool = True) -> str:
    name_width = stats.STATS_NAME_WIDTH - stats.STATS_TYPE_WIDTH + 4
    rate = self.current_rps if current else self.total_rps
    failing = self.current_fail_per_sec if current else self.total_fail_per_sec
    failures = f"{self.num_failures}({self.fail_ratio:.2%})"
    return (
        f"{self.method or '':<{stats.STATS_TYPE_WIDTH}}"
        f"{self.name:<{name_width}} {self.num_requests:>7} {failures:>12} |"
        f"{show(self.avg_response_time):>7} {show(self.min_response_time):>7} "
        f"{show(self.max_response_time):>7}"
        f"{show(self.median_response_time):>7} | {rate or 0:>7.2f} {failing or 0:>11.2f}"
    )


def _percentile(self: Any) -> str:
    if not self.num_requests:
        raise ValueError("Can't calculate percentile on url with no successful requests")
    columns = [show(self.get_response_time_percentile(p)) for p in stats.PERCENTILES_TO_REPORT]
    row = " ".join(
        [f"{columns[0]:>8}", *(f"{column:>6}" for column in columns[1:]), f"{self.num_requests:>6}"]
    )
    return f"{self.method or '':<{stats.STATS_TYPE_WIDTH}} {self.name:<{stats.STATS_NAME_WIDTH}} {row}"


def install() -> None:
    """Replace the rounding and the rows, for this process; harmless where it was done before."""
    if stats.bucket_response_time is three_digits:
        return
    entry: Any = stats.StatsEntry
    module: Any = stats
    plain_to_dict = entry.to_dict

    def to_dict(self: Any, escape_string_values: bool = False) -> dict[str, Any]:
        row: dict[str, Any] = plain_to_dict(self, escape_string_values)
        row["min_response_time"] = three_digits(self.min_response_time or 0)
        row["max_response_time"] = three_digits(self.max_response_time)
        row["avg_response_time"] = three_digits(self.avg_response_time)
        return row

    module.bucket_response_time = three_digits
    entry.to_string = _to_string
    entry.percentile = _percentile
    entry.to_dict = to_dict
