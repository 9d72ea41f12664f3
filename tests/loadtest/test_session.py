"""The reporting client: every reply is compared, every request fires once, nothing hung is a success."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import gevent
import gevent.event
import pytest

from loadtest.client.address import Target
from loadtest.client.tls import make_context
from loadtest.client.transport import ClientOptions
from loadtest.conversation import Conversation
from loadtest.count.counters import Counters
from loadtest.framing import Chunk, Line, ReplyFraming
from loadtest.messages import confirm_exchange, make_ring
from tests.loadtest import servers
from tests.loadtest.ports import reserved_port
from tests.loadtest.servers import ScriptedServer


class Recorded:
    """Stands where Locust's request event stands, and keeps what was fired."""

    def __init__(self) -> None:
        self.fired: list[dict[str, Any]] = []

    def fire(self, **request: Any) -> None:
        """As Locust's EventHook."""
        self.fired.append(request)

    def of(self, name: str) -> list[str]:
        """How the requests called ``name`` ended, in order."""
        return [repr(r["exception"]) for r in self.fired if r["name"] == name]


def session_of(
    server: ScriptedServer, framing: ReplyFraming | None = None, **how: Any
) -> tuple[Conversation, Recorded, Counters]:
    """A connected session and where it reports."""
    event, counters = Recorded(), Counters()
    how = {"connect_timeout": 30.0, "read_timeout": 30.0, **how}
    settings = ClientOptions(Target.parse(server.host), framing or Line(), **how)
    session = Conversation(settings, event, counters)
    assert session.connect()
    return session, event, counters


HELLO = confirm_exchange(Line(), b"hello")


@pytest.mark.parametrize("handler", [servers.confirm, servers.late, servers.pieces])
def test_a_right_reply_passes_however_it_arrives(handler: servers.Handler) -> None:
    """At once, late, or in pieces: a service time each, and the first byte apart where it came apart."""
    with ScriptedServer(handler) as server:
        session, event, counters = session_of(server)
        assert all(session.confirm(HELLO) for _ in range(3))
        kept = counters.collect()
        assert event.of("CONFIRM") == ["None"] * 3
        assert event.of("CONNECT") == ["None"]
        assert kept["CONFIRM"].passed == 3
        assert kept["CONFIRM"].failed == 0
        assert sum(kept["CONFIRM"].first_byte.values()) == 3
        apart = sum(kept["CONFIRM"].split_first.values())
        assert apart == sum(kept["CONFIRM"].split_reply.values()) == (3 if handler is servers.pieces else 0)
        assert kept["CONFIRM"].bytes_in == 3 * len(HELLO[1])
        assert kept["CONFIRM"].bytes_out == 3 * len(HELLO[0])
        session.close()


def test_the_first_byte_and_the_end_of_a_reply_have_their_times() -> None:
    """The first byte was read before the server saw that it was, and the end came after what it sent then."""
    held = servers.HeldPieces()
    with ScriptedServer(held) as server:
        session, _, counters = session_of(server)
        begin = perf_counter()
        held.heard = lambda: session.tcp.first_byte_at > begin
        assert session.confirm(HELLO)
        over = perf_counter()
        kept = counters.collect()["CONFIRM"]
        ((came, read, sent),) = held.moments
        ((first, _),) = kept.first_byte.items()
        ((whole, _),) = kept.service.items()
        assert first <= (read - begin) * 1e6
        assert (sent - came) * 1e6 * 0.998 <= whole <= (over - begin) * 1e6  # figures are rounded down
        session.close()


@pytest.mark.parametrize(
    ("handler", "group"),
    [
        (servers.wrong, "WrongReply"),
        (servers.twice, "UnexpectedData"),
        (servers.never, "ReadTimeout"),
        (servers.leave, "ConnectionClosed"),
        (servers.half, "ConnectionClosed"),
        (servers.reset, "ConnectionBroken(ECONNRESET)"),
        (servers.refuse, "ErrorReply(handler-failed)"),
    ],
)
def test_anything_but_the_right_reply_fails(handler: servers.Handler, group: str) -> None:
    """One failure, named by class and reason; the connection is kept only where it is in step."""
    with ScriptedServer(handler) as server:
        how: dict[str, Any] = {"read_timeout": 0.1} if handler is servers.never else {}
        session, event, counters = session_of(server, **how)
        assert not session.confirm(HELLO)
        assert event.of("CONFIRM") == [group]
        assert counters.collect()["CONFIRM"].failures == {group: 1}
        assert counters.samples[group].startswith("CONFIRM: ")
        assert session.connected == group.startswith("ErrorReply")
        session.close()
        assert counters.open == 0


def test_a_failed_connect_is_counted_and_not_raised() -> None:
    """Users go on, and the table says how often."""
    with reserved_port() as port:  # or another process may listen on it once the server is gone
        with ScriptedServer(servers.confirm, port) as server:
            session, event, _ = session_of(server)
            session.close()
        assert not session.connect()
    assert event.of("CONNECT") == ["None", "ConnectFailed(ECONNREFUSED)"]


def no_tls(connection: Any, _: Any) -> None:
    """In the clear, whatever is said."""
    connection.recv(65_536)
    connection.sendall(b"what?\n")
    servers.never(connection, _)


def test_a_connection_that_fails_to_begin_tls_is_open_no_more() -> None:
    """Whatever closes it; the next one is counted again."""
    with ScriptedServer(no_tls) as server:
        session, event, counters = session_of(server)
        assert counters.open == 1
        assert not session.start_tls(make_context(verify=False))
        assert (session.connected, counters.open) == (False, 0)
        (failed,) = event.of("TLS")
        assert failed.startswith("TlsFailed(")
        assert session.connect()
        assert (counters.open, counters.opened) == (1, 2)
        session.close()
        session.close()
        assert counters.open == 0


def test_a_request_in_flight_is_aborted_and_fires_nothing() -> None:
    """A user that is stopped while it waits has neither passed nor failed."""
    arrived = gevent.event.Event()

    def hear(connection: Any, _: Any) -> None:
        assert connection.recv(1024)
        arrived.set()
        servers.never(connection, _)

    with ScriptedServer(hear) as server:
        session, event, counters = session_of(server, read_timeout=30.0)
        user = gevent.spawn(session.confirm, HELLO)
        assert arrived.wait(30)
        user.kill()
        assert event.of("CONFIRM") == []
        kept = counters.collect()["CONFIRM"]
        assert (kept.aborted, kept.passed, kept.failed) == (1, 0, 0)
        assert not session.connected


def test_a_pipeline_counts_each_message() -> None:
    """Four messages in one write are four requests; the server's one burst answers all."""
    with ScriptedServer(servers.burst) as server:
        session, event, counters = session_of(server)
        batch = [confirm_exchange(Line(), b"message %d" % number) for number in range(4)]
        assert session.confirm_many(batch)
        assert event.of("CONFIRM") == ["None"] * 4
        assert counters.collect()["CONFIRM"].passed == 4
        session.close()


@pytest.mark.parametrize(("handler", "passed"), [(servers.wrong, 0), (servers.leave, 0), (servers.twice, 1)])
def test_what_follows_a_broken_reply_of_a_pipeline_fails_with_it(
    handler: servers.Handler, passed: int
) -> None:
    """Once replies and messages are out of step, no later reply can be believed."""
    with ScriptedServer(handler) as server:
        session, event, counters = session_of(server)
        batch = [confirm_exchange(Line(), b"message %d" % number) for number in range(4)]
        assert not session.confirm_many(batch)
        kept = counters.collect()["CONFIRM"]
        assert (kept.passed, kept.failed) == (passed, 4 - passed)
        assert len(event.of("CONFIRM")) == 4
        session.close()


def test_what_comes_behind_the_last_reply_of_a_pipeline_fails_the_last_message() -> None:
    """Four messages are four requests, three of which passed, with the bytes that these sent and got."""

    def one_too_many(connection: Any, _: Any) -> None:
        waiting = b""
        for number, line in enumerate(servers.lines(connection), 1):
            waiting += b"Received: " + line
            if number == 4:
                connection.sendall(waiting + b"Received: " + line)

    with ScriptedServer(one_too_many) as server:
        session, event, counters = session_of(server)
        batch = [confirm_exchange(Line(), b"message %d" % number) for number in range(4)]
        assert not session.confirm_many(batch)
        kept = counters.collect()["CONFIRM"]
        assert (kept.passed, kept.failures) == (3, {"UnexpectedData": 1})
        assert event.of("CONFIRM") == ["None"] * 3 + ["UnexpectedData"]
        assert kept.bytes_out == sum(len(wire) for wire, _ in batch[:3])
        assert kept.bytes_in == sum(len(expected) for _, expected in batch[:3])
        assert not session.connected


def test_without_framing_replies_are_compared_too() -> None:
    """Chunk framing: the reply has no terminator, and its expected length says when it is complete."""
    with ScriptedServer(servers.pieces) as server:
        session, event, _ = session_of(server, Chunk())
        exchange = (b"hi\n", b"Received: hi\n")
        assert session.confirm(exchange)
        assert event.of("CONFIRM") == ["None"]
        session.close()


def test_response_time_counts_from_the_intended_start() -> None:
    """A message that left late has a longer response time than service time, and both are kept."""
    with ScriptedServer(servers.confirm) as server:
        session, event, counters = session_of(server)
        begin = perf_counter()
        assert session.confirm(HELLO, begin - 0.5)
        over = perf_counter()
        kept = counters.collect()["CONFIRM"]
        assert max(kept.service) <= (over - begin) * 1e6
        assert min(kept.response) >= 499_000
        assert event.fired[-1]["response_time"] >= 500
        session.close()


def test_a_request_is_what_the_user_says_it_is() -> None:
    """``catch_response``: the block decides, the event is fired once, when it ends, with both contexts."""
    with ScriptedServer(servers.confirm) as server:
        event, counters = Recorded(), Counters()
        session = Conversation(ClientOptions(Target.parse(server.host)), event, counters, lambda: {"user": 7})
        with session.request("ping", name="PING", catch_response=True, context={"try": 1}) as reply:
            assert reply.text == "Received: ping"
            assert event.of("PING") == []
            reply.failure("too polite")
        assert event.of("PING") == ["Failure(too polite)"]
        assert event.fired[-1]["context"] == {"user": 7, "try": 1}
        with pytest.raises(ZeroDivisionError), session.request("ping", name="PING", catch_response=True):
            raise ZeroDivisionError
        assert event.of("PING")[1:] == ["Failure(ZeroDivisionError)"]
        assert session.request("ping", name="PING", expect="Received: ping")
        assert not session.request("ping", name="PING", expect="pong")
        assert event.of("PING")[2:] == ["None", "WrongReply"]
        assert [r["url"] for r in event.fired] == [server.host] * len(event.fired)
        assert counters.collect()["PING"].passed == 1
        session.close()


@pytest.mark.parametrize(("framing", "kept"), [(Line(), True), (Chunk(), False)])
def test_a_whole_reply_that_is_wrong_keeps_the_connection_in_step(framing: ReplyFraming, kept: bool) -> None:
    """Where a reply's end is marked, the next request is asked on the same connection; else on a new one."""
    with ScriptedServer(servers.confirm) as server:
        session, event, _ = session_of(server, framing)
        source = session.tcp.source
        end = "" if kept else "\n"  # the server waits for it, and this framing adds none
        assert not session.request(f"one{end}", name="ASK", expect=f"Received: two{end}")
        assert session.connected == kept
        assert session.request(f"two{end}", name="ASK", expect=f"Received: two{end}")
        assert (session.tcp.source == source) == kept
        assert event.of("ASK") == ["WrongReply", "None"]
        session.close()


def test_a_request_that_got_no_reply_cannot_be_called_a_success() -> None:
    """``reply.success()`` forgives a wrong reply, not a missing one."""
    with ScriptedServer(servers.never) as server:
        session, event, _ = session_of(server, read_timeout=0.1)
        with session.request("ping", name="PING", catch_response=True) as reply:
            reply.success()
        assert event.of("PING") == ["ReadTimeout"]


def test_exit_and_hold_are_requests_of_their_own() -> None:
    """EXIT passes when the server closes in silence; HOLD fails when the server leaves."""
    with ScriptedServer(servers.confirm) as server:
        session, event, counters = session_of(server)
        assert session.idle(0.01)
        assert session.exit()
        assert event.of("EXIT") == ["None"]
        assert (counters.open, counters.opened) == (0, 1)
    with ScriptedServer(servers.go_away) as server:
        session, event, _ = session_of(server)
        assert not session.idle(50)
        assert event.of("HOLD") == ["ConnectionClosed"]


def test_a_ring_has_different_messages_of_the_wanted_size() -> None:
    """Users that walk it send different messages, so a reply to another user's is noticed."""
    ring = make_ring(Line(), 32)
    assert len({wire for wire, _ in ring}) == len(ring) == 1024
    assert {len(wire) for wire, _ in ring} == {33}
    assert all(expected == b"Received: " + wire for wire, expected in ring)
    assert {len(wire) for wire, _ in make_ring(Line(), 1)} == {2}
    assert len(make_ring(Line(), 2**20)) == 31  # and not 2 GiB of them
