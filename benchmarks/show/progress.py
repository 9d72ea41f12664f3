"""What a run shows while it goes on, and a table of medians at its end.

At a terminal a bar with the time left and what is being done right now; elsewhere a line a trial.
"""

from __future__ import annotations

import time
from typing import Self

import rich.console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from benchmarks.judge.compare import Result
from benchmarks.reports.report import Metric, Report, Trial
from benchmarks.show import fired
from benchmarks.show.console import Console
from benchmarks.show.summary import summarize
from benchmarks.show.wording import number


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


def _line(text: Text, console: rich.console.Console) -> None:
    """Text that a terminal folds between words, and that is one line for all else that reads it."""
    console.print(text, soft_wrap=not console.is_terminal)


class Progress:
    """Shows steps and trials on standard error."""

    def __init__(self, title: str, trials: int) -> None:
        self.console = Console(stderr=True)
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


def summary(report: Report, console: rich.console.Console, verbose: bool = False) -> None:
    """Medians over the trials, the ratio to the first server paired by block, and the warnings, grouped."""
    made = summarize(report, console.width)
    console.print(Text(f"{report.scenario}: {measured(report)}", style="italic"))
    console.print(made.table)
    for line in made.legend:
        _line(Text(line, style="dim"), console)
    result = Result(labels=[report.id], reports=[report], margin=0, baseline="")
    for line in fired.each(result) if verbose else fired.grouped(result):
        _line(Text(f"warning: {line}", style="yellow"), console)
    if not report.complete:
        console.print("[bold red]incomplete[/]: not all of it was measured")
