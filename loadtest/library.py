"""A load test from Python, without the ``locust`` command: run user classes, and ask what was measured.

::

    from loadtest.library import run
    done = run(StoreUser, host="tcp://127.0.0.1:7000", users=10, seconds=5, rate="200")
    assert done["errors"] == 0 and done.of("GET", "p50") < 2_000  # microseconds

Importing this imports Locust, which patches the standard library for gevent: do it before all else. The test
runs in this process, one at a time; ``locust`` itself has workers.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import gevent
from locust import User
from locust.env import Environment

from loadtest.attach import attach
from loadtest.count.results import Results
from loadtest.errors import OptionsError
from loadtest.run.load_test import LoadTest
from loadtest.run.options import own_options
from loadtest.show.outcome import RunOutcome
from loadtest.tcp_user import TcpUser


class Finished(Results):
    """What a run has come to: ``done["p99"]`` in microseconds, ``done.of("GET", "errors")``, reports."""

    def __init__(self, load_test: LoadTest, environment: Any) -> None:
        super().__init__(load_test.record)
        self._environment = environment  # the load test holds it weakly
        self.outcome = RunOutcome(load_test)
        """``report()``, ``page()``, ``summary()``, ``write_report(path)``, ``write_page(path)``."""

    @property
    def broken(self) -> list[str]:
        """The conditions of ``fail_if`` that the run has failed, with what was measured."""
        return self.outcome.broken_conditions()


def run(
    *classes: type[User],
    host: str | None = None,
    users: int = 1,
    seconds: float = 10.0,
    spawn_rate: float | None = None,
    **options: Any,
) -> Finished:
    """Run ``users`` of ``classes`` for ``seconds``, all started at once unless ``spawn_rate`` users a second.

    ``options`` are those of ``python -m loadtest --help``, with underscores: ``rate="200"``,
    ``fail_if=["p99>50ms"]``.
    Raises OptionsError.
    """
    known = own_options()
    for name in options:
        if name not in known:
            raise OptionsError(f"there is no option {name!r}")
    parsed = Namespace(**{**known, **options}, num_users=users, run_time=seconds, headless=True)
    environment = Environment(user_classes=list(classes), host=host, parsed_options=parsed)
    runner = environment.create_local_runner()
    load_test = attach(environment, [each for each in classes if issubclass(each, TcpUser)])
    try:
        if environment.shape_class is not None:
            runner.start_shape()
            gevent.joinall([greenlet for greenlet in (runner.shape_greenlet,) if greenlet], timeout=seconds)
        else:
            runner.start(users, spawn_rate or users)
            gevent.sleep(seconds)
    finally:
        runner.quit()
        load_test.collect()
        load_test.end()
    return Finished(load_test, environment)
