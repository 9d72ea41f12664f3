"""The reports of a directory over time: one line each, and a plot of every primary metric.

A line joins reports of one scenario whose conditions are equal (kernel, CPU, pinning, parameters); where
they change, a new line starts. What is drawn are absolute figures; ratios are judged
(:mod:`benchmarks.judge.trends`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.judge.comparable import differences
from benchmarks.reports.document import ReportError
from benchmarks.reports.drawing import Plot
from benchmarks.reports.figures import Figure, figures
from benchmarks.reports.report import Report
from benchmarks.show import plots, wording

if TYPE_CHECKING:
    from rich.console import Console

_SPARKS = "▁▂▃▄▅▆▇█"
_FIGURES_SHOWN = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """One report's line."""

    name: str
    created: str
    scenario: str
    revision: str
    figures: str


@dataclass(slots=True)
class History:
    """Reports in the order they were made, in sets of equal conditions, and the files that are none."""

    directory: str
    entries: list[Entry] = field(default_factory=list)
    sets: list[list[tuple[str, Report]]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def collect(directory: Path) -> History:
    """Read every ``*.json`` below ``directory``, but for directories such as ``.venv``.

    Raises ``ReportError`` where there is no report at all.
    """
    if not directory.is_dir():
        raise ReportError(f"{directory}: not a directory")
    found = History(str(directory))
    reports: list[tuple[str, Report]] = []
    for path in sorted(_files(directory)):
        try:
            reports.append((str(path.relative_to(directory).with_suffix("")), Report.load(path)))
        except ReportError as error:
            found.refused.append(str(error))
    if not reports:
        raise ReportError(
            f"{directory}: no report in it" + "".join(f"; {line}" for line in found.refused[:1])
        )
    reports.sort(key=lambda item: item[1].created)
    for name, report in reports:
        found.entries.append(_entry(name, report))
        for known in found.sets:
            if not differences(known[0][1], report)[0]:
                known.append((name, report))
                break
        else:
            found.sets.append([(name, report)])
    return found


def _files(directory: Path) -> Iterator[Path]:
    for parent, below, names in os.walk(directory):
        below[:] = [name for name in below if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if name.endswith(".json"))


def _entry(name: str, report: Report) -> Entry:
    leading = next((f for f in figures(report) if f.metric.primary), None)
    revision = (report.revision.commit[:7] or "-") + ("+" if report.revision.dirty else "")
    state = "" if report.complete else f" ({report.state})"
    return Entry(
        name, report.created[:16].replace("T", " "), report.scenario + state, revision, _shown(leading)
    )


def _shown(figure: Figure | None) -> str:
    if figure is None or not figure.shown:
        return "no primary metric"
    parts = [
        f"{server} {wording.quantity(value, figure.metric.unit)}" for server, value in figure.shown.items()
    ]
    more = f", {len(parts) - _FIGURES_SHOWN} more" if len(parts) > _FIGURES_SHOWN else ""
    return ", ".join(parts[:_FIGURES_SHOWN]) + more


def lines(members: list[tuple[str, Report]]) -> dict[str, tuple[Figure, dict[str, list[tuple[int, float]]]]]:
    """For each primary metric of a set of reports: each server's (place in the set, figure)."""
    result: dict[str, tuple[Figure, dict[str, list[tuple[int, float]]]]] = {}
    for place, (_, report) in enumerate(members):
        for figure in figures(report):
            if figure.metric.primary:
                _, servers = result.setdefault(figure.name, (figure, {}))
                for server, value in figure.shown.items():
                    servers.setdefault(server, []).append((place, value))
    return result


def plots_of(found: History) -> list[Plot]:
    """A drawing for every primary metric of every set with two reports or more."""
    drawn = []
    for members in found.sets:
        if len(members) > 1:
            dates = [report.created[5:10] for _, report in members]
            names = (
                dates
                if len(set(dates)) == len(dates)
                else [report.created[5:16].replace("T", " ") for _, report in members]
            )
            scenario = members[0][1].scenario
            for figure, servers in lines(members).values():
                title = f"{scenario}: {figure.metric.title}"
                drawn.append(plots.trend(title, figure.metric.unit, names, servers))
    return drawn


def told_apart(found: History) -> list[str]:
    """Why reports of one scenario are not joined: a line for each set but the first, naming what differs."""
    lines = []
    firsts: dict[str, Report] = {}
    for members in found.sets:
        first = members[0][1]
        known = firsts.setdefault(first.scenario, first)
        if known is not first:
            why = "; ".join(differences(known, first)[0])
            lines.append(f"{first.scenario}: {len(members)} reports from {members[0][0]} on are apart: {why}")
    return lines


def sparkline(values: list[float]) -> str:
    """One block a value, from 0 to the greatest."""
    top = max(values, default=0.0)
    return "".join(
        _SPARKS[round(value / top * (len(_SPARKS) - 1))] if top > 0 else _SPARKS[0] for value in values
    )


def print_history(found: History, console: Console) -> None:
    """A line a report, then a sparkline a server for what has more than one point."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for heading in ("report", "made (UTC)", "scenario", "revision", "figures"):
        table.add_column(heading, overflow="fold")
    for entry in found.entries:
        cells = (entry.name, entry.created, entry.scenario, entry.revision, entry.figures)
        table.add_row(*map(Text, cells))
    console.print(table)
    for members in found.sets:
        if len(members) < 2:
            continue
        for figure, servers in lines(members).values():
            console.print(Text(f"{members[0][1].scenario}: {figure.metric.title}", style="bold"))
            for server, points in servers.items():
                values = [value for _, value in points]
                ends = " → ".join(wording.quantity(v, figure.metric.unit) for v in (values[0], values[-1]))
                console.print(Text(f"  {server:<24} {sparkline(values)}  {ends}"))
    for line in found.refused:
        console.print(Text(f"left out: {line}", style="yellow"))
