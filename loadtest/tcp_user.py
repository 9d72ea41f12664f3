"""Locust users that speak TCP: :class:`TcpUser` for any protocol, :class:`ConfirmUser` for ours.

A ``TcpUser`` has ``client``, a :class:`loadtest.conversation.Conversation`, connected before the first task
and closed when the user stops. What it reports, and all the options, come with it: a locustfile that
imports this module takes them, and lists them with ``--help-tcp``.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from time import perf_counter
from typing import Any, ClassVar

import gevent
from locust import User, events, tag, task
from locust.exception import StopTest, StopUser
from locust.user.task import LOCUST_STATE_RUNNING, LOCUST_STATE_STOPPING, LOCUST_STATE_WAITING

from loadtest.attach import attach
from loadtest.client.address import Target
from loadtest.client.judgement import Prefix
from loadtest.conversation import Conversation, SecondConversation
from loadtest.errors import OptionsError
from loadtest.framing import ReplyFraming
from loadtest.messages import Exchange
from loadtest.reporting import no_context
from loadtest.run.load_test import LoadTest, load_test_of
from loadtest.run.options import SENDING_OPTIONS, Plan, add_options
from loadtest.schedule import LATE_SECONDS, Schedule

__all__ = ["ConfirmUser", "Prefix", "TcpUser"]

FIRST_BACKOFF = 0.1
LAST_BACKOFF = 5.0
"""Seconds to wait after the first failed connect in a row, and at most; they double in between."""


def _options(parser: Any) -> None:
    add_options(parser)


def _init(environment: Any, **_: Any) -> None:
    try:
        attach(environment, [each for each in environment.user_classes if issubclass(each, TcpUser)])
    except OptionsError as error:
        sys.stderr.write(f"locust: error: {error}\n")
        sys.exit(2)


_events: Any = events
_events.init_command_line_parser.add_listener(_options)
_events.init.add_listener(_init)


class TcpUser(User):
    """A user with a TCP, TLS or UNIX connection; subclass it with tasks that call ``self.client.request``.

    Raises StopTest where the host is missing or can't be read.
    """

    abstract = True

    framing: ClassVar[ReplyFraming | None] = None
    """What separates messages; None takes what ``--framing`` says."""

    name: ClassVar[str] = "CONFIRM"
    """The entry that ``client.confirm`` counts under."""

    client: Conversation

    @classmethod
    def uses(cls) -> set[str]:
        """Which of the options that say what is sent, and when, this class goes by."""
        used = set() if cls.framing is not None else {"framing"}
        return used | ({"rate", "think_time"} if cls.wait_time is TcpUser.wait_time else set())

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        load_test = load_test_of(environment)
        try:
            self.plan, options = load_test.plan_for(self.host or "", self.framing)
        except OptionsError as error:
            raise StopTest(str(error)) from None
        self.number = load_test.next_user()
        self.schedule: Schedule | None = None
        context = no_context if type(self).context is User.context else self.context
        self.client = Conversation(
            options,
            environment.events.request,
            load_test.counters,
            context,
            self.name,
            label=load_test.label(self.host or "", self.framing),
            owner=self,
        )
        self._others: list[Conversation] = []

    def on_connect(self) -> object:
        """Greet the server and log in. Called after every connect, before what needed it is sent.

        Where a request in it fails, or it returns False, the connection is closed, and a new one is tried
        after a pause, as after a failed connect.
        """
        return True

    def connect(
        self, host: str, framing: ReplyFraming | None = None, name: str | None = None
    ) -> Conversation:
        """Open a second connection, counted as ``CONNECT NAME``, and closed when the user stops.

        ``framing`` is that of the first one unless given. A connect that fails is counted, and what is sent
        then tries again. Raises ValueError with a sentence for a person: ``host`` can't be read.
        """
        load_test = load_test_of(self.environment)
        options = self.client.options
        target = Target.parse(host)
        if target.scheme == "tls" and options.tls is None:
            _, options = load_test.plan_for(host, framing or options.framing)
        other = SecondConversation(
            replace(options, target=target, framing=framing or options.framing),
            self.environment.events.request,
            load_test.counters,
            self.client.context,
            self.name,
            label=self.client.label,
            connect_name=name or "second",
        )
        other.paced = self.client.paced
        self._others = [*(each for each in self._others if each.connected), other]
        other.connect()
        return other

    def on_start(self) -> None:
        """Connect, in as many attempts as it takes. With ``--rate``, wait for the first turn."""
        self.ensure_connected()
        if self.plan.rate:
            self.client.paced = True
            load_test = load_test_of(self.environment)
            self.schedule = load_test.schedule(self, self.plan)
            self.client.intended = self.schedule.take()
            self._await(self.client.intended)

    def on_stop(self) -> None:
        """Close the connection."""
        if self.schedule is not None:
            load_test_of(self.environment).end_schedule(self.schedule)
        self.client.leave()
        for other in self._others:
            other.leave()

    def stop(self, force: bool = False) -> bool:
        """Stop the user, as Locust does: at once where it waits, else once its task is done.

        Locust's kill of a user that waits comes in the next turn of its loop. A wait that ends before, as
        several do at once where a process was held up, must not begin a request that is then killed.
        """
        if self._state == LOCUST_STATE_WAITING:
            self._state = LOCUST_STATE_STOPPING
            force = True
        return bool(super().stop(force))

    def wait_time(self) -> float:
        """The pause between two tasks, as ``--rate`` or ``--think-time`` say, unless a class has its own.

        With ``--rate`` tasks start on schedule, and a task's first request counts from there; the pause is
        made here, and what is left of it is none.
        """
        if self.schedule is None:
            return random.uniform(*self.plan.think)
        load_test = load_test_of(self.environment)
        self.schedule.change(load_test.interval(self.plan))
        intended = self.schedule.take()
        self.client.intended = intended
        now = perf_counter()
        if now - intended > LATE_SECONDS:
            load_test.counters.late_starts += 1
        if intended > min(now, load_test.stopping_at):
            load_test.alarm.sleep_until(intended)
        return 0.0

    @property
    def stopping(self) -> bool:
        """Whether Locust has asked this user to stop once its task is done."""
        return bool(self._state == LOCUST_STATE_STOPPING)

    def _await(self, moment: float) -> None:
        """Wait as Locust's own ``wait`` does: a user that is asked to stop meanwhile ends at once."""
        if self.stopping:
            raise StopUser
        self._state = LOCUST_STATE_WAITING
        load_test_of(self.environment).alarm.sleep_until(moment)
        if self.stopping:
            raise StopUser
        self._state = LOCUST_STATE_RUNNING

    def ensure_connected(self) -> None:
        """Return with an open connection, however many attempts it takes. Raises StopUser when stopping."""
        backoff = FIRST_BACKOFF
        while not self.client.connected and not self.client.connect():
            gevent.sleep(backoff * random.uniform(0.5, 1.0))
            backoff = min(2 * backoff, LAST_BACKOFF)
            if self.stopping:
                raise StopUser


class ConfirmUser(TcpUser):
    """Sends messages of the confirm protocol in the way that the options say, and checks every reply."""

    abstract = False

    @classmethod
    def uses(cls) -> set[str]:
        """All of them, but for the framing where the class has one."""
        return (set(SENDING_OPTIONS) | {"framing", "rate", "think_time"}) - (
            set() if cls.framing is None else {"framing"}
        )

    def on_start(self) -> None:
        """Connect."""
        self.ensure_connected()

    @tag("confirm")
    @task
    def drive(self) -> None:
        """Send messages until the user is stopped or has sent as many as it should."""
        load_test = load_test_of(self.environment)
        plan = self.plan
        if plan.hold:
            self._hold(load_test, plan)
        elif plan.rate:
            self._paced(load_test, plan)
        else:
            self._closed(load_test, plan)
        raise StopUser

    def _closed(self, load_test: LoadTest, plan: Plan) -> None:
        """Next message once the reply is there and the pause is over."""
        low, high = plan.think
        if plan.pipeline == 1 and not (
            high or plan.messages or plan.messages_per_connection or plan.lifetime
        ):
            exchanges = load_test.exchanges(self, plan)
            client = self.client
            while not self.stopping:
                if not client.confirm(next(exchanges)):
                    self._after_failure()
            return
        for batch in self._batches(load_test, plan):
            if not self._send(batch):
                self._after_failure()
            if high:
                self.client.idle(random.uniform(low, high)) if self.client.connected else gevent.sleep(low)
                self._stay_if_stopped(load_test)

    def _paced(self, load_test: LoadTest, plan: Plan) -> None:
        """Messages at their intended starts; late ones at once, until they have caught up."""
        schedule = load_test.schedule(self, plan, plan.pipeline, plan.messages or math.inf)
        try:
            for batch in self._batches(load_test, plan):
                schedule.change(load_test.interval(plan))
                intended = schedule.take(len(batch))
                if intended > min(perf_counter(), load_test.stopping_at):
                    self._await(intended)
                if perf_counter() - intended > LATE_SECONDS:
                    load_test.counters.late_starts += 1
                if not self._send(batch, intended):
                    self.ensure_connected()
        finally:
            load_test.end_schedule(schedule)

    def _hold(self, load_test: LoadTest, plan: Plan) -> None:
        """Mostly idle: a message every ``hold`` seconds, the first at a random moment of them."""
        pause = random.uniform(0.0, plan.hold)
        for batch in self._batches(load_test, plan):
            if not self.client.idle(pause):
                self._after_failure()
            if self.stopping:
                return
            self._stay_if_stopped(load_test)
            if not self._send(batch):
                self._after_failure()
            pause = plan.hold

    def _batches(self, load_test: LoadTest, plan: Plan) -> Iterator[list[Exchange]]:
        """What to send together, until the user is stopped or done; connections end and begin here."""
        exchanges = load_test.exchanges(self, plan)
        client = self.client
        left = plan.messages or -1
        on_connection = 0
        while left and not self.stopping:
            used_up = plan.messages_per_connection and on_connection >= plan.messages_per_connection
            if client.connected and (
                used_up or (plan.lifetime and perf_counter() - client.connected_at > plan.lifetime)
            ):
                client.exit()
            if not client.connected:
                self.ensure_connected()
                on_connection = 0
            size = plan.pipeline
            if left > 0:
                size = min(size, left)
            if plan.messages_per_connection:
                size = min(size, plan.messages_per_connection - on_connection)
            yield list(islice(exchanges, size))
            on_connection += size
            left -= size if left > 0 else 0
        if client.connected and plan.messages_per_connection and not self.stopping:
            client.exit()

    def _send(self, batch: list[Exchange], intended: float = 0.0) -> bool:
        if len(batch) == 1:
            return self.client.confirm(batch[0], intended)
        return self.client.confirm_many(batch, intended)

    def _stay_if_stopped(self, load_test: LoadTest) -> None:
        """Begin nothing new between the moment when the test was told to stop and the end of this user."""
        if load_test.stopping_at < math.inf:
            self._await(math.inf)

    def _after_failure(self) -> None:
        """Connect anew where the connection is gone; where it is not, give others a turn."""
        if self.client.connected:
            gevent.sleep(0)
        else:
            self.ensure_connected()
