"""One report on a terminal: every server's figures, the checks that fired, where it was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.judge.comparable import flatten, said
from benchmarks.judge.compare import Result
from benchmarks.reports.figures import figures
from benchmarks.reports.report import Report
from benchmarks.show import fired, wording

if TYPE_CHECKING:
    from rich.console import Console


def print_report(report: Report, console: Console, verbose: bool = False) -> None:
    """The report in tables that fit 80 columns: one for each metric, with the best server first."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    dirty = " with changes" if report.revision.dirty else ""
    console.print(
        Text(
            f"{report.scenario}, {report.created}, {len(report.trials)} trials, {report.state}", style="bold"
        )
    )
    console.print(Text(f"revision {report.revision.commit[:10] or 'unknown'}{dirty}", style="dim"))
    for figure in figures(report):
        unit = figure.metric.unit
        table = Table(
            title=Text(f"{figure.metric.title} ({figure.metric.better} is better)", style="bold"),
            title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1),
        )  # fmt: skip
        table.add_column("server", overflow="fold")
        for heading in ("figure", "lowest", "highest", "trials"):
            table.add_column(heading, justify="right", no_wrap=True)
        for server in figure.ranked:
            value = figure.shown[server]
            values = [sample.value for sample in figure.samples[server]]
            ends = [
                wording.quantity(end(values), figure.metric.unit) if values else "–" for end in (min, max)
            ]
            table.add_row(*map(Text, (server, wording.quantity(value, unit), *ends, str(len(values)))))
        console.print(table)
    for name, facts in (("parameters", report.parameters), ("environment", report.environment)):
        said_facts = ", ".join(f"{key} {said(value)}" for key, value in flatten(facts))
        console.print(Text(f"{name}: {said_facts}", style="dim"))
    result = Result(labels=[report.id], reports=[report], margin=0, baseline="")
    for line in fired.each(result) if verbose else fired.grouped(result):
        console.print(Text(f"warning: {line}", style="yellow"))
