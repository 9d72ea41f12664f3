"""What ties the users, the measures and Locust together: one :class:`Kit` for each Locust environment.

In every process a greenlet collects at each whole second what the users counted. In a single process the
:class:`Tally` it goes to is the run's. A worker sends its tally with Locust's own reports
(``report_to_master``) and starts a new one; the master adds them (``worker_report``). Locust's master
waits half a second for the last of them when it quits, however long its workers take to stop; so ours has
them stop, report and say so before.
"""

from __future__ import annotations

import gc
import inspect
import math
import os
import resource
import socket
import sys
import weakref
from collections.abc import Iterator
from itertools import islice
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, Final

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

from loadtest.client.transport import Settings
from loadtest.count.counters import Measures
from loadtest.count.health import Sampler
from loadtest.count.run_record import Tally
from loadtest.framing import Framing
from loadtest.messages import Exchange, make_ring
from loadtest.run.alarm import Alarm
from loadtest.run.options import OptionsError, Plan, read_plan, read_settings
from loadtest.schedule import Schedule
from loadtest.show import locust_tables

if TYPE_CHECKING:
    from loadtest.run.finishing import Finish

_kits: weakref.WeakKeyDictionary[Any, Kit] = weakref.WeakKeyDictionary()
_STRIDE: Final = 389
"""How far apart neighbouring users start in the ring: a prime, so that all places are used."""


def kit_of(environment: Any) -> Kit:
    """The kit of a Locust environment, made at the first call."""
    try:
        return _kits[environment]
    except KeyError:
        kit = _kits[environment] = Kit(environment)
        return kit


def raise_file_limit() -> None:
    """Let this process open as many files as the system allows it; Locust itself stops at 10,000."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


LAST_REPLIES_SECONDS: Final = 0.1
"""For how long a stop waits for the replies to what was due before it; what has none then is aborted."""
_USERS_MESSAGE: Final = "loadtest_users"
_STOP_MESSAGE: Final = "loadtest_stop"
_STOPPED_MESSAGE: Final = "loadtest_stopped"
LAST_REPORTS_SECONDS: Final = 5.0
"""For how long a master waits for its workers' last reports, beside ``--stop-timeout``."""
_USERS_EACH: Final = 1_000_000
"""Users that a worker may number before the next worker's numbers begin."""
_GOLDEN: Final = 0.6180339887498949
"""Multiples of the golden ratio, modulo 1, fill an interval evenly, however many there are."""


class Kit:
    """Plans, messages, schedules, measures and tallies of one environment."""

    def __init__(self, environment: Any) -> None:
        self._environment = weakref.ref(environment)
        self.measures = Measures()
        self.tally = Tally()
        self.sampler = Sampler(self.measures)
        self._plans: dict[tuple[str, Framing | None], tuple[Plan, Settings]] = {}
        self._rings: dict[tuple[Framing, int], list[Exchange]] = {}
        self._schedules: set[Schedule] = set()
        self._users = 0
        self._one_stop = RLock()
        self._stopped_workers: set[str] = set()
        self._alarm: Alarm | None = None
        self.stopping_at = math.inf
        """When (``time.perf_counter``) the test was told to stop: what is due later was never intended."""
        self.over = False
        """Whether the test has been stopped, and what was counted is the run's for good."""
        self.users_at_most = 0
        """Most users of the whole test at a time, for what is told at its end."""
        self.finish: Finish | None = None
        self.process = f"{socket.gethostname()}:{os.getpid()}"
        self._collector: gevent.Greenlet[[], None] | None = None
        self._told_users = 0
        environment.events.test_start.add_listener(self._on_test_start)
        environment.events.spawning_complete.add_listener(self._on_spawned)
        environment.events.test_stop.add_listener(self._on_stopped)
        environment.events.reset_stats.add_listener(self._on_reset)

    @property
    def environment(self) -> Any:
        """The environment, which outlives its kit."""
        environment = self._environment()
        assert environment is not None
        return environment

    @property
    def options(self) -> Any:
        """The options as they are now; the web form may have changed them since the start."""
        return self.environment.parsed_options

    # -- for users -------------------------------------------------------------------------------

    def plan_for(self, host: str, framing: Framing | None) -> tuple[Plan, Settings]:
        """The plan and the settings of users with this host. Raises OptionsError."""
        key = (host, framing)
        try:
            return self._plans[key]
        except KeyError:
            plan = read_plan(self.options, framing)
            found = self._plans[key] = plan, read_settings(self.options, host, plan)
            self.measures.sources = len(found[1].sources or [None])
            return found

    @property
    def alarm(self) -> Alarm:
        """What wakes paced users; made at its first use, in the process that has the users."""
        if self._alarm is None:
            self._alarm = Alarm()
            self._alarm.last_call(self.stopping_at)
        return self._alarm

    def next_user(self) -> int:
        """A number that no other user of the test has."""
        self._users += 1
        worker = max(0, getattr(self.environment.runner, "worker_index", 0))
        return worker * _USERS_EACH + self._users - 1

    def exchanges(self, user: Any, plan: Plan) -> Iterator[Exchange]:
        """The messages of one user, without end."""
        if plan.template is not None:
            return plan.template.exchanges(plan.framing, user.number)
        ring = self._ring(plan)
        return _walk(ring, user.number * _STRIDE % len(ring))

    def _ring(self, plan: Plan) -> list[Exchange]:
        key = (plan.framing, plan.message_size)
        if key not in self._rings:
            self._rings[key] = make_ring(plan.framing, plan.message_size)
        return self._rings[key]

    def interval(self, plan: Plan) -> float:
        """Seconds from one message of a user to the next."""
        return 1 / (plan.rate if plan.rate_per_user else plan.rate / max(1, self.total_users))

    @property
    def total_users(self) -> int:
        """Users of the whole test, in all processes."""
        runner = self.environment.runner
        if isinstance(runner, WorkerRunner):
            told = getattr(self.options, "tcp_total_users", None)
            return int(told or runner.target_user_count or 1)
        return int(runner.target_user_count) if runner else 1

    def schedule(self, user: Any, plan: Plan, batch: int = 1, most: float = math.inf) -> Schedule:
        """A schedule whose first start is set off from the other users', so that they don't send in step."""
        interval = self.interval(plan)
        first = perf_counter() + interval * batch * (user.number * _GOLDEN % 1)
        schedule = Schedule(first, interval, batch, most)
        self._schedules.add(schedule)
        return schedule

    def end_schedule(self, schedule: Schedule) -> None:
        """A user stops: what was due by now was intended, whether or not it was sent."""
        self._schedules.discard(schedule)
        self.measures.intended += schedule.newly_due(min(perf_counter(), self.stopping_at))

    def _count_intended(self) -> None:
        """Count the messages whose intended start has come since the last time, sent or not."""
        now = min(perf_counter(), self.stopping_at)
        self.measures.intended += sum(schedule.newly_due(now) for schedule in self._schedules)

    # -- for Locust ------------------------------------------------------------------------------

    def attach(self) -> None:
        """Called once Locust has its runner: check the options, raise limits, start collecting."""
        self.process = f"{socket.gethostname()}:{os.getpid()}"
        raise_file_limit()
        locust_tables.install()
        environment = self.environment
        try:
            plan = read_plan(self.options)
            if environment.host:
                read_settings(self.options, environment.host, plan)
            elif getattr(self.options, "headless", False) and not isinstance(
                environment.runner, WorkerRunner
            ):
                from loadtest.tcp_user import TcpUser  # which needs this module

                for user_class in environment.user_classes:
                    if issubclass(user_class, TcpUser):  # others' hosts are none of ours
                        read_settings(self.options, user_class.host or "", plan)
        except OptionsError as error:
            sys.stderr.write(f"locust: error: {error}\n")
            sys.exit(2)
        runner = environment.runner
        events = environment.events
        if isinstance(runner, MasterRunner):
            events.worker_report.add_listener(self._on_worker_report)
            runner.register_message(_STOPPED_MESSAGE, self._on_worker_stopped)
            runner.stop = self._stop_master  # type: ignore[method-assign]
        elif isinstance(runner, WorkerRunner):
            events.report_to_master.add_listener(self._on_report_to_master)
            runner.register_message(_USERS_MESSAGE, self._on_users)
            runner.register_message(_STOP_MESSAGE, self._on_stop_message, concurrent=True)
            events.quitting.add_listener(self._on_worker_quitting)
        if not isinstance(runner, MasterRunner):
            inspect.stack()  # Locust's stop calls it; the first call blocks for 17 to 57 ms, later ones 0.2
            runner.stop = self._stop
        if not isinstance(runner, WorkerRunner):
            from loadtest.run.finishing import Finish

            try:
                Finish(self).attach()
            except OptionsError as error:
                sys.stderr.write(f"locust: error: {error}\n")
                sys.exit(2)
        self._collector = gevent.spawn(self._collect_forever)

    def _stop(self) -> None:
        """Note when the test stops, let in what is on its way, and only then have Locust stop the users.

        Locust takes its time from being told to stop until the last user is dead. Who fell due meanwhile
        would send and be killed at once: a request in flight, and a backlog, of Locust's own making.
        """
        runner = self.environment.runner
        with self._one_stop:  # a second one, which an interrupt may ask for, returns when all is done
            if self.stopping_at == math.inf:
                self.stopping_at, self.tally.stopping_at = perf_counter(), time()
                if self._alarm is not None:
                    self._alarm.last_call(self.stopping_at)
                    until = self.stopping_at + LAST_REPLIES_SECONDS
                    while self._alarm.left_asleep < len(self._schedules) and perf_counter() < until:
                        gevent.sleep(0.001)
            type(runner).stop(runner)

    def _stop_master(self, send_stop_to_client: bool = True) -> None:
        """Before workers are told to quit, have them stop and report; Locust only waits a moment."""
        runner = self.environment.runner
        was_at_work = runner.state in (STATE_SPAWNING, STATE_RUNNING)
        type(runner).stop(runner, send_stop_to_client)  # first, or it would give a worker's users to others
        if was_at_work and not send_stop_to_client:
            self._stopped_workers.clear()
            runner.send_message(_STOP_MESSAGE)
            until = perf_counter() + self.environment.stop_timeout + LAST_REPORTS_SECONDS
            while self._workers_at_work(runner) and perf_counter() < until:
                gevent.sleep(0.01)

    def _workers_at_work(self, runner: MasterRunner) -> bool:
        busy = runner.clients.spawning + runner.clients.running
        return any(worker.id not in self._stopped_workers for worker in busy)

    def _on_worker_stopped(self, msg: Any, **_: Any) -> None:
        self._stopped_workers.add(msg.node_id)

    def _on_stop_message(self, **_: Any) -> None:
        runner = self.environment.runner
        runner.stop()
        runner._send_stats()
        runner.send_message(_STOPPED_MESSAGE)

    def _on_worker_quitting(self, **_: Any) -> None:
        """A worker that is interrupted itself (Ctrl-C goes to all ``--processes``) would leave unreported."""
        runner = self.environment.runner
        if runner.state not in (STATE_INIT, STATE_STOPPED):
            runner.stop()
            runner._send_stats()

    def _on_test_start(self, **_: Any) -> None:
        self.over = False
        self.stopping_at = math.inf
        if self._alarm is not None:
            self._alarm.last_call(math.inf)
        self._plans.clear()
        self._rings.clear()
        self.measures.reset()
        self.tally = Tally()
        self.users_at_most = 0
        self.sampler.begin()
        runner = self.environment.runner
        if self.options is not None and isinstance(runner, MasterRunner):
            self.options.tcp_total_users = runner.target_user_count

    def _on_reset(self, **_: Any) -> None:
        """Locust's own figures start anew (its page's button, ``--reset-stats``), and so do these.

        The button is known to the master alone. Workers go on as they were: what they report is what
        they have counted since their last report, as Locust's own reports are.
        """
        self._count_intended()  # what is due of schedules that go on was before
        self.measures.reset()
        self.tally = Tally()

    def _on_spawned(self, **_: Any) -> None:
        if self.environment.reset_stats:
            self._on_reset()
        gc.freeze()  # thousands of users that stay are not looked through at every full collection

    def _on_stopped(self, **_: Any) -> None:
        gc.unfreeze()
        if not isinstance(self.environment.runner, MasterRunner):  # its workers' last reports are yet to come
            self.collect()
            self.over = True

    def _on_users(self, msg: Any, **_: Any) -> None:
        self.options.tcp_total_users = msg.data

    def _tell_users(self, runner: MasterRunner) -> None:
        """Workers that share one rate must know how many users there are in all, also when it changes."""
        users = runner.target_user_count
        if users != self._told_users:
            self._told_users = self.options.tcp_total_users = users
            runner.send_message(_USERS_MESSAGE, users)  # type: ignore[arg-type]  # anything msgpack takes

    def _collect_forever(self) -> None:
        while True:
            self.sampler.wait()
            self.collect()
            if self.finish is not None:
                self.finish.end_when_done()

    def collect(self) -> None:
        """Move what was counted since the last time into the tally; between tests nothing is."""
        if self.over:
            return
        runner = self.environment.runner
        if runner is not None:
            self.users_at_most = max(self.users_at_most, runner.target_user_count)
        if isinstance(runner, MasterRunner):
            self._tell_users(runner)
            self.tally.note_health("master", self.sampler.sample())
            self.tally.settle(time())
            return
        self._count_intended()
        self.tally.take(self.process, self.measures, self.sampler.sample(), self.sampler.base_files)
        if not isinstance(runner, WorkerRunner):
            self.tally.settle(time())

    def _on_report_to_master(self, client_id: str, data: dict[str, Any]) -> None:
        self.collect()
        data["loadtest"] = self.tally.to_message()
        self.tally = Tally()

    def _on_worker_report(self, client_id: str, data: dict[str, Any]) -> None:
        message = data.get("loadtest")
        if message:
            self.tally.add(message)


def _walk(ring: list[Exchange], start: int) -> Iterator[Exchange]:
    yield from islice(ring, start, None)
    while True:
        yield from ring
