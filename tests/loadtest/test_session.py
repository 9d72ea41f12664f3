"""The reporting client: every reply is compared, every request fires once, nothing hung is a success."""

from __future__ import annotations

from typing import Any

import gevent
import gevent.event
import pytest

from loadtest.client.address import Target
from loadtest.client.transport import Settings
from loadtest.count.counters import Measures
from loadtest.framing import Chunk, Framing, Line
from loadtest.messages import confirm_exchange, make_ring
from loadtest.session import TcpSession
from tests.loadtest import peers
from tests.loadtest.peers import Peer


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
    peer: Peer, framing: Framing | None = None, **how: Any
) -> tuple[TcpSession, Recorded, Measures]:
    """A connected session and where it reports."""
    event, measures = Recorded(), Measures()
    settings = Settings(Target.parse(peer.host), framing or Line(), **{"read_timeout": 0.3, **how})
    session = TcpSession(settings, event, measures)
    assert session.connect()
    return session, event, measures


HELLO = confirm_exchange(Line(), b"hello")


@pytest.mark.parametrize("handler", [peers.confirm, peers.late, peers.pieces])
def test_a_right_reply_passes_however_it_arrives(handler: peers.Handler) -> None:
    """At once, late, or in pieces: a service time each, and the first byte apart where it came apart."""
    with Peer(handler) as peer:
        session, event, measures = session_of(peer)
        assert all(session.confirm(HELLO) for _ in range(3))
        kept = measures.collect()
        assert event.of("CONFIRM") == ["None"] * 3
        assert event.of("CONNECT") == ["None"]
        assert kept["CONFIRM"].passed == 3
        assert kept["CONFIRM"].failed == 0
        first, whole = sorted(kept["CONFIRM"].first_byte), sorted(kept["CONFIRM"].service)
        assert sum(kept["CONFIRM"].first_byte.values()) == 3
        if handler is peers.pieces:
            assert max(first) + 5_000 < min(whole)
        else:
            assert first == whole
        assert kept["CONFIRM"].bytes_in == 3 * len(HELLO[1])
        assert kept["CONFIRM"].bytes_out == 3 * len(HELLO[0])
        session.close()


@pytest.mark.parametrize(
    ("handler", "group"),
    [
        (peers.wrong, "WrongReply"),
        (peers.twice, "UnexpectedData"),
        (peers.never, "ReadTimeout"),
        (peers.leave, "ConnectionClosed"),
        (peers.half, "ConnectionClosed"),
        (peers.reset, "ConnectionLost(ECONNRESET)"),
        (peers.refuse, "ErrorReply(handler-failed)"),
    ],
)
def test_anything_but_the_right_reply_fails(handler: peers.Handler, group: str) -> None:
    """One failure, named by class and reason; the connection is kept only where it is in step."""
    with Peer(handler) as peer:
        session, event, measures = session_of(peer)
        assert not session.confirm(HELLO)
        assert event.of("CONFIRM") == [group]
        assert measures.collect()["CONFIRM"].failures == {group: 1}
        assert measures.samples[group].startswith("CONFIRM: ")
        assert session.connected == group.startswith("ErrorReply")
        session.close()
        assert measures.open == 0


def test_a_failed_connect_is_counted_and_not_raised() -> None:
    """Users go on, and the table says how often."""
    with Peer(peers.confirm) as peer:
        session, event, _ = session_of(peer)
        session.close()
    assert not session.connect()
    assert event.of("CONNECT") == ["None", "ConnectFailed(ECONNREFUSED)"]


def test_a_request_in_flight_is_aborted_and_fires_nothing() -> None:
    """A user that is stopped while it waits has neither passed nor failed."""
    arrived = gevent.event.Event()

    def hear(connection: Any, _: Any) -> None:
        assert connection.recv(1024)
        arrived.set()
        peers.never(connection, _)

    with Peer(hear) as peer:
        session, event, measures = session_of(peer, read_timeout=30.0)
        user = gevent.spawn(session.confirm, HELLO)
        assert arrived.wait(5)
        user.kill()
        assert event.of("CONFIRM") == []
        kept = measures.collect()["CONFIRM"]
        assert (kept.aborted, kept.passed, kept.failed) == (1, 0, 0)
        assert not session.connected


def test_a_pipeline_counts_each_message() -> None:
    """Four messages in one write are four requests; the server's one burst answers all."""
    with Peer(peers.burst) as peer:
        session, event, measures = session_of(peer)
        batch = [confirm_exchange(Line(), b"message %d" % number) for number in range(4)]
        assert session.confirm_many(batch)
        assert event.of("CONFIRM") == ["None"] * 4
        assert measures.collect()["CONFIRM"].passed == 4
        session.close()


@pytest.mark.parametrize(("handler", "passed"), [(peers.wrong, 0), (peers.leave, 0), (peers.twice, 1)])
def test_what_follows_a_broken_reply_of_a_pipeline_fails_with_it(handler: peers.Handler, passed: int) -> None:
    """Once replies and messages are out of step, no later reply can be believed."""
    with Peer(handler) as peer:
        session, event, measures = session_of(peer)
        batch = [confirm_exchange(Line(), b"message %d" % number) for number in range(4)]
        assert not session.confirm_many(batch)
        kept = measures.collect()["CONFIRM"]
        assert (kept.passed, kept.failed) == (passed, 4 - passed)
        assert len(event.of("CONFIRM")) == 4
        session.close()


def test_without_framing_replies_are_compared_too() -> None:
    """Chunk framing: the reply has no terminator, and its expected length says when it is complete."""
    with Peer(peers.pieces) as peer:
        session, event, _ = session_of(peer, Chunk())
        exchange = (b"hi\n", b"Received: hi\n")
        assert session.confirm(exchange)
        assert event.of("CONFIRM") == ["None"]
        session.close()


def test_response_time_counts_from_the_intended_start() -> None:
    """A message that left late has a longer response time than service time, and both are kept."""
    with Peer(peers.confirm) as peer:
        session, event, measures = session_of(peer)
        from time import perf_counter

        assert session.confirm(HELLO, perf_counter() - 0.5)
        kept = measures.collect()["CONFIRM"]
        assert max(kept.service) < 200_000
        assert min(kept.response) >= 499_000
        assert event.fired[-1]["response_time"] >= 500
        session.close()


def test_a_request_is_what_the_user_says_it_is() -> None:
    """``catch_response``: the block decides, the event is fired once, when it ends, with both contexts."""
    with Peer(peers.confirm) as peer:
        event, measures = Recorded(), Measures()
        session = TcpSession(Settings(Target.parse(peer.host)), event, measures, lambda: {"user": 7})
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
        assert [r["url"] for r in event.fired] == [peer.host] * len(event.fired)
        assert measures.collect()["PING"].passed == 1
        session.close()


@pytest.mark.parametrize(("framing", "kept"), [(Line(), True), (Chunk(), False)])
def test_a_whole_reply_that_is_wrong_keeps_the_connection_in_step(framing: Framing, kept: bool) -> None:
    """Where a reply's end is marked, the next request is asked on the same connection; else on a new one."""
    with Peer(peers.confirm) as peer:
        session, event, _ = session_of(peer, framing)
        source = session.tcp.source
        end = "" if kept else "\n"  # the server waits for it, and this framing adds none
        assert not session.request(f"one{end}", expect=f"Received: two{end}")
        assert session.connected == kept
        assert session.request(f"two{end}", expect=f"Received: two{end}")
        assert (session.tcp.source == source) == kept
        assert event.of("REQUEST") == ["WrongReply", "None"]
        session.close()


def test_a_request_that_got_no_reply_cannot_be_called_a_success() -> None:
    """``reply.success()`` forgives a wrong reply, not a missing one."""
    with Peer(peers.never) as peer:
        session, event, _ = session_of(peer, read_timeout=0.1)
        with session.request("ping", name="PING", catch_response=True) as reply:
            reply.success()
        assert event.of("PING") == ["ReadTimeout"]


def test_exit_and_hold_are_requests_of_their_own() -> None:
    """EXIT passes when the server closes in silence; HOLD fails when the server leaves."""
    with Peer(peers.confirm) as peer:
        session, event, measures = session_of(peer)
        assert session.idle(0.01)
        assert session.exit()
        assert event.of("EXIT") == ["None"]
        assert (measures.open, measures.opened) == (0, 1)
    with Peer(peers.go_away) as peer:
        session, event, _ = session_of(peer)
        assert not session.idle(2)
        assert event.of("HOLD") == ["ConnectionClosed"]


def test_a_ring_has_different_messages_of_the_wanted_size() -> None:
    """Users that walk it send different messages, so a reply to another user's is noticed."""
    ring = make_ring(Line(), 32)
    assert len({wire for wire, _ in ring}) == len(ring) == 1024
    assert {len(wire) for wire, _ in ring} == {33}
    assert all(expected == b"Received: " + wire for wire, expected in ring)
    assert {len(wire) for wire, _ in make_ring(Line(), 1)} == {2}
    assert len(make_ring(Line(), 2**20)) == 31  # and not 2 GiB of them
