"""What happens when a test ends: the last counts, the summary, the report files, the exit status.

Runs in the process that has the whole picture: the only one, or the master. Locust fires ``quitting``
before it has stopped the users of an interrupted run, so the runner is told to quit first; workers then
send what they had not reported yet, and the report has it. What is told and written is made by the
:class:`Outcome` that is handed in.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from loadtest.client.address import SourcePool, ports_per_address
from loadtest.count.counters import CONNECTION
from loadtest.count.health import advice
from loadtest.errors import OptionsError
from loadtest.run.load_test import LoadTest

EXIT_FAILED_CONDITION: Final = 3
"""Exit status of a run that a ``--fail-if`` condition failed."""

logger = logging.getLogger("loadtest")


class Outcome(Protocol):
    """What a test has come to, for people and files (:class:`loadtest.show.outcome.RunOutcome`)."""

    cut_short: bool

    def summary(self) -> str:
        """The text for the console."""

    def write_report(self, path: str, /) -> None:
        """Write the report as JSON. Raises OSError."""

    def write_page(self, path: str, /) -> None:
        """Write the report as a page. Raises OSError."""

    def broken_conditions(self) -> list[str]:
        """Which ``--fail-if`` conditions hold, and what was measured."""


class Finishing:
    """Ends the tests of one load test."""

    def __init__(self, load_test: LoadTest, outcome: Outcome) -> None:
        self._load_test = load_test
        self._outcome = outcome

    def attach(self) -> None:
        """Listen to what Locust says. Raises OptionsError for files that can't be written."""
        self._check_files()
        events = self._load_test.environment.events
        events.test_start.add_listener(self._on_start)
        events.quitting.add_listener(self._on_quitting)
        self._load_test.after_collecting.append(self._end_when_done)

    def _check_files(self) -> None:
        """A report that can't be written is known before the test. Raises OptionsError."""
        for name in ("report", "report_html"):
            path = getattr(self._load_test.options, name, "")
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
        load_test = self._load_test
        runner = load_test.environment.runner
        pool = getattr(load_test.options, "source_addresses", "")
        sources = len(SourcePool.parse(pool)) if pool else 1
        processes = getattr(runner, "worker_count", 1)
        if not load_test.host.startswith("unix:"):
            for text in advice(runner.target_user_count, processes, sources, ports_per_address()):
                logger.warning(text)

    def _end_when_done(self) -> None:
        """Users that have sent their ``--messages`` stop; when the last one has, the test is over."""
        load_test = self._load_test
        environment = load_test.environment
        if (
            load_test.spawned_at
            and not load_test.stopped_at
            and load_test.plan.messages
            and not environment.runner.user_count
        ):
            if environment.web_ui is None:
                environment.runner.quit()
            else:
                environment.runner.stop()

    def _on_quitting(self, environment: Any, **_: Any) -> None:
        runner = environment.runner
        if runner is not None and runner.state not in ("ready", "stopped"):
            if runner.state in ("spawning", "running"):  # a master that has ended its run is still "stopping"
                self._outcome.cut_short = bool(getattr(self._load_test.options, "run_time", None))
            runner.quit()
        self._load_test.collect()
        if self._load_test.record.entries:
            logging.getLogger("locust.stats_logger").info("%s\n", self._outcome.summary())
            self._write("report", self._outcome.write_report)
            self._write("report_html", self._outcome.write_page)
        elif environment.web_ui is not None:
            return  # the page was looked at, and no test started
        reasons = self._outcome.broken_conditions()
        for reason in reasons:
            sys.stderr.write(f"failed: {reason}\n")
        if reasons:
            environment.process_exit_code = EXIT_FAILED_CONDITION
        elif environment.process_exit_code is None and self._nothing_passed():
            sys.stderr.write("failed: nothing was answered\n")
            environment.process_exit_code = self._load_test.options.exit_code_on_error

    def _nothing_passed(self) -> bool:
        """Whether nobody has had an answer, though perhaps no request failed in Locust's eyes either.

        A run may be over before its first connect has failed, or while first replies are waited for. Where
        clients only hold their connections, to connect is enough; requests of other kinds of users are in
        Locust's own figures.
        """
        load_test = self._load_test
        environment = load_test.environment
        entries = load_test.record.entries
        passed = any(
            kept.passed and (load_test.plan.hold or kept.kind != CONNECTION) for kept in entries.values()
        )
        others = [each for each in environment.stats.entries.values() if each.name not in entries]
        return not passed and not any(each.num_requests > each.num_failures for each in others)

    def _write(self, option: str, write: Callable[[str], None]) -> None:
        """Write a file that was asked for; one that can't be written is one line, and exit status 1."""
        path = getattr(self._load_test.options, option, "")
        if not path:
            return
        try:
            write(path)
            logger.info("report written to %s", path)
        except OSError as error:
            sys.stderr.write(f"{path}: {error.strerror}\n")
            self._load_test.environment.process_exit_code = 1
