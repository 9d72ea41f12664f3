"""What a figure means, line by line, against servers whose truth is known by their own clock."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from time import perf_counter, time, time_ns
from typing import Any

import gevent
import gevent.event
import pytest

from benchmarks.reports.histograms import add_rounded, quantile
from loadtest.client.address import Target
from loadtest.client.judgement import Prefix
from loadtest.client.transport import ClientOptions
from loadtest.conversation import Conversation
from loadtest.count.counters import Counters, EntryTotals
from loadtest.count.health import Sample
from loadtest.count.results import Results
from loadtest.count.run_record import RunRecord
from loadtest.count.thresholds import Threshold
from loadtest.errors import ConnectionInUse, NotCaught
from loadtest.framing import Dot, Lines, UntilClose, Wire
from loadtest.show.tables import latency_rows
from tests.conftest import wait_until
from tests.loadtest import servers
from tests.loadtest.servers import Handler, ScriptedServer, lines
from tests.loadtest.test_session import Recorded


class Truth:
    """What a server has seen: when lines came and replies were sent, on the clock of perf_counter."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def answer(self, connection: Any, line: bytes, delay: float = 0.0, times: int = 1) -> None:
        """Answer ``delay`` seconds later."""
        came = perf_counter()
        if delay:
            gevent.sleep(delay)
        self.times.append((came, perf_counter()))
        connection.sendall((b"Received: " + line) * times)

    @property
    def took(self) -> list[float]:
        """How long each reply took, in seconds."""
        return [sent - came for came, sent in self.times]


class Talk:
    """A conversation with a server of this test, and what was counted."""

    def __init__(self, host: str, **options: Any) -> None:
        self.counters, self.event = Counters(), Recorded()
        how = {"connect_timeout": 30.0, "read_timeout": 30.0, **options}
        self.client = Conversation(ClientOptions(Target.parse(host), **how), self.event, self.counters)

    def totals(self) -> dict[str, EntryTotals]:
        """What was counted since the last time."""
        return self.counters.collect()

    def record(self) -> RunRecord:
        """A record of a second with all that was counted."""
        record = RunRecord()
        record.take("one", self.counters, Sample(int(time()), 1.0, 1.0, 0.1, {}, 0, 0), 0)
        return record


@pytest.fixture
def talk() -> Iterator[Callable[..., Talk]]:
    """Start a server with a handler, and talk to it."""
    started: list[ScriptedServer] = []

    def start(handler: Handler, **options: Any) -> Talk:
        server = ScriptedServer(handler)
        server.__enter__()
        started.append(server)
        return Talk(server.host, **options)

    yield start
    for server in started:
        server.__exit__()


def counted(took: float) -> int:
    """What a latency of so many seconds is counted as: microseconds, rounded down as histograms do it."""
    kept: dict[int, int] = {}
    add_rounded({int(took * 1e6): 1}, kept)
    return next(iter(kept))


def lies_between(least: float, micros: float, most: float) -> bool:
    """Whether a figure that was counted lies between two times in seconds, which are rounded as it is.

    A figure of the client is compared with moments that come before and after the one that it counts to, in
    whatever time a busy machine takes between them: never earlier than the server's reply was sent, never
    later than the call had returned. The delays of servers are so long that another start falls outside.
    """
    return counted(least) <= micros <= counted(most)


# -- response times ------------------------------------------------------------------------------


def test_every_request_of_a_paced_task_has_a_response_time(talk: Callable[..., Talk]) -> None:
    """The first counts from the task's intended start, those that follow from when they were called."""
    truth = Truth()

    def handler(connection: Any, _: Any) -> None:
        for line in lines(connection):
            truth.answer(connection, line, 0.2)

    one = talk(handler)
    one.client.connect()
    one.client.paced = True
    one.client.intended = intended = perf_counter() - 0.5
    first_called = perf_counter()
    first = one.client.request("a", name="FIRST", expect="Received: a")
    second_called = perf_counter()
    second = one.client.request("b", name="SECOND", expect=Prefix("Received: "))
    returned = perf_counter()
    totals = one.totals()
    for reply, name, sent, took, due, called, over in (
        (first, "FIRST", truth.times[0][1], truth.took[0], intended, first_called, second_called),
        (second, "SECOND", truth.times[1][1], truth.took[1], second_called, second_called, returned),
    ):
        assert sent - due <= reply.response_time / 1e3 <= over - due
        ((response, _),) = totals[name].response.items()
        ((service, _),) = totals[name].service.items()
        assert lies_between(sent - due, response, over - due)
        assert lies_between(took, service, over - called)


def test_a_response_time_is_never_negative(talk: Callable[..., Talk]) -> None:
    """An intended start that was not reached, as when ``on_stop`` says goodbye, counts for nothing."""
    one = talk(servers.confirm)
    one.client.connect()
    one.client.paced = True
    one.client.intended = perf_counter() + 100
    called = perf_counter()
    reply = one.client.request("bye", name="BYE")
    assert 0 < reply.response_time / 1e3 <= perf_counter() - called
    assert min(one.totals()["BYE"].response) >= 0


# -- time-outs, and shares of errors --------------------------------------------------------------


def test_two_time_outs_in_a_hundred_are_in_the_percentiles(talk: Callable[..., Talk]) -> None:
    """They took at least the time-out: p99 says so. A wrong reply is not in it, and is told beside it."""

    def handler(connection: Any, _: Any) -> None:
        for line in lines(connection):
            if line.strip() not in (b"33", b"66"):
                connection.sendall(b"Received: " + line)

    timeout = 0.25
    took: dict[bool, list[float]] = {True: [], False: []}  # by whether the request passed
    one = talk(handler)
    for number in range(100):
        allowed = timeout if number in (33, 66) else None  # the others may take as long as the machine does
        called = perf_counter()
        reply = one.client.request(f"{number}", name="ASK", expect=f"Received: {number}", timeout=allowed)
        took[bool(reply)].append(perf_counter() - called)
    record = one.record()
    kept = record.entries["ASK"]
    assert (kept.passed, kept.failures) == (98, {"ReadTimeout": 2})
    assert sum(kept.latencies.values()) == 100
    longest = max(max(each) for each in took.values())
    assert lies_between(timeout, quantile(kept.latencies, 0.99), longest)
    assert quantile(kept.latencies, 0.97) <= counted(max(took[True]))
    (row,) = [row for row in latency_rows(record) if row[:2] == ("ASK", "service")]
    assert (row[2], row[5]) == (100, "")
    one.client.request("1", name="ASK", expect="something else")
    record.take("one", one.counters, Sample(int(time()), 1.0, 1.0, 0.1, {}, 0, 0), 0)
    (row,) = [row for row in latency_rows(record) if row[:2] == ("ASK", "service")]
    assert (row[2], row[5]) == (100, "1 that failed are not in it")
    assert Results(record)["error_share"] == pytest.approx(3 / 101)


def test_the_share_of_errors_is_that_of_messages(talk: Callable[..., Talk]) -> None:
    """Connects have their own; all failures together are ``errors``."""
    one = talk(servers.confirm)
    for _ in range(3):
        one.client.request("a", name="ASK")
    one.client.close()
    host, one.client.options = one.client.options, ClientOptions(Target.parse("127.0.0.1:1"))
    for _ in range(2):
        assert not one.client.connect()
    one.client.options = host
    results = Results(one.record())
    assert results["error_share"] == 0
    assert results.of("connect", "errors") == 2
    assert results.of("connect", "error_share") == pytest.approx(2 / 3)
    assert results["errors"] == 2
    for text, broken in (
        ("connect.errors>0", True),
        ("errors>0%", False),
        ("ASK.errors>0", False),
        ("GET.errors>0", True),
    ):
        reason = Threshold.parse(text).broken(results)
        assert (reason is not None) is broken, text
    assert "nothing was counted as 'GET'" in str(Threshold.parse("GET.errors>0").broken(results))


@pytest.mark.parametrize(
    ("text", "entry", "figure"),
    [
        ("GET.p99>50ms", "GET", "p99"),
        ("transaction checkout.p99>1s", "transaction checkout", "p99"),
        ("GET /a.b.response.p99.9>1s", "GET /a.b", "response.p99.9"),
        ("service.p99>1s", "", "service.p99"),
        ("connect.errors>1%", "connect", "error_share"),
        ("workers<3", "", "workers"),
    ],
)
def test_conditions_name_entries(text: str, entry: str, figure: str) -> None:
    """What stands before the figure is the entry's name, dots and all."""
    condition = Threshold.parse(text)
    assert (condition.entry, condition.figure) == (entry, figure)


# -- surplus replies, verdicts --------------------------------------------------------------------


def test_a_surplus_reply_that_is_there_fails_its_request_and_no_other(talk: Callable[..., Talk]) -> None:
    """Every third reply comes twice, in one write: these requests fail, and no other."""

    def handler(connection: Any, _: Any) -> None:
        for number, line in enumerate(lines(connection)):
            connection.sendall((b"Received: " + line) * (2 if number % 3 == 0 else 1))

    one = talk(handler)
    for number in range(9):
        one.client.request(f"{number}", name="ASK", expect=f"Received: {number}")
    totals = one.totals()
    assert one.event.of("ASK") == ["UnexpectedData", "None", "None"] * 3
    assert (totals["ASK"].passed, totals["ASK"].failures) == (6, {"UnexpectedData": 3})
    assert "UNEXPECTED" not in totals
    assert totals["CONNECT"].passed == 1


@pytest.mark.parametrize("pushed", [False, True])
def test_a_surplus_reply_that_comes_later_fails_nobody(talk: Callable[..., Talk], pushed: bool) -> None:
    """It is an entry of its own, ``UNEXPECTED``; with a handler for pushes it is a push."""
    later: list[int] = []
    answered = gevent.event.Event()

    def handler(connection: Any, _: Any) -> None:
        for number, line in enumerate(lines(connection)):
            connection.sendall(b"Received: " + line)
            if number % 3 == 0:
                answered.wait()  # the reply has been taken and judged
                answered.clear()
                connection.sendall(b"Received: " + line)
                later.append(number)

    one = talk(handler)
    one.client.connect()
    taken: list[bytes] = []
    if pushed:
        one.client.push(taken.append)
    for number in range(9):
        assert one.client.request(f"{number}", name="ASK", expect=f"Received: {number}")
        if number % 3 == 0:
            answered.set()
            wait_until(lambda: later[-1:] == [number])  # noqa: B023 - it is called at once
            wait_until(lambda: len(taken) == len(later) if pushed else one.client.tcp.restless)
    totals = one.totals()
    assert (totals["ASK"].passed, totals["ASK"].failed) == (9, 0)
    if pushed:
        assert (totals["PUSH"].passed, len(taken)) == (3, 3)
        assert "UNEXPECTED" not in totals
    else:
        assert totals["UNEXPECTED"].failures == {"UnexpectedData": 3}
    assert totals["CONNECT"].passed == 1


def test_a_confirmed_message_keeps_its_verdict_when_something_comes_later(talk: Callable[..., Talk]) -> None:
    """``confirm``, the hot path of ``ConfirmUser``, judges as ``request`` does."""
    sent: list[int] = []
    answered = gevent.event.Event()

    def handler(connection: Any, _: Any) -> None:
        for line in lines(connection):
            connection.sendall(b"Received: " + line)
            answered.wait()  # the reply has been taken and judged
            answered.clear()
            connection.sendall(b"hello\n")
            sent.append(1)

    one = talk(handler)
    one.client.connect()
    for number in range(3):
        assert one.client.confirm((b"a\n", b"Received: a\n"))
        answered.set()
        wait_until(lambda: len(sent) > number and one.client.tcp.restless)  # noqa: B023 - called at once
    one.client.leave()
    totals = one.totals()
    assert (totals["CONFIRM"].passed, totals["CONFIRM"].failed) == (3, 0)
    assert totals["UNEXPECTED"].failed == 3


def test_the_response_time_is_right_inside_the_block(talk: Callable[..., Talk]) -> None:
    """Whatever the block does before it looks, or after a failure."""
    truth = Truth()

    def handler(connection: Any, _: Any) -> None:
        for line in lines(connection):
            if line != b"never\n":
                truth.answer(connection, line, 0.1)

    one = talk(handler)
    one.client.connect()
    called = perf_counter()
    with one.client.request("a", name="ASK", catch_response=True) as reply:
        over = perf_counter() - called
        gevent.sleep(0.05)
        assert truth.took[0] <= reply.response_time / 1e3 <= over
    assert truth.took[0] <= one.event.fired[-1]["response_time"] / 1e3 <= over
    called = perf_counter()
    with one.client.request("never", name="ASK", catch_response=True, timeout=0.1) as reply:
        over = perf_counter() - called
        gevent.sleep(0.05)
        assert 0.1 <= reply.response_time / 1e3 <= over


def test_a_verdict_needs_catch_response(talk: Callable[..., Talk]) -> None:
    """A request that was counted already can't be called a failure."""
    one = talk(servers.confirm)
    reply = one.client.request("a", name="ASK")
    with pytest.raises(NotCaught, match="catch_response=True"):
        reply.failure("too late")
    with pytest.raises(NotCaught):
        reply.success()
    assert one.event.of("ASK") == ["None"]


class RescheduleTask(Exception):
    """Stands for Locust's, which can't be imported here: it would patch this process."""


RescheduleTask.__module__ = "locust.exception"


def test_control_flow_is_no_failure(talk: Callable[..., Talk]) -> None:
    """Locust's exceptions that end a task leave the request, and the transaction, what they were."""
    one = talk(servers.confirm)
    with (
        pytest.raises(RescheduleTask),
        one.client.transaction("both"),
        one.client.request("a", name="ASK", catch_response=True),
    ):
        raise RescheduleTask
    assert one.event.of("ASK") == one.event.of("transaction both") == ["None"]


# -- connections ----------------------------------------------------------------------------------


class User:
    """What a ``TcpUser`` is to its client: it logs in, and connects until it is connected."""

    def __init__(self, one: Talk) -> None:
        self.client = one.client
        self.client.owner = self

    def on_connect(self) -> bool:
        """Greeting and login."""
        self.client.receive(name="GREETING", expect="hello")
        return bool(self.client.request("login", name="LOGIN", expect="welcome"))

    def ensure_connected(self) -> None:
        """Without a pause here."""
        while not self.client.connected:
            self.client.connect()


@pytest.mark.parametrize("how", ["closes", "resets"])
def test_a_connection_lost_once_is_one_failure(talk: Callable[..., Talk], how: str) -> None:
    """The next request connects, and logs in before it is sent; no other of a hundred fails."""
    logins = 0
    seen = 0

    def handler(connection: Any, _: Any) -> None:
        nonlocal logins, seen
        connection.sendall(b"hello\n")
        logged_in = False
        for line in lines(connection):
            if line == b"login\n":
                logged_in, logins = True, logins + 1
                connection.sendall(b"welcome\n")
                continue
            seen += 1
            if seen == 50:
                if how == "resets":
                    servers.reset(connection, None)
                return
            connection.sendall(b"Received: " + line if logged_in else b"who are you?\n")

    one = talk(handler)
    User(one)
    for number in range(100):
        one.client.request(f"{number}", name="ASK", expect=f"Received: {number}")
    totals = one.totals()
    assert (totals["ASK"].passed, totals["ASK"].failed) == (99, 1)
    assert sum(kept.failed for kept in totals.values()) == 1
    assert (logins, totals["CONNECT"].passed, totals["LOGIN"].passed, totals["GREETING"].passed) == (2,) * 4


def test_a_login_that_fails_is_no_connection(talk: Callable[..., Talk]) -> None:
    """It is counted once, under its name, and what needed it is sent when a login has succeeded."""
    logins = 0

    def handler(connection: Any, _: Any) -> None:
        nonlocal logins
        connection.sendall(b"hello\n")
        for line in lines(connection):
            logins += line == b"login\n"
            connection.sendall(
                b"no\n" if logins == 1 else b"welcome\n" if line == b"login\n" else b"Received: " + line
            )

    one = talk(handler)
    User(one)
    assert one.client.request("a", name="ASK", expect="Received: a")
    totals = one.totals()
    assert (totals["LOGIN"].failures, totals["ASK"].passed) == ({"WrongReply": 1}, 1)
    assert sum(kept.failed for kept in totals.values()) == 1


def test_a_connect_that_failed_is_counted_once() -> None:
    """Not as a failed request too; the reply says why there is none."""
    one = Talk("tcp://127.0.0.1:1")
    for _ in range(3):
        reply = one.client.request("a", name="ASK", expect="b")
        assert not reply
        assert repr(reply.error) == "ConnectFailed(ECONNREFUSED)"
    totals = one.totals()
    assert totals["CONNECT"].failed == 3
    assert "ASK" not in totals


def test_two_greenlets_on_one_connection_raise_at_once(talk: Callable[..., Talk]) -> None:
    """And the first one gets its reply."""

    def handler(connection: Any, _: Any) -> None:
        for line in lines(connection):
            gevent.sleep(0.05)
            connection.sendall(b"Received: " + line)

    one = talk(handler)
    one.client.connect()
    first = gevent.spawn(one.client.request, "a", name="ASK", expect="Received: a")
    wait_until(lambda: one.client.tcp.busy)
    for call in (
        lambda: one.client.request("b", name="ASK"),
        lambda: one.client.confirm((b"b\n", b"b\n")),
        lambda: one.client.send("b"),
        lambda: one.client.receive(),
        lambda: one.client.start_tls(),
    ):
        with pytest.raises(ConnectionInUse):
            call()
    assert first.get(timeout=30)
    assert one.event.of("ASK") == ["None"]


@pytest.mark.parametrize("addresses", ["first", "all"])
def test_all_addresses_of_a_name_are_tried_and_may_be_spread_over(addresses: str) -> None:
    """The first of three refuses; the others take all connections, or each its turn. None fails."""
    came = [0, 0]

    def count(number: int) -> Handler:
        def handler(connection: Any, _: Any) -> None:
            came[number] += 1
            servers.confirm(connection, _)

        return handler

    with ScriptedServer(count(0)) as first, ScriptedServer(count(1)) as second:
        one = Talk(first.host)
        target = one.client.options.target
        closed = ("127.0.0.1", 1)
        target._resolved = [
            (2, where) for where in (closed, ("127.0.0.1", first.port), ("127.0.0.1", second.port))
        ]
        target.spread = addresses == "all"
        for _ in range(6):
            assert one.client.request("a", name="ASK", expect="Received: a")
            one.client.close()
        assert came == ([6, 0] if addresses == "first" else [4, 2])
        assert one.totals()["CONNECT"].failed == 0
        target._resolved = [(2, closed), (2, closed)]
        assert not one.client.connect()
        assert one.totals()["CONNECT"].failed == 1


# -- names and arguments --------------------------------------------------------------------------


def test_names_are_checked(talk: Callable[..., Talk]) -> None:
    """The kit's own entries can't be a user's, and one name counts one kind of thing."""
    one = talk(servers.confirm)
    for name in ("CONNECT", "UNEXPECTED", "TLS", "CONFIRM", "transaction x", "", "a\nb", "GET @there"):
        with pytest.raises(ValueError, match="name"):
            one.client.request("a", name=name)
    for other in (None, 3, b"GET"):
        with pytest.raises(TypeError):
            one.client.request("a", name=other)  # type: ignore[arg-type]
    one.client.request("a", name="GET")
    with pytest.raises(ValueError, match="'GET' is the name of a request already"):
        one.client.count("GET", 0.1)
    with one.client.transaction("GET"):
        pass
    assert set(one.totals()) == {"CONNECT", "GET", "transaction GET"}


def test_a_mistake_in_an_argument_is_told_before_anything_is_sent(talk: Callable[..., Talk]) -> None:
    """And nothing is counted."""
    one = talk(servers.confirm)
    for how in ({"expect": 5}, {"expect": ["a"]}, {"timeout": 0}, {"timeout": -1}):
        with pytest.raises((TypeError, ValueError)):
            one.client.request("a", name="GET", **how)
    with pytest.raises(TypeError):
        one.client.request(5, name="GET")  # type: ignore[arg-type]
    assert one.event.fired == []


def yes(reply: bytes) -> bool:
    """A function as ``expect``."""
    return reply.endswith(b": a")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (b"Received: a", b"Received: "),
        ("Received: a", "received: a"),
        (Prefix(b"Rec"), Prefix("rec")),
        (re.compile(rb"\ba$"), re.compile(rb"^a")),
        (re.compile("a$"), re.compile("é")),
        (yes, lambda reply: not yes(reply)),
    ],
)
def test_five_kinds_of_expectation(talk: Callable[..., Talk], right: Any, wrong: Any) -> None:
    """Bytes, text, prefix, pattern, function."""
    one = talk(servers.confirm)
    assert one.client.request("a", name="ASK", expect=right)
    assert not one.client.request("a", name="ASK", expect=wrong)
    assert one.event.of("ASK") == ["None", "WrongReply"]
    assert one.totals()["CONNECT"].passed == 1


def test_a_function_that_raises_fails_its_request_and_says_so(talk: Callable[..., Talk]) -> None:
    """A mistake of the locustfile is not hidden, and the request is not lost."""
    one = talk(servers.confirm)
    with pytest.raises(ZeroDivisionError):
        one.client.request("a", name="ASK", expect=lambda reply: 1 / 0)
    assert one.event.of("ASK") == ["Failure(ZeroDivisionError)"]


# -- the rest of the conversation ------------------------------------------------------------------


def test_replies_of_one_connection_may_end_differently(talk: Callable[..., Talk]) -> None:
    """``until`` is for one reply; a ``Wire`` is sent as it is."""
    got: list[bytes] = []

    def handler(connection: Any, _: Any) -> None:
        for line in lines(connection):
            got.append(line)
            connection.sendall(b"+OK\r\none\r\n..\r\n.\r\n" if line == b"RETR\r\n" else b"+OK\r\n")

    one = talk(handler, framing=Lines())
    assert one.client.request("NOOP", name="NOOP", expect="+OK")
    assert one.client.request("RETR", name="RETR", until=Dot(), expect="+OK\r\none\r\n.")
    assert one.client.request(Wire(b"NOOP\n"), name="NOOP", expect="+OK")
    assert got == [b"NOOP\r\n", b"RETR\r\n", b"NOOP\n"]


def test_a_reply_may_end_with_the_stream(talk: Callable[..., Talk]) -> None:
    """Each request has a connection of its own then."""

    def handler(connection: Any, _: Any) -> None:
        connection.recv(100)
        connection.sendall(b"first ")
        gevent.sleep(0.01)
        connection.sendall(b"last")

    one = talk(handler, framing=UntilClose())
    for _ in range(3):
        assert one.client.request("who\r\n", name="WHOIS", expect="first last")
    totals = one.totals()
    assert (totals["WHOIS"].passed, totals["CONNECT"].passed) == (3, 3)


def test_messages_without_a_reply_are_counted_and_not_timed(talk: Callable[..., Talk]) -> None:
    """What the server got is what was counted, and their time is in no percentile."""
    got: list[bytes] = []

    def handler(connection: Any, _: Any) -> None:
        got.extend(lines(connection))

    one = talk(handler)
    for number in range(50):
        assert one.client.send(f"{number}", name="LOG")
    one.client.close()
    wait_until(lambda: len(got) == 50)
    record = one.record()
    assert (record.messages().passed, record.messages().latencies) == (50, {})


def test_the_latency_of_a_push_counts_from_its_stamp(talk: Callable[..., Talk]) -> None:
    """What one user sends and another receives is held by the server for 100 ms: so long it took."""
    members: list[Any] = []
    held: list[float] = []  # in the server, by the clock of the stamp
    over: list[float] = []  # from before the stamp to after the push

    def handler(connection: Any, _: Any) -> None:
        members.append(connection)
        for line in lines(connection):
            came = time_ns()
            gevent.sleep(0.1)
            for member in members:
                if member is not connection:
                    held.append((time_ns() - came) / 1e9)
                    member.sendall(line)

    one = talk(handler)
    other = Talk(str(one.client.options.target))
    other.client.connect()
    other.client.push(lambda message: None, name="NEWS")
    for number in range(5):
        began = time_ns()
        one.client.send(b"news " + one.client.stamp(), name="PUBLISH")
        wait_until(lambda: len(other.event.fired) > number + 1)  # noqa: B023 - called at once
        over.append((time_ns() - began) / 1e9)
    kept = other.totals()["NEWS"]
    assert kept.passed == 5
    figures = [figure for figure, times in sorted(kept.service.items()) for _ in range(times)]
    for least, figure, most in zip(sorted(held), figures, sorted(over), strict=True):
        assert lies_between(least, figure, most)


def test_a_push_is_answered_while_its_user_sleeps_or_waits(talk: Callable[..., Talk]) -> None:
    """A PING before the reply is a push where ``match`` says so; the reply is the next message."""
    answers: list[bytes] = []

    def handler(connection: Any, _: Any) -> None:
        connection.sendall(b"PING 0\n")
        for line in lines(connection):
            if line.startswith(b"PONG"):
                answers.append(line)
            else:
                connection.sendall(b"PING 1\nReceived: " + line + b"PING 2\n")

    one = talk(handler)
    one.client.connect()
    one.client.push(lambda message: b"PONG " + message[5:], match=rb"PING")
    wait_until(lambda: answers == [b"PONG 0\n"])
    assert one.client.request("a", name="ASK", expect="Received: a")
    wait_until(lambda: answers == [b"PONG 0\n", b"PONG 1\n", b"PONG 2\n"])
    totals = one.totals()
    assert (totals["PUSH"].passed, totals["ASK"].passed) == (3, 1)


def test_a_transaction_is_several_steps_as_one(talk: Callable[..., Talk]) -> None:
    """Its time is that of the steps and what lies between them; it fails with the step that failed."""
    truth = Truth()

    def handler(connection: Any, _: Any) -> None:
        for line in lines(connection):
            truth.answer(connection, line, 0.1)

    one = talk(handler)
    one.client.connect()
    called = perf_counter()
    with one.client.transaction("both"):
        began = perf_counter()
        one.client.request("a", name="A", expect="Received: a")
        one.client.request("b", name="B", expect="Received: b")
    over = perf_counter()
    ((micros, _),) = one.totals()["transaction both"].service.items()
    assert lies_between(truth.times[1][1] - began, micros, over - called)
    with one.client.transaction("both"):
        one.client.request("a", name="A", expect="Received: a")
        one.client.request("b", name="B", expect="wrong")
    record = one.record()
    assert record.entries["transaction both"].failures == {"StepFailed(B)": 1}
    assert Results(record)["errors"] == 1
    assert record.messages().passed == 1


def test_own_figures_are_entries(talk: Callable[..., Talk]) -> None:
    """To the microsecond, with failures of their own groups."""
    one = talk(servers.confirm)
    one.client.count("render", 0.0125)
    one.client.count("render", 0.1, "blurred")
    kept = one.totals()["render"]
    assert kept.failures == {"Failure(blurred)": 1}
    assert kept.passed == 1
    assert list(kept.service) == [counted(0.0125)]
