"""What happens when a test ends: the last counts, the summary, the report files, the exit status.

Runs in the process that has the whole picture: the only one, or the master. Locust fires ``quitting``
before it has stopped the users of an interrupted run, so the runner is told to quit first; workers then
send what they had not reported yet, and the report has it.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from time import time
from typing import Any, Final

from loadtest.client.address import SourcePool, ports_per_address
from loadtest.count.health import advice
from loadtest.count.thresholds import Threshold
from loadtest.run.load_test import Kit
from loadtest.run.options import OptionsError, Plan, own_options, read_plan
from loadtest.run.shapes import make_shape
from loadtest.show.tables import Figures, summary

EXIT_FAILED_CONDITION = 3
"""Exit status of a run that a ``--fail-if`` condition failed."""

logger = logging.getLogger("loadtest")

UNKNOWN_HOST: Final = "unknown"
"""What a report says of where the users connected to, before anybody has said it."""


class Finish:
    """Ends the tests of one kit."""

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self.spawned_at = 0.0
        self.stopped_at = 0.0
        self.cut_short = False
        """Whether the run was interrupted before its ``--run-time``."""
        self.notes: list[str] = []
        """What a shape found, in words."""
        self.own_options = own_options()
        self.foreign_shape = kit.environment.shape_class is not None
        """Whether the locustfile has a shape of its own, which ours then leave alone."""
        kit.finish = self

    def attach(self) -> None:
        """Listen to what Locust says."""
        environment = self.kit.environment
        self._check_files()
        if not self.foreign_shape:
            environment.shape_class = make_shape(self, self.kit.options)
        if environment.web_ui is not None:
            from loadtest.show import web

            web.attach(self, environment.web_ui)
        events = environment.events
        events.test_start.add_listener(self._on_start)
        events.spawning_complete.add_listener(self._on_spawned)
        events.test_stopping.add_listener(self._on_stopping)
        events.test_stop.add_listener(self._on_stop)
        events.quitting.add_listener(self._on_quitting)

    def _check_files(self) -> None:
        """A report that can't be written is known before the test. Raises OptionsError."""
        for name in ("report", "report_html"):
            path = getattr(self.kit.options, name, "")
            if not path:
                continue
            folder = Path(path).parent
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OptionsError(f"{folder}: {error.strerror}") from None
            if not os.access(folder, os.W_OK) or Path(path).is_dir():
                raise OptionsError(f"{path}: can't be written")

    def _on_start(self, **_: Any) -> None:
        self.spawned_at = self.stopped_at = 0.0
        self.notes.clear()
        runner, options = self.kit.environment.runner, self.kit.options
        pool = getattr(options, "source_addresses", "")
        sources = len(SourcePool.parse(pool)) if pool else 1
        processes = getattr(runner, "worker_count", 1)
        if not self.host.startswith("unix:"):
            for text in advice(runner.target_user_count, processes, sources, ports_per_address()):
                logger.warning(text)

    def _on_spawned(self, **_: Any) -> None:
        self.spawned_at = self.kit.tally.spawned_at = self.spawned_at or time()

    def _on_stopping(self, **_: Any) -> None:
        self.kit.tally.stopping_at = min(self.kit.tally.stopping_at, time())

    def _on_stop(self, **_: Any) -> None:
        self.kit.collect()
        self.stopped_at = time()

    def end_when_done(self) -> None:
        """Users that have sent their ``--messages`` stop; when the last one has, the test is over."""
        environment = self.kit.environment
        if (
            self.spawned_at
            and not self.stopped_at
            and self.plan.messages
            and not environment.runner.user_count
        ):
            if environment.web_ui is None:
                environment.runner.quit()
            else:
                environment.runner.stop()

    @property
    def plan(self) -> Plan:
        """The plan of the test; a user class may have a framing of its own, which changes nothing here."""
        return read_plan(self.kit.options)

    @property
    def host(self) -> str:
        """Where the users connect to."""
        environment = self.kit.environment
        hosts = [str(user.host) for user in environment.user_classes if user.host]
        return str(environment.host or (hosts[0] if hosts else "") or UNKNOWN_HOST)

    def report(self) -> Any:
        """The report of the test so far."""
        from loadtest.show.report import make_report

        return make_report(
            self.kit.tally,
            self.plan,
            self.kit.options,
            self.host,
            users=self.kit.users_at_most,
            notes=self.notes,
            spawned_at=self.spawned_at,
            complete=bool(self.stopped_at) and not self.cut_short,
            ended_at=self.stopped_at or time(),
        )

    def summary(self) -> str:
        """The summary of the test so far."""
        text = summary(self.kit.tally, self.plan, self.kit.users_at_most)
        return "\n".join([*self.notes, text])

    def _on_quitting(self, environment: Any, **_: Any) -> None:
        runner = environment.runner
        if runner is not None and runner.state not in ("ready", "stopped"):
            self.cut_short = bool(getattr(self.kit.options, "run_time", None))
            runner.quit()
        self.kit.collect()
        if self.kit.tally.entries:
            logging.getLogger("locust.stats_logger").info("%s\n", self.summary())
            self._write()
        elif environment.web_ui is not None:
            return  # the page was looked at, and no test started
        reasons = self.broken()
        for reason in reasons:
            sys.stderr.write(f"failed: {reason}\n")
        if reasons:
            environment.process_exit_code = EXIT_FAILED_CONDITION

    def broken(self) -> list[str]:
        """Which ``--fail-if`` conditions hold, and what was measured."""
        figures = Figures(self.kit.tally)
        conditions = [Threshold.parse(text) for text in getattr(self.kit.options, "fail_if", [])]
        return [reason for condition in conditions if (reason := condition.broken(figures))]

    def _write(self) -> None:
        """Write the files that were asked for; one that can't be written is one line, and exit status 1."""
        options = self.kit.options
        paths = getattr(options, "report", ""), getattr(options, "report_html", "")
        if not any(paths):
            return
        report = self.report()
        for path, write in zip(paths, (report.save, self._write_html(report)), strict=True):
            if not path:
                continue
            try:
                write(path)
                logger.info("report written to %s", path)
            except OSError as error:
                sys.stderr.write(f"{path}: {error.strerror}\n")
                self.kit.environment.process_exit_code = 1

    def _write_html(self, report: Any) -> Any:
        def write(path: str) -> None:
            from loadtest.show.page import report_page  # draws with matplotlib, which takes a second to load

            Path(path).write_text(
                report_page(report, self.kit.tally, self.plan, self.kit.users_at_most), encoding="utf-8"
            )

        return write
