"""Services: hooks, pushes, groups and broadcasts, over each kind of listener and of parking."""

from __future__ import annotations

import socket as std
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import gevent
import pytest
from gevent.event import Event

from chat_gevent.broadcast import AT_ONCE
from chat_gevent.errors import Refuse
from chat_gevent.framing import LINE, Delimiter, Framing, LengthPrefix
from chat_gevent.service import Client, Service
from tests.conftest import wait_until
from tests.operate import certificate
from tests.peers import Peer, TlsPeer
from tests.protocol import without_hint
from tests.timing import seconds

Serve = Callable[..., Any]

TOLD = b"Error: shutting-down: the server is going away\n"


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost; its key is beside it."""
    return certificate(tmp_path_factory.mktemp("certificate"), "server")


class Place:
    """A kind of listener: what to start a server with, and how a client gets to it."""

    def __init__(self, kind: str, serve: Serve, folder: Path, pem: Path) -> None:
        self.kind = kind
        self._serve, self._folder, self._pem = serve, folder, pem

    def serve(self, service: Any, **options: Any) -> Any:
        """A server of that kind."""
        if self.kind == "unix":
            listener = std.socket(std.AF_UNIX)
            listener.bind(str(self._folder / "socket"))
            listener.listen(1000)
            options["listener"] = listener
        elif self.kind == "tls":
            options |= {"certfile": str(self._pem), "keyfile": str(self._pem.with_suffix(".key"))}
        return self._serve(service, **options)

    def dial(self, server: Any, **options: Any) -> Peer:
        """A client of it."""
        return (
            TlsPeer(server.address, str(self._pem)) if self.kind == "tls" else Peer(server.address, **options)
        )


@pytest.fixture(params=["tcp", "tls", "unix"])
def place(request: pytest.FixtureRequest, serve: Serve, tmp_path: Path, pem: Path) -> Place:
    """Each kind of listener in turn."""
    return Place(request.param, serve, tmp_path, pem)


class Noted(Service):
    """Notes who came and who went; some messages make it do what services do."""

    def __init__(self) -> None:
        self.came: list[Client[Any]] = []
        self.went: list[tuple[Client[Any], str]] = []
        self.gate = Event()
        self.waiting: list[Client[Any]] = []

    def connected(self, client: Client[Any]) -> str | None:
        """Greet."""
        self.came.append(client)
        return f"welcome {client.id}"

    def message(self, message: str, client: Client[Any]) -> str | None:
        """Answer, after what the message asks for."""
        if message == "wait":
            self.waiting.append(client)
            self.gate.wait(seconds(30))
        elif message == "close":
            client.close("last")
        elif message == "none":
            return None
        return f"re {message}"

    def disconnected(self, client: Client[Any], reason: str) -> None:
        """Note it."""
        self.went.append((client, reason))

    @property
    def reasons(self) -> list[str]:
        """Why clients went."""
        return [reason for _, reason in self.went]


def welcomed(place: Place, server: Any, **options: Any) -> Peer:
    """A client that has read its greeting."""
    came = server.core.service.came
    before = len(came)
    peer = place.dial(server, **options)
    wait_until(lambda: len(came) > before)
    peer.expect(b"welcome %d\n" % came[before].id)
    return peer


def settled(server: Any, service: Noted) -> None:
    """Wait until nobody is connected and every client's end was told; each exactly once."""
    wait_until(lambda: server.core.registry.live == 0 and len(service.went) >= len(service.came))
    gevent.sleep(0)
    assert sorted(client.id for client, _ in service.went) == sorted(each.id for each in service.came)


# -- coming and going ------------------------------------------------------------------------------


def test_a_greeting_comes_unasked(place: Place, park_after: float | None) -> None:
    """Before the client has said a word, and once."""
    service = Noted()
    server = place.serve(service, park_after=park_after)
    with welcomed(place, server) as peer:
        peer.send(b"a\n")
        peer.expect(b"re a\n")
        assert server.clients == service.came
    settled(server, service)
    assert all(
        client.closed and not client.send("late") and client.address is None for client, _ in service.went
    )


def test_a_client_may_be_refused(place: Place, park_after: float | None) -> None:
    """It is told why; no hook hears of it again, and what it says is dropped."""

    class Choosy(Noted):
        def connected(self, client: Client[Any]) -> str | None:
            raise Refuse("members only")

    service = Choosy()
    server = place.serve(service, park_after=park_after)
    with place.dial(server) as peer:
        assert peer.rest() == b"Error: refused: members only\n"
    wait_until(lambda: server.core.registry.live == 0)
    assert server.core.registry.closed == {"refused": 1}
    assert server.core.registry.refused == {"refused": 1}
    assert service.went == []


def test_a_greeting_that_fails(place: Place, park_after: float | None) -> None:
    """The client is told and closed; its end is told to the service, which may have noted it already."""

    class Broken(Noted):
        def connected(self, client: Client[Any]) -> str | None:
            super().connected(client)
            raise SystemExit("as planned")

    service = Broken()
    server = place.serve(service, park_after=park_after)
    with place.dial(server) as peer:
        assert peer.rest() == b"Error: handler-failed: the server could not admit you\n"
    settled(server, service)
    assert service.reasons == ["handler-failed"]


def test_each_end_is_told_once(place: Place, park_after: float | None) -> None:
    """Exit, end of stream, reset, a close by the service, a time-out: the hook hears of each, and why."""
    service = Noted()
    server = place.serve(service, park_after=park_after)
    with welcomed(place, server) as peer:
        peer.send(b"/exit\n")
        assert peer.rest() == b""
    with welcomed(place, server) as peer:
        peer.send(b"close\nnot this\n")
        assert peer.rest() == b"re close\nlast\n"
    settled(server, service)
    with welcomed(place, server) as peer:
        [connection] = server.core.engine.all()
        connection.overdue(2**40)  # as the sweep does once the time is over
        assert peer.rest().startswith(b"Error: idle-timeout: ")
    settled(server, service)
    assert service.reasons == ["exit", "handler", "idle-timeout"]
    peer = welcomed(place, server)
    if place.kind == "tls":
        peer.socket.unwrap()  # type: ignore[attr-defined]
    peer.close()
    settled(server, service)
    assert service.reasons[3] == "eof"
    if place.kind != "unix":
        welcomed(place, server).reset()
        settled(server, service)
        assert service.reasons[4] in ("reset", "lost")


def test_a_tls_stream_that_is_cut_short(place: Place, park_after: float | None) -> None:
    """An end without TLS's own notice may be anybody's work: the unfinished line is no message."""
    service = Noted()
    server = place.serve(service, park_after=park_after)
    peer = welcomed(place, server)
    peer.send(b"a\nunfin")
    peer.expect(b"re a\n")
    wait_until(lambda: [each.received for each in server.core.engine.all()] == [len(b"a\nunfin")])
    with std.socket(fileno=std.dup(peer.socket.fileno())) as raw:
        raw.shutdown(std.SHUT_WR)
    if place.kind == "tls":
        settled(server, service)
        assert service.reasons == ["truncated"]
    else:
        assert peer.rest() == b"re unfin\n"
        settled(server, service)
        assert service.reasons == ["eof"]
    peer.close()
    assert server.core.registry.past_messages == (1 if place.kind == "tls" else 2)


def test_a_handshake_that_fails_is_no_client(serve: Serve, tmp_path: Path, pem: Path) -> None:
    """Neither hook hears of one that never got through its TLS handshake."""
    place = Place("tls", serve, tmp_path, pem)
    service = Noted()
    server = place.serve(service)
    with Peer(server.address) as peer:
        peer.send(b"hello\n")
        peer.rest()
    wait_until(lambda: server.core.registry.live == 0)
    assert server.core.registry.closed == {"tls-handshake": 1}
    assert (service.came, service.went) == ([], [])


def test_ends_that_the_server_makes_are_told_once(place: Place, park_after: float | None) -> None:
    """A drain tells those who can leave, and cuts off who is in a hook that does not return."""
    service = Noted()
    server = place.serve(service, park_after=park_after, linger_timeout=0.1)
    with welcomed(place, server) as idle, welcomed(place, server) as stuck:
        stuck.send(b"wait\n")
        wait_until(lambda: service.waiting)
        stop = gevent.spawn(server.stop, 100)
        assert without_hint(idle.rest()) == TOLD
        wait_until(lambda: server.core.registry.live == 1)
        server.core.hurry()  # as once the time is over
        assert stop.get(timeout=30) == 1
    settled(server, service)
    assert sorted(service.reasons) == ["cut-off", "shutting-down"]


# -- pushes ----------------------------------------------------------------------------------------


def test_pushes_keep_the_order_of_the_calls(place: Place, park_after: float | None) -> None:
    """From the own hook before its reply, from another client's, and from a tick."""

    class Talkative(Noted):
        def message(self, message: str, client: Client[Any]) -> str | None:
            for each in self.came:
                each.send(f"{message} 1")
                each.send(f"{message} 2")
            return f"re {message}"

    service = Talkative()
    server = place.serve(service, park_after=park_after)
    with welcomed(place, server) as one, welcomed(place, server) as two:
        for word in (b"a", b"b"):
            one.send(word + b"\n")
            one.expect(word + b" 1\n" + word + b" 2\nre " + word + b"\n")
            two.expect(word + b" 1\n" + word + b" 2\n")
        ticks = server.every(0.01, lambda: [each.send("tick") for each in service.came])
        for peer in (one, two):
            peer.expect(b"tick\n" * 3)
        ticks.kill()
    settled(server, service)


def test_a_push_never_cuts_a_reply(place: Place, park_after: float | None) -> None:
    """To one who reads late: whole lines, replies in order, pushes in order, each exactly once."""

    class Long(Noted):
        def message(self, message: str, client: Client[Any]) -> str | None:
            return f"re {message} " + "x" * 5000

    service = Long()
    server = place.serve(service, park_after=park_after, outbox_bytes=2**24)
    count = 2000
    with welcomed(place, server) as peer:
        [client] = service.came
        sender = gevent.spawn(peer.send, b"".join(b"%d\n" % number for number in range(count)))
        pushed = 0
        while pushed < count:
            assert client.send(f"push {pushed} " + "y" * 500)
            pushed += 1
            if pushed % 20 == 0:
                gevent.sleep(0)
        sender.join()
        data = peer.exactly(
            sum(len(f"re {number} ") + 5001 + len(f"push {number} ") + 501 for number in range(count))
        )
    lines = data.decode().splitlines()
    replies = [line for line in lines if line.startswith("re ")]
    pushes = [line for line in lines if line.startswith("push ")]
    assert replies == [f"re {number} " + "x" * 5000 for number in range(count)]
    assert pushes == [f"push {number} " + "y" * 500 for number in range(count)]
    assert len(lines) == 2 * count
    assert server.core.queued == 0


def stuff(client: Client[Any]) -> int:
    """Push 1,000 bytes at a time to a client that reads nothing until a push fails; returns how many."""
    for number in range(100_000):
        if not client.send("x" * 999):
            return number
        if number % 8 == 0:
            gevent.sleep(0.0005)  # a turn, in which pushes leave
    raise AssertionError("no push ever failed")


def test_one_who_does_not_read_is_closed(place: Place, park_after: float | None) -> None:
    """Beyond ``outbox_bytes`` the client goes, with the reason ``slow``; nobody else notices."""
    service = Noted()
    server = place.serve(service, park_after=park_after, outbox_bytes=20_000)
    with welcomed(place, server) as other, welcomed(place, server) as slow:
        assert stuff(service.came[1]) > 20
        wait_until(lambda: service.reasons == ["slow"])
        assert server.core.queued == 0
        other.send(b"a\n")
        other.expect(b"re a\n")
        slow.close()
    settled(server, service)


def test_one_who_does_not_read_is_closed_though_its_hook_is_at_work(
    place: Place, park_after: float | None
) -> None:
    """It goes with the same reason as soon as the hook returns."""
    service = Noted()
    server = place.serve(service, park_after=park_after, outbox_bytes=20_000)
    with welcomed(place, server) as slow:
        slow.send(b"wait\n")
        wait_until(lambda: service.waiting)
        stuff(service.came[0])
        service.gate.set()
        settled(server, service)
    assert service.reasons == ["slow"]
    assert server.core.queued == 0


@pytest.mark.parametrize("bound", ["outbox_bytes", "outbox_total_bytes"])
def test_pushes_beyond_the_bounds_may_be_dropped(place: Place, park_after: float | None, bound: str) -> None:
    """``drop-newest``: what was taken comes whole and in order, the rest is counted, the client stays."""
    service = Noted()
    bounds = {bound: 20_000}
    server = place.serve(service, park_after=park_after, slow_consumer="drop-newest", **bounds)
    with welcomed(place, server) as slow:
        [client] = service.came
        taken = stuff(client)
        assert not client.send("y" * 999)
        assert server.stats().pushes == taken
        assert server.stats().pushes_dropped == 2
        assert 19_000 <= server.stats().queued_bytes <= 20_000
        slow.expect(b"x" * 999 + b"\n")
        for _ in range(taken - 1):
            slow.expect(b"x" * 999 + b"\n")
        slow.send(b"a\n")
        slow.expect(b"re a\n")
        wait_until(lambda: server.stats().queued_bytes == 0)
        assert client.send("again")
        slow.expect(b"again\n")
    settled(server, service)


def test_a_slow_reader_of_pushes_has_its_time(place: Place, park_after: float | None) -> None:
    """One that takes nothing for ``write_timeout`` is given up, though nothing else is ever sent to it."""
    service = Noted()
    server = place.serve(
        service,
        park_after=park_after,
        write_timeout=seconds(0.3),
        outbox_bytes=2**20,
        slow_consumer="drop-newest",
    )
    with welcomed(place, server):
        stuff(service.came[0])
        wait_until(lambda: service.reasons == ["write-timeout"])
    settled(server, service)
    assert server.core.queued == 0


# -- groups and broadcasts -------------------------------------------------------------------------


def test_a_broadcast_to_many_is_sliced_and_keeps_the_order(place: Place, park_after: float | None) -> None:
    """More clients than are sent to at once: each gets all of them, and sends between them, in order."""
    service = Noted()
    count = AT_ONCE + 44
    server = place.serve(service, park_after=park_after)
    peers = [welcomed(place, server) for _ in range(count)]
    assert server.broadcast("one") == count
    for client in service.came[::7]:
        client.send("between")
    assert server.broadcast("two", but=service.came[0]) == count - 1
    assert service.came[0].send("instead")
    for number, peer in enumerate(peers):
        between = b"between\n" if number % 7 == 0 else b""
        peer.expect(b"one\n" + between + (b"two\n" if number else b"instead\n"))
    for peer in peers:
        peer.close()
    settled(server, service)


def test_a_drain_sends_what_was_accepted_first(place: Place, park_after: float | None) -> None:
    """Pushes and broadcasts made before the stop, or in ``stopping``, come before ``shutting-down``."""

    class Polite(Noted):
        def stopping(self, server: Any) -> None:
            assert server.broadcast("goodbye") == count

    service = Polite()
    count = AT_ONCE + 44
    server = place.serve(service, park_after=park_after, linger_timeout=0.1)
    peers = [welcomed(place, server) for _ in range(count)]
    for client in service.came:
        assert client.send("first")
    readers = [gevent.spawn(peer.rest) for peer in peers]
    assert server.stop(30) == 0
    for reader in readers:
        assert without_hint(reader.get(timeout=seconds(30))) == b"first\ngoodbye\n" + TOLD
    for peer in peers:
        peer.close()
    settled(server, service)


def test_a_close_comes_after_the_broadcast_before_it(place: Place, park_after: float | None) -> None:
    """A broadcast to many and a close of one of them: its message is not lost to the close."""
    service = Noted()
    count = AT_ONCE + 44
    server = place.serve(service, park_after=park_after)
    peers = [welcomed(place, server) for _ in range(count)]
    server.broadcast("all")
    for client in service.came:
        client.close()
    for peer in peers:
        assert peer.rest() == b"all\n"
        peer.close()
    settled(server, service)


def test_clients_drop_out_of_their_groups(place: Place, park_after: float | None) -> None:
    """A group has only those who are there; a client that is gone can't be added again."""
    service = Noted()
    server = place.serve(service, park_after=park_after)
    group = server.group("room")
    with welcomed(place, server) as one, welcomed(place, server) as two:
        first, second = service.came
        for client in (first, second, first):
            group.add(client)
        assert (len(group), set(group), first in group) == (2, {first, second}, True)
        assert server.group("room") is group
        assert server.broadcast("hello", group, but=first) == 1
        two.expect(b"hello\n")
        one.send(b"/exit\n")
        assert one.rest() == b""
        wait_until(lambda: set(group) == {second})
        group.add(first)
        assert first not in group
        group.discard(second)
        assert len(group) == 0
    settled(server, service)


# -- other protocols -------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", [LengthPrefix(2), Delimiter(b"\r\n\r\n")], ids=["length", "delimiter"])
def test_a_service_of_bytes(place: Place, park_after: float | None, framing: Framing) -> None:
    """Messages are bytes that need not be UTF-8, framed as the service says; no word ends it."""

    class Binary(Service):
        text: ClassVar[bool] = False
        exit_word: ClassVar[str | None] = None

        def message(self, message: bytes, client: Client[Any]) -> bytes | None:
            client.send(message[::-1])
            return message

        def error_reply(self, code: str, explanation: str) -> bytes | None:
            return b"!" + code.encode()

    Binary.framing = framing
    server = place.serve(Binary, park_after=park_after, max_message_bytes=1000)
    with place.dial(server) as peer:
        for message in (b"\xff\0", b"/exit", b"", b"a\nb" * 100):
            peer.send(framing.encode(message))
            peer.expect(framing.encode(message[::-1]) + framing.encode(message))
        assert server.broadcast(b"\0\1") == 1
        peer.expect(framing.encode(b"\0\1"))
        with pytest.raises(TypeError):
            server.broadcast("text")
        peer.send(framing.encode(b"x" * 1001))
        assert peer.rest() == framing.encode(b"!message-too-long")


@pytest.mark.parametrize("waits", [False, True])
def test_a_push_to_one_who_vanished_while_a_reply_is_sent(
    serve: Serve, park_after: float | None, waits: bool
) -> None:
    """The greenlet that waits for room to send more of the reply ends at once, not after its time-out."""

    class Long(Noted):
        def message(self, message: str, client: Client[Any]) -> str | None:
            return "x" * 2**24

    service = Long()
    server = serve(service, framing=LINE, park_after=park_after, write_timeout=100)
    peer = Peer(server.address, receive_buffer=4096)
    peer.expect(b"welcome 1\n")
    peer.send(b"more\n")
    [connection] = server.core.engine.all()
    wait_until(lambda: connection.sent > 10 and connection.outbox)
    if waits:  # for room, for the push as well
        assert service.came[0].send("first")
        wait_until(lambda: connection in server.core.engine._without_room)
    peer.reset()
    service.came[0].send("last")
    server.core.engine._flush()  # as at the end of a turn: nobody has been told of the reset before
    assert service.came[0].closed is not waits
    wait_until(lambda: service.went)
    assert service.went == [(service.came[0], "reset")]


@pytest.mark.parametrize("words", ["oops", None])
def test_errors_in_the_services_own_words(place: Place, park_after: float | None, words: str | None) -> None:
    """Or in none: the messages around the one that failed are answered all the same."""

    class Curt(Service):
        exit_word: ClassVar[str | None] = "bye"

        def message(self, message: str, client: Client[Any]) -> str | None:
            return str(int(message))

        def error_reply(self, code: str, explanation: str) -> str | None:
            return None if words is None else f"{words} {code}"

    server = place.serve(Curt(), park_after=park_after, framing=LINE)
    told = b"" if words is None else b"oops handler-failed\noops invalid-utf8\n"
    with place.dial(server) as peer:
        peer.send(b"1\nno number\n\xff\n2\n BYE \n3\n")
        assert peer.rest() == b"1\n" + told + b"2\n"


def test_words_for_an_error_that_fail(place: Place, park_after: float | None) -> None:
    """A client is told nothing then; it goes on, and the sweep for limits in time goes on to the others."""

    class Speechless(Service):
        def message(self, message: str, client: Client[Any]) -> str | None:
            return message

        def error_reply(self, code: str, explanation: str) -> str | None:
            raise ValueError(code)

    server = place.serve(Speechless(), park_after=park_after, framing=LINE)
    with place.dial(server) as one, place.dial(server) as other:
        for each in (one, other):
            each.send(b"1\n\xff\n2\n")
            each.expect(b"1\n2\n")
        engine = server.core.engine
        engine.tick += server.core.idle_ticks  # the time is over
        engine._sweep()
        assert one.rest() == other.rest() == b""
    wait_until(lambda: server.core.registry.live == 0)
    assert server.core.registry.closed == {"idle-timeout": 2}


@pytest.mark.parametrize("blocks", [False, True])
def test_a_reply_that_its_framing_cant_take(place: Place, park_after: float | None, blocks: bool) -> None:
    """It has failed by itself: the replies and pushes around it are sent."""

    class Short(Service):
        framing = LengthPrefix(1)

        def message(self, message: str, client: Client[Any]) -> str | None:
            if message == "long" and blocks:
                client.send("push")
                gevent.sleep(0.001)
            return message * (256 if message == "long" else 1)

    server = place.serve(Short(), park_after=park_after)
    with place.dial(server) as peer:
        peer.send(b"\1a\4long\1b")
        failed = b"Error: handler-failed: the server could not handle the message"
        peer.expect(b"\1a" + b"\4push" * blocks + LengthPrefix(1).encode(failed) + b"\1b")


def test_message_rate_holds_for_services(place: Place, park_after: float | None) -> None:
    """Messages above the rate wait; pushes do not."""
    service = Noted()
    server = place.serve(service, park_after=park_after, message_rate=0.01)
    with welcomed(place, server) as peer:
        peer.send(b"a\n" * 25)
        peer.expect(b"re a\n")  # the next one may come in a minute or two
        assert service.came[0].send("pushed")
        peer.expect(b"pushed\n")
        stop = gevent.spawn(server.stop, 100)  # nobody has to wait any more: what was read is answered
        assert without_hint(peer.rest()) == b"re a\n" * 24 + TOLD
    assert stop.get(timeout=30) == 0
    settled(server, service)


# -- stopping --------------------------------------------------------------------------------------


def test_a_hook_may_stop_the_server(place: Place, park_after: float | None) -> None:
    """stop() returns at once there; this client is answered, then all are told. Who calls it again waits."""

    class Ends(Noted):
        def message(self, message: str, client: Client[Any]) -> str | None:
            returned.append(server.stop())
            return super().message(message, client)

    returned: list[int] = []
    service = Ends()
    server = place.serve(service, park_after=park_after, linger_timeout=0.1)
    serving = gevent.spawn(server.serve_forever)
    with welcomed(place, server) as peer, welcomed(place, server) as other:
        peer.send(b"stop\n")
        assert without_hint(peer.rest()) == b"re stop\n" + TOLD
        assert returned == [0]
        reader = gevent.spawn(other.rest)
        assert server.stop() == 0
        assert server.core.registry.live == 0
        assert without_hint(reader.get(timeout=seconds(30))) == TOLD
    serving.get(timeout=seconds(30))
    settled(server, service)


def test_stopping_is_waited_for_until_the_end_is_hurried(serve: Serve) -> None:
    """A second signal does not wait for the hook either, which may have called stop() itself."""
    begun, gate = Event(), Event()
    returned: list[int] = []

    class Waits(Noted):
        def stopping(self, server: Any) -> None:
            returned.append(server.stop())
            begun.set()
            gate.wait()

    server = serve(Waits(), framing=LINE)
    stop = gevent.spawn(server.stop, 600)
    assert begun.wait(30)
    assert returned == [0]
    gevent.sleep(0)
    assert not stop.ready()
    server.core.hurry()
    assert stop.get(timeout=30) == 0
    gate.set()


def test_the_hook_of_an_end_may_stop_the_server(
    serve: Serve, park_after: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """stop() returns at once there as well, and does not wait for the hook that called it."""
    monkeypatch.setattr("chat_gevent.core.LAST_HOOKS_SECONDS", seconds(60))  # unmistakable on a busy machine

    class Ends(Noted):
        def disconnected(self, client: Client[Any], reason: str) -> None:
            returned.append(server.stop())
            super().disconnected(client, reason)

    returned: list[int] = []
    service = Ends()
    server = serve(service, framing=LINE, park_after=park_after)
    began = time.monotonic()
    with Peer(server.address) as peer:
        peer.expect(b"welcome 1\n")
    wait_until(lambda: service.went)
    assert server.stop() == 0
    assert time.monotonic() - began < seconds(30)
    assert returned == [0]


def test_who_is_cut_off_in_a_hook_is_gone_when_the_stop_returns(
    place: Place, park_after: float | None
) -> None:
    """The stop waits for ``disconnected``, also where the client's greenlet had to be ended first."""

    class Slow(Noted):
        def disconnected(self, client: Client[Any], reason: str) -> None:
            gevent.sleep(0.001)
            super().disconnected(client, reason)

    service = Slow()
    server = place.serve(service, park_after=park_after)
    with welcomed(place, server) as peer:
        peer.send(b"wait\n")
        wait_until(lambda: service.waiting)
        assert server.stop(0.01) == 1
        assert service.went == [(service.came[0], "cut-off")]


def test_started_comes_before_the_first_client(serve: Serve, park_after: float | None) -> None:
    """A service may take its time to start, and may block: nobody is served before it is done."""

    class Slow(Noted):
        def started(self, server: Any) -> None:
            order.append("begins")
            gevent.sleep(seconds(0.05))
            order.append("started")

        def connected(self, client: Client[Any]) -> str | None:
            order.append("connected")
            return super().connected(client)

    order: list[str] = []
    listener = std.create_server(("127.0.0.1", 0))
    with Peer(listener.getsockname()) as peer:  # it waits in the backlog
        server = serve(Slow(), listener=listener, park_after=park_after)
        peer.expect(b"welcome ")
        assert order == ["begins", "started", "connected"]
    settled(server, server.core.service)
    server.stop()
    listener.close()
