"""The checks that fired in the reports of a comparison, in sentences."""

from __future__ import annotations

from typing import Final

from benchmarks.judge.compare import Result
from benchmarks.reports.report import Fired

NAMED: Final = 4
"""Most servers that a line names; more are counted."""


def each(result: Result) -> list[str]:
    """The checks that fired, one line for each kind and server, with how often."""
    lines = []
    for label, report in zip(result.labels, result.reports, strict=True):
        counts: dict[tuple[str, str | None], list[str]] = {}
        for fired in report.warnings:
            counts.setdefault((fired.check, fired.server), []).append(fired.message)
        for (check, server), messages in counts.items():
            who = f" {server}:" if server else ""
            where = f"{label}: " if len(result.labels) > 1 else ""
            often = f" ({len(messages)} times; the last is shown)" if len(messages) > 1 else ""
            lines.append(f"{where}{check}:{who} {messages[-1]}{often}")
    return lines


def grouped(result: Result, most: int = 10) -> list[str]:
    """The checks that fired, one line for each kind with the servers that it fired for; at most ``most``."""
    lines = []
    for label, report in zip(result.labels, result.reports, strict=True):
        fired: dict[str, list[Fired]] = {}
        for one in report.warnings:
            fired.setdefault(one.check, []).append(one)
        where = f"{label}: " if len(result.labels) > 1 else ""
        for check, all_of_it in fired.items():
            names = list(dict.fromkeys(one.server for one in all_of_it if one.server))
            who = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
            often = f" ({len(all_of_it)} times; the last is shown)" if len(all_of_it) > 1 else ""
            lines.append(f"{where}{check}:{f' {who}:' if who else ''} {all_of_it[-1].message}{often}")
    if len(lines) > most:
        lines[most - 1 :] = [f"{len(lines) - most + 1} more kinds of warnings: -v shows them all"]
    return lines
