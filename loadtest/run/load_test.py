"""The state of a load test in one process: one :class:`LoadTest` for each Locust environment.

Users ask it for their plan, number, messages and schedule, and count in its ``counters``. In every process
a greenlet moves at each whole second what they counted into a :class:`RunRecord`. In a single process that
is the record of the run. A worker sends its own with Locust's reports (``report_to_master``) and starts a
new one; the master adds them (``worker_report``). How a test stops is in stopping.py.
"""

from __future__ import annotations

import gc
import math
import os
import socket
import weakref
from collections.abc import Callable, Iterator
from time import perf_counter, time
from typing import Any, Final

import gevent
from locust.runners import STATE_RUNNING, STATE_SPAWNING, MasterRunner, WorkerRunner

from loadtest.client.transport import ClientOptions
from loadtest.count.counters import Counters
from loadtest.count.health import Sampler
from loadtest.count.run_record import RunRecord
from loadtest.framing import ReplyFraming
from loadtest.messages import Exchange, Rings
from loadtest.run.alarm import Alarm
from loadtest.run.options import Plan, read_client_options, read_plan
from loadtest.run.orders import Orders
from loadtest.run.workers import Workers, shortfall
from loadtest.schedule import Schedule

_load_tests: weakref.WeakKeyDictionary[Any, LoadTest] = weakref.WeakKeyDictionary()
UNKNOWN_HOST: Final = "unknown"
"""What a report says of where the users connected to, before anybody has said it."""


def load_test_of(environment: Any) -> LoadTest:
    """The load test of a Locust environment, made at the first call."""
    try:
        return _load_tests[environment]
    except KeyError:
        load_test = _load_tests[environment] = LoadTest(environment)
        return load_test


LAST_REPLIES_SECONDS: Final = 0.1
"""For how long a stop waits for the replies to what was due before it; what has none then is aborted."""
_LOOK_SECONDS: Final = 0.25
"""How often a master looks for workers that are missing."""
_USERS_MESSAGE: Final = "loadtest_users"
_USERS_EACH: Final = 1_000_000
"""Users that a worker may number before the next worker's numbers begin."""
_GOLDEN: Final = 0.6180339887498949
"""Multiples of the golden ratio, modulo 1, fill an interval evenly, however many there are."""


class LoadTest:
    """Plans, messages, schedules, counters and records of one environment."""

    def __init__(self, environment: Any) -> None:
        self._environment = weakref.ref(environment)
        self.counters = Counters()
        self.record = RunRecord()
        self.sampler = Sampler(self.counters)
        self._plans: dict[tuple[str, ReplyFraming | None], tuple[Plan, ClientOptions]] = {}
        self.uses: list[tuple[str, set[str]]] = []
        """The user classes' names, and the options that each goes by."""
        self.kinds: list[tuple[str, ReplyFraming | None]] = []
        """Their hosts and framings."""
        self._rings = Rings()
        self._schedules: set[Schedule] = set()
        self._users = 0
        self._alarm: Alarm | None = None
        self._greenlets: list[gevent.Greenlet[[], None]] = []
        self.stopping_at = math.inf
        """When (``time.perf_counter``) the test was told to stop: what is due later was never intended."""
        self.over = False
        """Whether the test has been stopped, and what was counted is the run's for good."""
        self.users_at_most = 0
        """Most users of the whole test at a time, for what is told at its end."""
        self.spawned_at = 0.0
        """Unix time at which all users were there, 0 before."""
        self.stopped_at = 0.0
        """Unix time at which the test had stopped, 0 before."""
        self.notes: list[str] = []
        """What a shape found, in words."""
        self.after_collecting: list[Callable[[], None]] = []
        """Called once a second, when what was counted has been collected."""
        self.process = f"{socket.gethostname()}:{os.getpid()}"
        self.orders = Orders()
        """What the runner has told which worker to run."""
        self.workers = Workers()
        """What the master knows of its workers."""
        self._started_at = 0.0
        self._told_users = 0
        environment.events.test_start.add_listener(self._on_test_start)
        environment.events.spawning_complete.add_listener(self._on_spawned)
        environment.events.test_stopping.add_listener(self._on_stopping)
        environment.events.test_stop.add_listener(self._on_stopped)
        environment.events.reset_stats.add_listener(self._on_reset)

    @property
    def environment(self) -> Any:
        """The environment, which outlives its load test."""
        environment = self._environment()
        assert environment is not None
        return environment

    @property
    def options(self) -> Any:
        """The options as they are now; the web form may have changed them since the start."""
        return self.environment.parsed_options

    @property
    def plan(self) -> Plan:
        """The plan of the test; a user class may have a framing of its own, which changes nothing here."""
        return read_plan(self.options)

    @property
    def host(self) -> str:
        """Where the users connect to, or :data:`UNKNOWN_HOST`."""
        hosts = [str(user.host) for user in self.environment.user_classes if user.host]
        return str(self.environment.host or (hosts[0] if hosts else "") or UNKNOWN_HOST)

    # -- for users -------------------------------------------------------------------------------

    def plan_for(self, host: str, framing: ReplyFraming | None) -> tuple[Plan, ClientOptions]:
        """The plan and the settings of users with this host. Raises OptionsError."""
        key = (host, framing)
        try:
            return self._plans[key]
        except KeyError:
            plan = read_plan(self.options, framing)
            found = self._plans[key] = plan, read_client_options(self.options, host, plan)
            self.counters.sources = len(found[1].sources or [None])
            return found

    def label(self, host: str, framing: ReplyFraming | None) -> str:
        """What stands behind the names of entries, to tell several hosts and framings of a run apart."""
        parts = []
        if len({each for each, _ in self.kinds}) > 1:
            parts.append(host)
        if len({repr(each) for _, each in self.kinds}) > 1:
            parts.append(
                repr(framing) if framing is not None else str(getattr(self.options, "framing", "line"))
            )
        return " @" + " ".join(parts) if parts else ""

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
        return self._rings.exchanges(plan.framing, plan.message_size, user.number)

    def interval(self, plan: Plan) -> float:
        """Seconds from one message of a user to the next."""
        return 1 / (plan.rate if plan.rate_per_user else plan.rate / max(1, self.total_users))

    @property
    def total_users(self) -> int:
        """Users of the whole test, in all processes, that share a rate: those of TCP user classes."""
        runner = self.environment.runner
        if isinstance(runner, WorkerRunner):
            told = getattr(self.options, "tcp_total_users", None)
            return int(told or runner.target_user_count or 1)
        return self.orders.sharing(runner, [name for name, _ in self.uses]) if runner else 1

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
        self.counters.intended += schedule.newly_due(min(perf_counter(), self.stopping_at))

    def _count_intended(self) -> None:
        """Count the messages whose intended start has come since the last time, sent or not."""
        now = min(perf_counter(), self.stopping_at)
        self.counters.intended += sum(schedule.newly_due(now) for schedule in self._schedules)

    # -- for Locust ------------------------------------------------------------------------------

    def attach(self) -> None:
        """Exchange with other processes what each counts; to be called once Locust has its runner."""
        self.process = f"{socket.gethostname()}:{os.getpid()}"  # of this process, which may have been forked
        runner, events = self.environment.runner, self.environment.events
        if isinstance(runner, MasterRunner):
            events.worker_report.add_listener(self._on_worker_report)
            self.orders.on_order = self._tell_users
        elif isinstance(runner, WorkerRunner):
            events.report_to_master.add_listener(self._on_report_to_master)
            runner.register_message(_USERS_MESSAGE, self._on_users)
            return
        self.environment.dispatcher_class = self.orders.noted(self.environment.dispatcher_class)

    def collect_each_second(self) -> None:
        """Start the greenlet that collects, and on a master the one that looks for its workers."""
        self._greenlets.append(gevent.spawn(self._collect_forever))
        if isinstance(self.environment.runner, MasterRunner):
            self._greenlets.append(gevent.spawn(self._look_for_workers))

    def end(self) -> None:
        """Collect no more, and give back timer and callback; for whoever makes several environments."""
        gevent.killall(self._greenlets)
        self.sampler.end()
        if self._alarm is not None:
            self._alarm.close()
            self._alarm = None

    def _look_for_workers(self) -> None:
        while True:
            gevent.sleep(_LOOK_SECONDS)
            for process in self.workers.look(self.environment.runner, self.orders.last):
                self.record.forget_open(process)
            self._tell_users()

    @property
    def workers_left(self) -> int | None:
        """How many workers are left of those that took part; None where there were none."""
        return self.workers.left if isinstance(self.environment.runner, MasterRunner) else None

    def troubles(self) -> list[tuple[str, str]]:
        """What makes a distributed run incomplete, in words, with a short name each."""
        if not self.workers.known:
            return []
        end = min(self.record.stopping_at, time())
        seconds = max(0.0, end - (self.spawned_at or end))
        missing = shortfall(self.plan, seconds, self.record.counts["intended"])
        return self.workers.troubles(self._started_at, missing)

    def stop_sending(self) -> None:
        """Let nothing fall due from now on, and wait a moment for the replies to what was due before."""
        if self.stopping_at < math.inf:
            return
        self.stopping_at, self.record.stopping_at = perf_counter(), time()
        if self._alarm is not None:
            self._alarm.last_call(self.stopping_at)
            until = self.stopping_at + LAST_REPLIES_SECONDS
            while self._alarm.left_asleep < len(self._schedules) and perf_counter() < until:
                gevent.sleep(0.001)

    def _on_test_start(self, **_: Any) -> None:
        self.over = False
        self.stopping_at = math.inf
        if self._alarm is not None:
            self._alarm.last_call(math.inf)
        self._plans.clear()
        self._rings.clear()
        self.counters.reset()
        self.record = RunRecord()
        self.users_at_most = 0
        self.spawned_at = self.stopped_at = 0.0
        self.notes.clear()
        self.orders.clear()
        self.workers.clear()
        self._started_at = time()
        self.sampler.begin()
        runner = self.environment.runner
        if self.options is not None and isinstance(runner, MasterRunner):
            self.options.tcp_total_users = self.total_users

    def _on_reset(self, **_: Any) -> None:
        """Locust's own figures start anew (its page's button, ``--reset-stats``), and so do these.

        The button is known to the master alone. Workers go on as they were: what they report is what
        they have counted since their last report, as Locust's own reports are.
        """
        self._count_intended()  # what is due of schedules that go on was before
        self.counters.reset()
        self.record = RunRecord()

    def _on_spawned(self, **_: Any) -> None:
        if self.environment.reset_stats:
            self._on_reset()
        gc.freeze()  # thousands of users that stay are not looked through at every full collection
        self.spawned_at = self.record.spawned_at = self.spawned_at or time()

    def _on_stopping(self, **_: Any) -> None:
        self.record.stopping_at = min(self.record.stopping_at, time())

    def _on_stopped(self, **_: Any) -> None:
        gc.unfreeze()
        self.collect()
        if not isinstance(self.environment.runner, MasterRunner):  # its workers' last reports are yet to come
            self.over = True
        self.stopped_at = time()

    def _on_users(self, msg: Any, **_: Any) -> None:
        self.options.tcp_total_users = msg.data

    def _tell_users(self) -> None:
        """Workers that share one rate must know how many users there are in all, also when it changes."""
        runner = self.environment.runner
        if runner.state not in (STATE_RUNNING, STATE_SPAWNING):
            return
        users = self.total_users
        if users != self._told_users:
            self._told_users = self.options.tcp_total_users = users
            runner.send_message(_USERS_MESSAGE, users)

    def _collect_forever(self) -> None:
        while True:
            self.sampler.wait()
            self.collect()
            for call in self.after_collecting:
                call()

    def collect(self) -> None:
        """Move what was counted since the last time into the record; between tests nothing is."""
        if self.over:
            return
        runner = self.environment.runner
        if runner is not None:
            self.users_at_most = max(self.users_at_most, runner.target_user_count)
        if isinstance(runner, MasterRunner):
            self._tell_users()
            self.record.note_health("master", self.sampler.sample())
            self.record.settle(time())
            return
        self._count_intended()
        self.record.take(self.process, self.counters, self.sampler.sample(), self.sampler.base_files)
        if not isinstance(runner, WorkerRunner):
            self.record.settle(time())

    def _on_report_to_master(self, client_id: str, data: dict[str, Any]) -> None:
        self.collect()
        data["loadtest"] = {**self.record.to_message(), "clock": time(), "process": self.process}
        self.record = RunRecord()

    def _on_worker_report(self, client_id: str, data: dict[str, Any]) -> None:
        message = data.get("loadtest")
        if message:
            self.record.add(message)
            users = sum(data.get("user_classes_count", {}).values())
            self.workers.heard(client_id, message["process"], users, message["clock"])
