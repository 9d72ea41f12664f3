"""Random interleavings of all that can happen to a few clients, against a model of what each must receive.

Server and clients run in one process, and the loop runs only where an operation says so: what
Hypothesis draws is the whole interleaving, so that a failure shrinks to the few steps that matter.
The model knows nothing of how the server works. It says, from the bytes that a client sent, what it
must receive; of a client that was killed or timed out, that it must be the beginning of that.

Time is an operation as well: the sweep that the server makes once a second is made when drawn.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gevent
import pytest
from gevent.lock import Semaphore
from hypothesis import given
from hypothesis import strategies as st

from chat_gevent.connection import Connection
from chat_gevent.framing import CHUNK, LINE, Framing
from chat_gevent.lifecycle import Lifecycle
from chat_gevent.proxy_protocol import Proxies
from chat_gevent.server import ChatServer
from chat_gevent.settings import Settings
from chat_gevent.state import MOVES, State
from tests.conftest import wait_until
from tests.peers import Peer
from tests.protocol import without_hint

CLIENTS = 3
LIMIT = 2000
IDLE_SECONDS, LINGER_SECONDS = 4.0, 2.0
WORDS = "hello zwölf 🐍\n€/".encode()
TEXT = WORDS * 200
RECEIVED = b"Received: "
FAILED = b"Error: handler-failed: the server could not handle the message"
IDLE = b"Error: idle-timeout: no complete message came for too long"
FAILED = b"Error: handler-failed: the server could not handle the message"

# -- every move of a connection's state ------------------------------------------------------------

seen: set[tuple[State, State]] = set()
"""The moves that this module's tests have made, whichever they were."""


soon_after: dict[State, Callable[[Any], None]] = {}
"""What to do in the hub with the next connection that comes into a state; for states that soon pass."""


@pytest.fixture(autouse=True, scope="module")
def watched() -> Iterator[None]:
    """Have each move noted, and fail at once where it is not in the table."""

    def move(connection: Lifecycle, state: State) -> None:
        before, connection.state = connection.state, state
        seen.add((before, state))
        if state in soon_after:
            gevent.get_hub().loop.run_callback(soon_after.pop(state), connection)
        if state not in MOVES[before]:
            not_in_table.append((before, state))

    not_in_table: list[tuple[State, State]] = []
    patch = pytest.MonkeyPatch()
    patch.setattr(Lifecycle, "move", move)
    yield
    patch.undo()
    assert not_in_table == []


# -- what a client must receive --------------------------------------------------------------------


@dataclass
class Expected:
    """The model's answer: all that a client may receive, and at which lengths a message's reply ends."""

    replies: bytes
    ends: set[int]
    messages: int = 0


def expect(sent: bytes, custom: bool) -> Expected:
    """What is due to a client that sent ``sent`` and then ended its stream, under ``line`` framing."""
    *lines, rest = sent.split(b"\n")
    whole = [line.removesuffix(b"\r") for line in lines]
    result = Expected(b"", {0})

    def reply(text: bytes) -> None:
        result.replies += text + b"\n"
        result.ends.add(len(result.replies))

    for line in whole + ([rest] if rest else []):
        if len(line.removesuffix(b"\r") if line is rest else line) > LIMIT:
            reply(b"Error: message-too-long: a message is limited to %d bytes" % LIMIT)
            return result
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            reply(f"Error: invalid-utf8: byte {error.start} of the message: {error.reason}".encode())
            continue
        if text.strip().lower() == "/exit":
            return result
        fails = custom and text in ("fail", "die")
        if not fails:
            result.messages += 1
        if custom and text == "none":
            continue
        reply(FAILED if fails else b"Received: " + line)
        if custom and text == "close":
            return result
    return result


# -- clients ---------------------------------------------------------------------------------------

_names = itertools.count()


class ModelClient:
    """A client whose every system call is an operation; nothing of it blocks."""

    def __init__(self, address: Any) -> None:
        if isinstance(address, tuple):
            self.socket = socket.create_connection(address)
            self.name = self.socket.getsockname()
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.name = f"\0model-{os.getpid()}-{next(_names)}".encode()
            self.socket.bind(self.name)
            self.socket.connect(address)
        self.socket.setblocking(False)
        self.sent = self.got = b""
        self.ended = self.gone = self.killed = self.vanished = self.at_end = self.was_reset = False

    def send(self, data: bytes | slice) -> None:
        """Send what the kernel takes of ``data``; a slice is of the text that follows what was sent."""
        if isinstance(data, slice):
            data = TEXT[len(self.sent) % len(WORDS) :][data]
        if self.ended or self.gone:
            return
        try:
            self.sent += data[: self.socket.send(data)]
        except BlockingIOError:
            pass
        except OSError as error:  # the server has closed: it says why in what it sent before
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                raise

    def read(self, size: int) -> None:
        """One read of at most ``size`` bytes."""
        if self.gone or self.at_end:
            return
        try:
            data = self.socket.recv(size)
        except BlockingIOError:
            return
        except ConnectionResetError:
            self.was_reset = self.at_end = True
            return
        self.got += data
        self.at_end = not data

    def end(self) -> None:
        """End the own stream."""
        if not self.ended and not self.gone:
            self.ended = True
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError as error:
                if error.errno != errno.ENOTCONN:
                    raise

    def vanish(self, reset: bool) -> None:
        """Close without reading, with or without a reset."""
        if self.gone:
            return
        self.vanished = True
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Close."""
        self.gone = True
        self.socket.close()


class World:
    """A server, its clients, and the operations that happen to them."""

    def __init__(
        self, park_after: float | None, framing: Framing, custom: bool, unix: bool, spawn: bool
    ) -> None:
        self.framing, self.custom = framing, custom
        self.ends_greenlets = custom and spawn
        self.ticks = 0
        self.raised: list[Any] = []
        self.gates = [Semaphore(0) for _ in range(CLIENTS)]
        self.listener = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        if unix:  # where the kernel takes little at a time, and stalls nobody for it
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        self.listener.bind(f"\0model-{os.getpid()}-{next(_names)}" if unix else ("127.0.0.1", 0))
        self.listener.listen()
        self.hub = gevent.get_hub()
        self.server = ChatServer(
            self.listener,
            self.handle if custom else None,
            spawn=gevent.spawn if spawn else "default",
            settings=Settings(
                framing=framing,
                park_after=park_after,
                max_message_bytes=LIMIT,
                idle_timeout=IDLE_SECONDS,
                linger_timeout=LINGER_SECONDS,
                spare_greenlets=2,
            ),
        )
        self.engine, self.books = self.server.core.engine, self.server.core.registry
        self.server.start()
        self.clients = [ModelClient(self.listener.getsockname()) for _ in range(CLIENTS)]
        self.names = {client.name: number for number, client in enumerate(self.clients)}

    def handle(self, message: str, client: Any) -> str | None:
        """The custom handler: some words make it do what handlers do."""
        if client.state is None:
            client.state = self.names.get(client.address, -1)
        if message == "wait" and client.state >= 0:
            self.gates[client.state].acquire()
        elif message == "nap":
            gevent.sleep(0)
        elif message == "fail":
            raise gevent.Timeout(7) if client.state else ValueError("as drawn")
        elif message == "die":
            raise gevent.GreenletExit
        elif message == "close":
            client.close()
        return None if message == "none" else "Received: " + message

    def connection(self, number: int) -> Connection | None:
        """The server's side of a client, while there is one."""
        for each in self.engine.all():
            if each.address == self.clients[number].name:
                found: Connection = each
                return found
        return None

    def kill(self, number: int) -> None:
        """End the greenlet that serves a client, if one does so when the loop comes to it."""
        connection = self.connection(number)
        if connection is not None:
            self.hub.loop.run_callback(self._kill, connection, self.clients[number])

    @staticmethod
    def _kill(connection: Connection, client: ModelClient) -> None:
        if connection.greenlet is not None:
            client.killed = True
            connection.greenlet.throw()

    def tick(self, count: int) -> None:
        """Let ``count`` seconds pass for every limit in time."""
        for _ in range(count):
            self.ticks += 1
            self.hub.loop.run_callback(self.engine._sweep)

    def run(self, times: int) -> None:
        """Let the loop run."""
        for _ in range(times):
            gevent.sleep(0)
        gevent.sleep(0.0001)  # a timer's turn, after input's

    def settle(self) -> None:
        """Open every gate, end every stream, and read until the server has closed."""
        for gate in self.gates:
            for _ in range(200):
                gate.release()
        for client in self.clients:
            client.end()

        def done() -> bool:
            for client in self.clients:
                client.read(65536)
            return all(client.gone or client.at_end for client in self.clients)

        wait_until(done, 30, "every client sees the end of its stream")
        for client in self.clients:
            client.close()
        wait_until(lambda: self.books.live == 0, 30, "the server forgets every client")

    def check(self) -> None:
        """Compare what each client has received with what it must have."""
        assert self.raised == []
        for client in self.clients:
            if client.vanished:
                continue
            if self.framing is CHUNK:
                self.check_chunks(client)
            else:
                self.check_lines(client)
        if (
            self.framing is LINE
            and not self.ticks
            and not any(client.vanished or client.killed for client in self.clients)
        ):
            expected = [expect(client.sent, self.custom) for client in self.clients]
            assert self.books.past_messages == sum(each.messages for each in expected)
            assert self.books.past_sent == sum(len(each.replies) for each in expected)
        assert self.engine.leases.leased == 0
        assert len(set(map(id, self.engine.leases._free))) == len(self.engine.leases._free)
        assert not any(worker.dead for worker in self.engine.leases._free)

    def check_lines(self, client: ModelClient) -> None:
        """Message by message: each has its reply, in order, and errors end what they must end."""
        expected = expect(client.sent, self.custom)
        timed_out = self.ticks > IDLE_SECONDS
        lingered = self.ticks > LINGER_SECONDS
        if client.killed:
            replies = client.got.removesuffix(IDLE + b"\n") if timed_out else client.got
            due = expected.replies
            if self.custom:  # a handler that waits may be ended within: it has failed, and the client goes on
                replies, due = (each.replace(b"Received: wait\n", FAILED + b"\n") for each in (replies, due))
            assert due.startswith(replies)
        elif timed_out and client.got != expected.replies:
            replies = client.got.removesuffix(IDLE + b"\n")
            assert expected.replies.startswith(replies)
            assert len(replies) in expected.ends or lingered
        elif lingered and client.was_reset:
            assert expected.replies.startswith(client.got)
        else:
            assert client.got == expected.replies
            assert not client.was_reset

    def check_chunks(self, client: ModelClient) -> None:
        """How reads cut the stream is the kernel's choice; what was sent comes back whole and in order."""
        got, due = client.got, client.sent.decode(errors="ignore").encode()
        if due != client.sent:  # the stream ended in a character
            got = got.partition(b"Error: invalid-utf8: ")[0]
        if not client.killed and not self.ticks > LINGER_SECONDS:
            assert got.replace(RECEIVED, b"") == due
            return
        got = got.removesuffix(IDLE)
        for size in range(len(RECEIVED), 0, -1):
            got = got.removesuffix(RECEIVED[:size])
        assert due.startswith(got.replace(RECEIVED, b""))

    def close(self) -> None:
        """Stop everything."""
        for client in self.clients:
            client.close()
        self.server.stop(0)
        self.listener.close()


# -- what may happen -------------------------------------------------------------------------------

line_pieces = st.sampled_from(
    [
        b"a\n",
        b"\n",
        b"one\ntwo\n",
        b"half",
        b"\r\n",
        b"\r",
        b"\xc3",
        b"\xa9",
        "zwölf 🐍\n".encode(),
        b"\xff\n",
        *(b"x" * 700, b"y" * 1990 + b"\n", b"line\n" * 200, b"a/b\n"),
        *(b"wait\n", b"nap\n", b"none\n", b"fail\n", b"wait\nafter\n", b"nap\n" * 5),
    ]
)
last_pieces = st.sampled_from(
    [b"/exit\n", b" /EXIT\r\nnot this\n", b"z" * 2001, b"die\n", b"close\nnot this\n"]
)
text_pieces = st.sampled_from([1, 2, 5, 700, 3000]).map(lambda size: slice(size))
client = st.integers(0, CLIENTS - 1)


def operations(pieces: st.SearchStrategy[Any], *rare: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """A list of what happens, common things more often."""
    send = st.tuples(st.just("send"), client, pieces)
    read = st.tuples(st.just("read"), client, st.sampled_from([1, 500, 65536]))
    run = st.tuples(st.just("run"), st.integers(1, 4))
    gate = st.tuples(st.just("gate"), client)
    return st.lists(st.one_of(send, send, send, run, run, read, gate, *rare), max_size=40)


send_last = st.tuples(st.just("send"), client, last_pieces)
end = st.tuples(st.just("end"), client)
vanish = st.tuples(st.just("vanish"), client, st.booleans())
kill = st.tuples(st.just("kill"), client)
tick = st.tuples(st.just("tick"), st.integers(1, 6))


@contextmanager
def world(*arguments: Any) -> Iterator[World]:
    """A world whose hub notes what is raised in it."""
    made = World(*arguments)
    logging.disable(logging.CRITICAL)
    hub = gevent.get_hub()
    patch = pytest.MonkeyPatch()
    patch.setattr(hub, "handle_error", lambda where, kind, value, _: made.raised.append((where, kind, value)))
    try:
        yield made
    finally:
        made.close()
        gevent.sleep(0.0001)
        patch.undo()
        logging.disable(logging.NOTSET)


def play(made: World, happenings: list[Any]) -> None:
    """Do one thing after the other, settle, and compare."""

    def send(number: int, data: Any) -> None:
        # One whose handler has ended its own greenlet is closed, and may be so before it sends more.
        if not (made.ends_greenlets and b"die\n" in made.clients[number].sent):
            made.clients[number].send(data)

    do: dict[str, Callable[..., Any]] = {
        "send": send,
        "read": lambda number, size: made.clients[number].read(size),
        "end": lambda number: made.clients[number].end(),
        "vanish": lambda number, reset: made.clients[number].vanish(reset),
        "gate": lambda number: made.gates[number].release(),
        "run": made.run,
        "kill": made.kill,
        "tick": made.tick,
    }
    for name, *arguments in happenings:
        do[name](*arguments)
    made.settle()
    made.check()


@given(
    happenings=operations(line_pieces, send_last, end, vanish),
    custom=st.booleans(), unix=st.booleans(), spawn=st.booleans(),
)  # fmt: skip
def test_every_message_is_answered(
    park_after: float | None, happenings: list[Any], custom: bool, unix: bool, spawn: bool
) -> None:
    """However reads, sends, handlers, half-closes and vanishing clients interleave."""
    with world(park_after, LINE, custom, unix, spawn) as made:
        play(made, happenings)


@given(
    happenings=operations(line_pieces, send_last, end, vanish, kill, tick),
    custom=st.booleans(), unix=st.booleans(), spawn=st.booleans(),
)  # fmt: skip
def test_killed_and_late_clients_get_the_beginning_of_it(
    park_after: float | None, happenings: list[Any], custom: bool, unix: bool, spawn: bool
) -> None:
    """With greenlets killed and time passing as well: nothing wrong is received, and the others get all."""
    with world(park_after, LINE, custom, unix, spawn) as made:
        play(made, happenings)


@given(happenings=operations(text_pieces, end, vanish, kill, tick), unix=st.booleans(), spawn=st.booleans())
def test_chunks_come_back_whole(
    park_after: float | None, happenings: list[Any], unix: bool, spawn: bool
) -> None:
    """Without terminators: all that was sent comes back, in order, whatever reads it was cut into."""
    with world(park_after, CHUNK, False, unix, spawn) as made:
        play(made, happenings)


@pytest.mark.parametrize(
    ("sent", "replies"),
    [
        (b"a\r\n\nb", b"Received: a\nReceived: \nReceived: b\n"),
        (b"a\n /EXIT \nb\n", b"Received: a\n"),
        (b"close\nb\n", b"Received: close\n"),
        (b"none\nfail\ndie\na\n", FAILED + b"\n" + FAILED + b"\nReceived: a\n"),
        (b"x" * 2001, b"Error: message-too-long: a message is limited to 2000 bytes\n"),
    ],
)
def test_the_model_itself(sent: bytes, replies: bytes) -> None:
    """The model says what the protocol says."""
    assert expect(sent, True).replies == replies


def test_every_move_is_seen(serve: Callable[..., Any]) -> None:
    """Each move of the table is made here on purpose, as random interleavings seldom bring some about.

    Neither here nor in any test before it has another move been made.
    """
    told = b"Error: shutting-down: the server is going away\n"
    # Floods wait for their turn, and may be cut off there; pushes end the short way until they are sent.
    server = serve(framing=LINE)
    with Peer(server.address, send_buffer=2**20) as flood, Peer(server.address) as other:
        other.ask(b"hello")
        [connection] = [each for each in server.core.engine.all() if each.messages]
        assert connection.state is State.PARKED_SHORT
        assert connection.known_client().send("pushed")
        assert connection.state is State.PARKED  # type: ignore[comparison-overlap]
        other.expect(b"pushed\n")
        wait_until(lambda: connection.state is State.PARKED_SHORT)
        connection.ask_to_leave("shutting-down")
        assert without_hint(other.rest()) == told
        flood.send(b"x\n" * 100_000)
        flood.expect(b"Received: x\n" * 100_000)
        assert (State.QUEUED, State.BUSY) in seen
        soon_after[State.QUEUED] = lambda connection: connection.abort()
        flood.socket.setblocking(False)
        flood.socket.send(b"x\n" * 200_000)
        wait_until(lambda: server.core.registry.live == 0)
        assert server.core.registry.closed == {"shutting-down": 1, "cut-off": 1}
    # A PROXY header may come, may not come in time, or something else may come in its stead.
    proxied = serve(framing=LINE, proxies=Proxies(["127.0.0.1"]), handshake_timeout=0.1)
    with Peer(proxied.address) as good, Peer(proxied.address) as bad, Peer(proxied.address) as silent:
        good.send(b"PROXY UNKNOWN\r\n")
        good.ask(b"hello")
        bad.send(b"hello\n")
        assert bad.rest() == silent.rest() == b""
    # Time is over for clients of each kind, or they are cut off.
    for options in ({}, {"handler": lambda message, client: message}, {"park_after": None}):
        server = serve(framing=LINE, idle_timeout=0.05, **options)
        with Peer(server.address) as idle:
            idle.send(b"hello\n")
            assert idle.rest().endswith(IDLE + b"\n")
        server = serve(framing=LINE, **options)
        with Peer(server.address) as parked, Peer(server.address) as reset:
            for peer in (parked, reset):
                peer.send(b"hello\n")
                peer.receive()
            parks = (State.PARKED, State.PARKED_SHORT, State.WAITING)
            wait_until(lambda: all(each.state in parks for each in server.core.engine.all()))  # noqa: B023
            reset.reset()
            wait_until(lambda: server.core.registry.live == 1)  # noqa: B023
            server.core.engine.all()[0].abort()
            assert parked.rest() == b""
    table = {(before, after) for before, follows in MOVES.items() for after in follows}
    missing = sorted(f"{before.name} -> {after.name}" for before, after in table - seen)
    assert missing == [], " ".join(missing)
    assert seen <= table
