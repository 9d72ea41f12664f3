"""Custom handlers: whatever one does, its client gets its replies and nobody else notices."""

from __future__ import annotations

import contextvars
import logging
import random
from collections.abc import Callable
from typing import Any

import gevent
import gevent.local
import greenlet
import pytest
from gevent.event import Event
from gevent.pool import Pool

from chat_gevent.framing import AUTO, CHUNK, LINE, Framing
from chat_gevent.service import Client
from chat_gevent.state import State
from tests.conftest import wait_until
from tests.peers import Peer
from tests.timing import seconds

Serve = Callable[..., Any]


def shout(message: str, client: Client[Any]) -> str:
    """Answer in capitals."""
    return message.upper()


@pytest.mark.parametrize("framing", [LINE, CHUNK, AUTO])
def test_a_handlers_text_is_the_reply(serve: Serve, park_after: float | None, framing: Framing) -> None:
    """It goes out as it is, with the framing's terminator."""
    server = serve(shout, framing=framing, park_after=park_after)
    with Peer(server.address) as peer:
        peer.send(framing.encode(b"hello"))
        peer.expect(framing.encode(b"HELLO"))


def test_none_is_no_reply(serve: Serve, park_after: float | None) -> None:
    """A handler may stay silent; the message counts all the same."""
    server = serve(lambda text, client: text or None, framing=LINE, park_after=park_after)
    with Peer(server.address) as peer:
        peer.send(b"a\n\n\nb\n")
        peer.end()
        assert peer.rest() == b"a\nb\n"
    wait_until(lambda: server.core.registry.live == 0)
    assert server.core.registry.past_messages == 4


def test_a_handler_that_blocks_blocks_its_client_only(serve: Serve, park_after: float | None) -> None:
    """Others are answered meanwhile; what the client sends meanwhile is answered after, in order."""
    gate = Event()

    waits: list[str] = []

    def handler(message: str, client: Client[Any]) -> str:
        if message == "wait":
            waits.append(message)
            assert gate.wait(seconds(30))
        return message

    server = serve(handler, framing=LINE, park_after=park_after)
    with Peer(server.address) as blocked, Peer(server.address) as other:
        blocked.send(b"before\nwait\nafter\n")
        wait_until(lambda: server.core.engine.leases.leased >= 1 and waits)
        for number in range(5):
            other.send(b"%d\n" % number)
            other.expect(b"%d\n" % number)
            blocked.send(b"more %d\n" % number)
        assert server.core.engine.leases.leased >= 1
        gate.set()
        blocked.expect(b"before\nwait\nafter\nmore 0\nmore 1\nmore 2\nmore 3\nmore 4\n")
        blocked.send(b"unfinished")
        blocked.end()
        assert blocked.rest() == b"unfinished\n"


def test_replies_don_t_wait_for_the_next_handler_that_blocks(serve: Serve, park_after: float | None) -> None:
    """Of pipelined messages, each reply is sent when its own handler is done, also with nobody else on."""
    gates = [Event(), Event(), Event()]

    def handler(message: str, client: Client[Any]) -> str:
        gates[int(message)].wait(30)
        return message

    server = serve(handler, framing=LINE, park_after=park_after)
    with Peer(server.address) as peer:
        peer.send(b"0\n1\n2\n")
        for number, gate in enumerate(gates):
            assert peer.silent(seconds(0.02))
            gate.set()
            peer.expect(b"%d\n" % number)


class Unexpected(BaseException):
    """No Exception, as gevent.Timeout is none."""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("secret"),
        gevent.Timeout(1),
        ConnectionResetError(104, "secret"),
        TimeoutError(),
        AssertionError(),
        Unexpected("as planned"),
        SystemExit(1),
        KeyboardInterrupt(),
        gevent.GreenletExit(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_handler_that_raises_fails_its_message_only(
    serve: Serve, park_after: float | None, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """The client is told ``handler-failed`` and goes on; the traceback is in the log, not in the reply."""

    served_by: list[Any] = []

    def handler(message: str, client: Client[Any]) -> str:
        served_by.append(greenlet.getcurrent())
        if message == "fail":
            gevent.sleep(0.001)
            raise error
        return message

    server = serve(handler, framing=LINE, park_after=park_after)
    with Peer(server.address) as peer:
        peer.send(b"a\nfail\nb\n")
        peer.expect(b"a\nError: handler-failed: the server could not handle the message\nb\n")
        peer.send(b"c\n")
        peer.expect(b"c\n")
        assert len({id(each) for each in served_by[:3]}) == 1  # the greenlet goes on as well
        assert not served_by[0].dead
    with Peer(server.address) as peer:
        peer.send(b"next\n")
        peer.expect(b"next\n")
    failures = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(failures) == 1
    assert failures[0].exc_info
    assert failures[0].exc_info[1] is error


@pytest.mark.parametrize("reply", [7, b"bytes", "\ud800"], ids=["int", "bytes", "surrogate"])
def test_a_reply_that_is_no_text_fails_its_message(
    serve: Serve, park_after: float | None, reply: Any
) -> None:
    """A handler's wrong type or text that has no UTF-8 is the handler's failure, not the connection's."""
    server = serve(lambda text, client: reply if text == "bad" else text, framing=LINE, park_after=park_after)
    with Peer(server.address) as peer:
        peer.send(b"a\nbad\nb\n")
        peer.expect(b"a\nError: handler-failed: the server could not handle the message\nb\n")


def test_a_handler_that_is_killed_fails_its_message(serve: Serve, park_after: float | None) -> None:
    """gevent.kill() of the greenlet that serves a client ends neither the connection nor the server."""

    def handler(message: str, client: Client[Any]) -> str:
        if message == "kill":
            gevent.kill(gevent.getcurrent())
            gevent.sleep(5)
        return message

    server = serve(handler, framing=LINE, park_after=park_after)
    with Peer(server.address) as other, Peer(server.address) as peer:
        for _ in range(3):
            peer.send(b"a\nkill\nb\n")
            peer.expect(b"a\nError: handler-failed: the server could not handle the message\nb\n")
            other.send(b"b\n")
            other.expect(b"b\n")
    wait_until(lambda: server.core.registry.live == 0)
    assert server.core.registry.closed == {"eof": 2}
    assert server.core.registry.errors == {"handler-failed": 3}
    wait_until(lambda: server.core.engine.leases.leased == 0)


def test_greenlet_locals_and_context_don_t_reach_the_next_client(
    serve: Serve, park_after: float | None
) -> None:
    """Greenlets serve client after client; what a handler stored by greenlet or context must not show."""
    local = gevent.local.local()
    context: contextvars.ContextVar[str] = contextvars.ContextVar("context", default="")

    def handler(message: str, client: Client[Any]) -> str:
        seen = f"{getattr(local, 'owner', '')}{context.get()}"
        if message == "block":
            gevent.sleep(0.001)
        local.owner = message
        context.set(message)
        return seen

    server = serve(handler, framing=LINE, park_after=park_after)
    for _ in range(3):
        peers = [Peer(server.address) for _ in range(8)]
        for peer, word in zip(peers, (b"a", b"block") * 4, strict=True):
            peer.send(word + b"\n")
        for peer in peers:
            peer.expect(b"\n")
            peer.close()


def test_state_belongs_to_the_connection(serve: Serve, park_after: float | None) -> None:
    """``client.state`` is None at first, kept for the connection, and not the next one's."""

    def handler(message: str, client: Client[Any]) -> str:
        client.state = (client.state or 0) + 1
        return f"{client.state}"

    server = serve(handler, framing=LINE, park_after=park_after)
    for _ in range(2):
        with Peer(server.address) as peer:
            peer.send(b"x\nx\n")
            peer.expect(b"1\n2\n")
            wait_until(lambda: all(each.state is not State.BUSY for each in server.core.engine.all()))
            peer.send(b"x\n")
            peer.expect(b"3\n")


def test_a_handler_sees_the_clients_address(serve: Serve, park_after: float | None) -> None:
    """``client.address`` is the peer's, and None once it is gone."""
    seen: list[Any] = []
    vanished = Event()

    def handler(message: str, client: Client[Any]) -> str:
        seen.append(client.address)
        if message == "vanish":
            assert vanished.wait(seconds(30))
            seen.append(client.address)
        return message

    server = serve(handler, framing=LINE, park_after=park_after)
    with Peer(server.address) as peer:
        expected = peer.socket.getsockname()
        peer.send(b"vanish\n")
        wait_until(lambda: seen)
        [connection] = server.core.engine.all()
        peer.reset()
        connection.cut("reset")  # as a push to it would find out while its handler is at work
        vanished.set()
        wait_until(lambda: len(seen) == 2)
    assert seen == [expected, None]


@pytest.mark.parametrize("framing", [LINE, CHUNK])
def test_a_handler_closes_after_its_reply(serve: Serve, park_after: float | None, framing: Framing) -> None:
    """``client.close()``: this message's reply is sent, what was pipelined behind it is dropped."""

    def handler(message: str, client: Client[Any]) -> str:
        if message == "bye":
            client.close()
        return message

    server = serve(handler, framing=framing, park_after=park_after)
    end = framing.encode(b"")
    with Peer(server.address) as peer:
        peer.send(b"a" + end)
        peer.expect(b"a" + end)
        peer.send(b"bye" + end + (b"dropped\n" * 1000 + b"too long" * 10_000 if end else b""))
        assert peer.rest() == b"bye" + end
    wait_until(lambda: server.core.registry.live == 0)
    assert server.core.registry.closed == {"handler": 1}


def test_greenlets_are_as_many_as_clients_that_are_busy(serve: Serve) -> None:
    """Parked clients have none, each in a handler that blocks has one; afterwards only a few are kept."""
    gate = Event()

    def handler(message: str, client: Client[Any]) -> str:
        if message == "wait":
            gate.wait(30)
        return message

    server = serve(handler, framing=LINE, spare_greenlets=4)
    engine = server.core.engine
    peers = [Peer(server.address) for _ in range(50)]
    for peer in peers:
        peer.send(b"a\n")
        peer.expect(b"a\n")
    assert (engine.leases.leased, engine.leases.free) == (0, 1)
    for peer in peers[:30]:
        peer.send(b"wait\n")
    wait_until(lambda: engine.leases.leased == 30)
    gate.set()
    for peer in peers[:30]:
        peer.expect(b"wait\n")
    wait_until(lambda: (engine.leases.leased, engine.leases.free) == (0, 4))
    for peer in peers:
        peer.send(b"b\n")
        peer.expect(b"b\n")
        peer.close()


@pytest.mark.timeout(180)
def test_five_thousand_clients_in_a_handler_that_blocks(serve: Serve, park_after: float | None) -> None:
    """Each gets its own reply, all wait at the same time, and the greenlets beyond the cap are given back."""
    busy = 0
    all_wait = Event()

    def handler(message: str, client: Client[Any]) -> str:
        nonlocal busy
        busy += 1
        if busy == 5000:
            all_wait.set()
        all_wait.wait()
        gevent.sleep(0.1)
        busy -= 1
        return message

    server = serve(handler, framing=LINE, park_after=park_after, spare_greenlets=64)
    peers = [Peer(server.address) for _ in range(5000)]
    wait_until(lambda: server.core.registry.live == 5000)
    for _ in range(2):
        for number, peer in enumerate(peers):
            peer.send(b"%d\n" % number)
        for number, peer in enumerate(peers):
            peer.expect(b"%d\n" % number)
    assert all_wait.is_set()
    if park_after is not None:
        wait_until(lambda: (server.core.engine.leases.leased, server.core.engine.leases.free) == (0, 64))
    for peer in peers:
        peer.close()
    wait_until(lambda: server.core.registry.live == 0)
    wait_until(lambda: (server.core.engine.leases.leased, server.core.engine.leases.free) == (0, 64))


def test_clients_that_never_park_keep_a_greenlet_each(serve: Serve) -> None:
    """``park_after=None``: the classic greenlet for each client from its first byte to its end."""
    server = serve(framing=LINE, park_after=None)
    peers = [Peer(server.address) for _ in range(10)]
    for peer in peers:
        peer.ask(b"a")
    assert server.core.engine.leases.leased == 10
    for peer in peers:
        peer.close()
    wait_until(lambda: server.core.engine.leases.leased == 0)


def make_pool() -> Pool:
    """A pool with room."""
    return Pool(50)


@pytest.mark.parametrize(
    "spawn", [gevent.spawn, gevent.spawn_raw, 50, make_pool], ids=["spawn", "raw", "50", "pool"]
)
@pytest.mark.parametrize("framing", [LINE, AUTO])
def test_spawn_gives_each_client_a_greenlet_of_that_kind(
    serve: Serve, park_after: float | None, spawn: Any, framing: Framing
) -> None:
    """StreamServer's ``spawn``: the protocol is the same, whatever the greenlet comes from."""
    server = serve(framing=framing, park_after=park_after, spawn=spawn() if spawn is make_pool else spawn)
    peers = [Peer(server.address) for _ in range(20)]
    random.Random(1).shuffle(peers)
    for _ in range(3):
        for peer in peers:
            peer.send(b"a\nb\r\n")
        for peer in peers:
            peer.expect(b"Received: a\nReceived: b\n")
    for peer in peers[:10]:
        peer.send(b"/exit\n")
        assert peer.rest() == b""
    for peer in peers[10:]:
        peer.end()
        assert peer.rest() == b""
    for peer in peers:
        peer.close()
    wait_until(lambda: server.core.registry.live == 0)
