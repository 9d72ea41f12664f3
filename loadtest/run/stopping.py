"""How a test stops without requests in flight, a backlog, or lost counts of Locust's own making.

Locust takes its time from being told to stop until the last user is dead, and its master waits half a second
for the last reports when it quits, however long its workers take to stop. So the runner's ``stop`` is
replaced: no user falls due any more once it is called, and a master that quits has its workers stop, report
and say so before.
"""

from __future__ import annotations

import inspect
from time import perf_counter
from typing import Any, Final

import gevent
from gevent.lock import RLock
from locust.runners import (
    STATE_INIT,
    STATE_RUNNING,
    STATE_SPAWNING,
    STATE_STOPPED,
    MasterRunner,
    WorkerRunner,
)

from loadtest.run.load_test import LoadTest

LAST_REPORTS_SECONDS: Final = 5.0
"""For how long a master waits for its workers' last reports, beside ``--stop-timeout``."""
_STOP_MESSAGE: Final = "loadtest_stop"
_STOPPED_MESSAGE: Final = "loadtest_stopped"


class Stopping:
    """Stops the tests of one load test."""

    def __init__(self, load_test: LoadTest) -> None:
        self._load_test = load_test
        self._one_stop = RLock()
        self._stopped_workers: set[str] = set()

    @property
    def _runner(self) -> Any:
        return self._load_test.environment.runner

    def attach(self) -> None:
        """Replace the runner's ``stop``."""
        runner = self._runner
        if isinstance(runner, MasterRunner):
            runner.register_message(_STOPPED_MESSAGE, self._on_worker_stopped)
            runner.stop = self._stop_master  # type: ignore[method-assign]
            return
        if isinstance(runner, WorkerRunner):
            runner.register_message(_STOP_MESSAGE, self._on_stop_message, concurrent=True)
            self._load_test.environment.events.quitting.add_listener(self._on_worker_quitting)
        inspect.stack()  # Locust's stop calls it; the first call blocks for 17 to 57 ms, later ones 0.2
        runner.stop = self._stop

    def _stop(self) -> None:
        """Note when the test stops, let in what is on its way, and only then have Locust stop the users.

        A user that fell due in the meantime would send and be killed at once.
        """
        runner = self._runner
        with self._one_stop:  # a second one, which an interrupt may ask for, returns when all is done
            self._load_test.stop_sending()
            type(runner).stop(runner)

    def _stop_master(self, send_stop_to_client: bool = True) -> None:
        """Before workers are told to quit, have them stop and report; Locust only waits a moment."""
        runner = self._runner
        was_running = runner.state in (STATE_SPAWNING, STATE_RUNNING)
        type(runner).stop(runner, send_stop_to_client)  # first, or it would give a worker's users to others
        if was_running and not send_stop_to_client:
            self._stopped_workers.clear()
            runner.send_message(_STOP_MESSAGE)
            until = perf_counter() + self._load_test.environment.stop_timeout + LAST_REPORTS_SECONDS
            while self._workers_running(runner) and perf_counter() < until:
                gevent.sleep(0.01)

    def _workers_running(self, runner: MasterRunner) -> bool:
        running = runner.clients.spawning + runner.clients.running
        return any(worker.id not in self._stopped_workers for worker in running)

    def _on_worker_stopped(self, msg: Any, **_: Any) -> None:
        self._stopped_workers.add(msg.node_id)

    def _on_stop_message(self, **_: Any) -> None:
        runner = self._runner
        runner.stop()
        runner._send_stats()
        runner.send_message(_STOPPED_MESSAGE)

    def _on_worker_quitting(self, **_: Any) -> None:
        """A worker that is interrupted itself (Ctrl-C goes to all ``--processes``) would leave unreported."""
        runner = self._runner
        if runner.state not in (STATE_INIT, STATE_STOPPED):
            runner.stop()
            runner._send_stats()
