"""Puts a load test together when Locust has started: the only place that knows all of its parts.

:mod:`loadtest.tcp_user` calls it for each environment that Locust makes; whoever uses Locust as a library
calls it once the environment has its runner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gevent
from locust.runners import WorkerRunner

from chat_gevent.files import raise_file_limit
from loadtest.run.finishing import Finishing
from loadtest.run.load_test import LoadTest, load_test_of
from loadtest.run.options import check_used, read_client_options, read_plan
from loadtest.run.sending import check_sending
from loadtest.run.shapes import make_shape
from loadtest.run.stopping import Stopping
from loadtest.show import locust_tables, web
from loadtest.show.outcome import RunOutcome


def attach(environment: Any, classes: Sequence[Any] = ()) -> LoadTest:
    """Attach a load test to ``environment``, which has its runner, and return it.

    ``classes`` are its TCP users: their hosts are checked where the environment has none, and options that
    none of them goes by are refused. Raises OptionsError.
    """
    load_test = load_test_of(environment)
    raise_file_limit()
    locust_tables.install()
    _check(environment, load_test, classes)
    load_test.attach()
    Stopping(load_test).attach()
    if not isinstance(environment.runner, WorkerRunner):
        _attach_end(environment, load_test)
    load_test.collect_each_second()
    # Timers count from the time that the loop knows, and it has not run since before all was imported:
    # of a short --run-time, a slow start would have taken the most part.
    gevent.get_hub().loop.update_now()
    return load_test


def _check(environment: Any, load_test: LoadTest, classes: Sequence[Any]) -> None:
    """What can be known to be wrong before the test. Raises OptionsError."""
    load_test.uses = [(each.__name__, each.uses()) for each in classes]
    load_test.kinds = [(str(environment.host or each.host or ""), each.framing) for each in classes]
    check_used(load_test.options, load_test.uses)
    plan = read_plan(load_test.options)
    check_sending(load_test.options, load_test.uses, load_test.kinds)
    if environment.host:
        read_client_options(load_test.options, environment.host, plan)
    elif getattr(load_test.options, "headless", False) and not isinstance(environment.runner, WorkerRunner):
        for each in classes:
            read_client_options(load_test.options, each.host or "", plan)


def _attach_end(environment: Any, load_test: LoadTest) -> None:
    """What the process has that sees the whole test. Raises OptionsError."""
    outcome = RunOutcome(load_test)
    Finishing(load_test, outcome).attach()
    own_shape = environment.shape_class is None  # a locustfile's shape is left alone
    if own_shape:
        environment.shape_class = make_shape(load_test, load_test.options)
    if environment.web_ui is not None:
        web.attach(outcome, environment.web_ui, own_shape=own_shape)
