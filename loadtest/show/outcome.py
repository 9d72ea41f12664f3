"""What a test has come to so far, in every form in which it is told: report, page, summary, conditions."""

from __future__ import annotations

from pathlib import Path
from time import time
from typing import Any

from loadtest.count.results import Results
from loadtest.count.thresholds import Threshold
from loadtest.run.load_test import LoadTest
from loadtest.show import console


class RunOutcome:
    """The outcome of one load test, at any time. Report and page load their libraries when they are made."""

    def __init__(self, load_test: LoadTest) -> None:
        self.load_test = load_test
        self.cut_short = False
        """Whether the run was interrupted before its ``--run-time``."""
        self._made: Any = None

    def report(self) -> Any:
        """The report (:class:`benchmarks.report.Report`)."""
        from loadtest.show.report import make_report

        load_test = self.load_test
        return make_report(
            load_test.record,
            load_test.plan,
            load_test.options,
            load_test.host,
            users=load_test.users_at_most,
            notes=load_test.notes,
            troubles=self._troubles(),
            spawned_at=load_test.spawned_at,
            complete=bool(load_test.stopped_at) and not self._troubles(),
            ended_at=load_test.stopped_at or time(),
        )

    def page(self, report: Any = None) -> str:
        """The report as an HTML page."""
        from loadtest.show.page import report_page  # draws with matplotlib, which takes a second to load

        load_test = self.load_test
        return report_page(
            report or self.report(),
            load_test.record,
            load_test.plan,
            load_test.users_at_most,
            troubles=self._troubles(),
            running=not load_test.stopped_at,
        )

    def summary(self) -> str:
        """The text for the console."""
        load_test = self.load_test
        text = console.summary(load_test.record, load_test.plan, load_test.users_at_most, self._troubles())
        return "\n".join([*load_test.notes, text])

    def _troubles(self) -> list[tuple[str, str]]:
        """Why the report is not complete, in words: a worker lost, clocks that differ, a run cut short."""
        cut = "the run was interrupted before its --run-time: its figures are those of a part"
        return [*([("cut-short", cut)] if self.cut_short else []), *self.load_test.troubles()]

    def write_report(self, path: str) -> None:
        """Write the report as JSON. Raises OSError."""
        self._final_report().save(path)

    def write_page(self, path: str) -> None:
        """Write the report as a page. Raises OSError."""
        Path(path).write_text(self.page(self._final_report()), encoding="utf-8")

    def _final_report(self) -> Any:
        """One report for both files, with one id."""
        if self._made is None:
            self._made = self.report()
        return self._made

    def broken_conditions(self) -> list[str]:
        """Which ``--fail-if`` conditions hold, and what was measured."""
        results = Results(self.load_test.record, self.load_test.workers_left)
        conditions = [Threshold.parse(text) for text in getattr(self.load_test.options, "fail_if", [])]
        return [reason for condition in conditions if (reason := condition.broken(results))]
