"""What a run shows while it goes on, and a table of medians at its end.

At a terminal a bar with the time left and what is being done right now; elsewhere a line a trial.
"""

from __future__ import annotations

import statistics
import textwrap
import time
from typing import Final, Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from benchmarks.judge.compare import Result
from benchmarks.reports.report import Metric, Report, Trial
from benchmarks.show.wording import number, warnings

HEADING_COLUMNS: Final = 12
"""A heading is folded to this width, so that a table of two metrics fits into a terminal of 80 columns."""


def shown(value: float, metric: Metric) -> str:
    """A value with three significant digits and its unit."""
    return f"{number(value)} {metric.unit}".rstrip()


def first_metric(report: Report) -> str | None:
    """The metric to show where there is room for one: the first that takes part in verdicts."""
    return next((name for name, metric in report.metrics.items() if metric.primary), None)


def measured(report: Report) -> str:
    """``medians of 2 blocks``: of those that have a trial, which of an interrupted run are not all."""
    blocks = len({trial.block for trial in report.trials})
    return f"medians of {blocks} block{'' if blocks == 1 else 's'}" if blocks else "nothing was measured"


def can_compare(report: Report) -> bool:
    """Whether two servers or more have a trial."""
    return len({trial.server for trial in report.trials}) > 1


def _line(text: Text, console: Console) -> None:
    """Text that a terminal folds between words, and that is one line for all else that reads it."""
    console.print(text, soft_wrap=not console.is_terminal)


def _end(value: float) -> str:
    """One end of a range, short, so that the table fits."""
    return f"{value:.2f}" if value < 10 else number(value)


class Progress:
    """Shows steps and trials on standard error."""

    def __init__(self, title: str, trials: int) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._bar = Bar(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[doing]}"), console=self.console,
        )  # fmt: skip
        self._task = self._bar.add_task(title, total=trials, doing="")
        self._live = Live(self._bar, console=self.console, refresh_per_second=4, transient=True)
        self._began = time.monotonic()

    def note(self, text: str) -> None:
        """A line that stays."""
        _line(Text(text), self.console)

    def step(self, text: str, server: str, block: int) -> None:
        """What is being done now."""
        self._bar.update(self._task, doing=f"block {block + 1}: {server}: {text}")

    def done(self, report: Report, trial: Trial | None) -> None:
        """A trial has ended; None if it failed."""
        self._bar.advance(self._task)
        name = first_metric(report)
        if trial is None:
            self.note(report.warnings[-1].message)
        elif name in trial.values:
            value = shown(trial.values[name], report.metrics[name])
            self.note(f"block {trial.block + 1}  {trial.server:18} {value}")

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.console.is_terminal:
            self._live.stop()


def summary(report: Report, console: Console) -> None:
    """Medians over the trials, the ratio to the first server paired by block, and the warnings, once each."""
    primary = first_metric(report)
    table = Table(
        title=f"{report.scenario}: {measured(report)}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )

    def add_column(heading: str) -> None:
        table.add_column(
            textwrap.fill(heading, HEADING_COLUMNS, break_long_words=False), justify="right", no_wrap=True
        )

    table.add_column("server", no_wrap=True)
    metrics = {n: m for n, m in report.metrics.items() if m.primary or console.width >= 130}
    for metric in metrics.values():
        add_column(f"{metric.title} [{metric.unit}]" if metric.unit else metric.title)
    add_column(f"ratio to {report.servers[0].name} (range)")
    add_column("busy: server, generator")
    base = {
        trial.block: trial.values.get(primary or "") for trial in report.trials_of(report.servers[0].name)
    }
    for server in report.servers:
        trials = report.trials_of(server.name)
        if not trials:
            table.add_row(server.name, *["-"] * (len(metrics) + 2))
            continue
        cells = []
        for name in metrics:
            values = [trial.values[name] for trial in trials if name in trial.values]
            cells.append(number(statistics.median(values)) if values else "-")
        ratios = [
            t.values[primary] / first for t in trials if primary in t.values and (first := base.get(t.block))
        ]
        cells.append(
            f"{number(statistics.median(ratios))} ({_end(min(ratios))}–{_end(max(ratios))})"
            if ratios
            else "-"
        )
        busy = [
            f"{statistics.median(trial.cpu[who] for trial in trials):.0%}"
            for who in ("server", "generator")
            if all(who in trial.cpu for trial in trials)
        ]
        table.add_row(server.name, *cells, " ".join(busy))
    console.print(table)
    for line in warnings(Result(labels=[report.id], reports=[report], margin=0, baseline="")):
        _line(Text(f"warning: {line}", style="yellow"), console)
    if not report.complete:
        console.print("[bold red]incomplete[/]: not all of it was measured")
