"""The recorder's proxy: real sockets on both sides, and what one side does is what the other one sees."""

from __future__ import annotations

import errno
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event
from gevent.server import StreamServer

from loadtest.record import proxy as proxy_module
from loadtest.record.proxy import Proxy
from tests.conftest import wait_until

RESET = struct.pack("ii", 1, 0)


@contextmanager
def between(handle: Callable[[Any, Any], None], **options: Any) -> Iterator[Proxy]:
    """A proxy in front of a server with ``handle``."""
    server = StreamServer(("127.0.0.1", 0), handle)
    server.start()
    proxy = Proxy(("127.0.0.1", 0), ("127.0.0.1", server.server_port or 0), print, **options)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
        server.stop(timeout=0)


def connect(proxy: Proxy) -> Any:
    """A client's connection."""
    return socket.create_connection(proxy.address, timeout=30)


def read_all(sock: Any) -> bytes:
    """Everything until the end of the stream."""
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def reset(sock: Any) -> None:
    """Close with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def test_what_passes_is_the_same_byte_for_byte_on_many_connections_at_once() -> None:
    """Random bytes in random pieces in both directions at the same time; the tapes have them too."""
    got: dict[bytes, bytes] = {}
    sent: dict[bytes, bytes] = {}

    def pieces(sock: Any, seed: int, data: bytes) -> None:
        rng = random.Random(seed)
        while data:
            size = rng.choice((1, 2, 100, 5000, 70000))
            sock.sendall(data[:size])
            data = data[size:]
            gevent.sleep(0)
        sock.shutdown(socket.SHUT_WR)

    def serve(sock: Any, _: Any) -> None:
        first = sock.recv(1)
        sent[first] = random.Random(first[0] + 100).randbytes(200_000)
        writer = gevent.spawn(pieces, sock, first[0], sent[first])
        got[first] = first + read_all(sock)
        writer.get()

    def client(number: int) -> None:
        data = bytes([number]) + random.Random(number).randbytes(200_000)
        with connect(proxy) as sock:
            writer = gevent.spawn(pieces, sock, number, data)
            received = read_all(sock)
            writer.get()
        assert received == sent[data[:1]]
        wait_until(lambda: data[:1] in got)  # the server may see the end of the stream later
        assert got[data[:1]] == data

    with between(serve) as proxy:
        clients = [gevent.spawn(client, number) for number in range(10)]
        gevent.joinall(clients, raise_error=True, timeout=50)
        assert all(each.successful() for each in clients)
    assert len(proxy.tapes) == 10
    for tape in proxy.tapes:
        first = tape.stream("client")[:1]
        assert tape.stream("client") == got[first]
        assert tape.stream("server") == sent[first]


def test_a_half_close_ends_one_direction_only() -> None:
    """The server sees the end of the requests, and its late reply still arrives whole, and then its end."""
    reply = random.Random(1).randbytes(3_000_000)

    def serve(sock: Any, _: Any) -> None:
        assert read_all(sock) == b"question"
        sock.sendall(reply)

    with between(serve) as proxy, connect(proxy) as sock:
        sock.sendall(b"question")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == reply
    assert proxy.tapes[0].ended_by == "client"


def test_a_reset_by_the_server_follows_all_that_it_had_sent() -> None:
    """The client reads it slowly, and gets every byte before the reset."""
    reply = random.Random(2).randbytes(300_000)

    def serve(sock: Any, _: Any) -> None:
        sock.recv(100)
        sock.sendall(reply)
        while sock.getsockopt(socket.IPPROTO_TCP, 11, 1)[0] == 1 and proxy_module._unsent(sock):
            gevent.sleep(0.001)
        reset(sock)

    with between(serve) as proxy, connect(proxy) as sock:
        sock.sendall(b"go")
        data = b""
        with pytest.raises(ConnectionResetError):  # noqa: PT012 - what came before it is compared
            while True:
                piece = sock.recv(10_000)
                assert piece, "an end instead of a reset"
                data += piece
                gevent.sleep(0)
        assert data == reply
    assert proxy.tapes[0].ended_by == "server"


def test_a_reset_by_the_client_is_a_reset_to_the_server() -> None:
    """And other connections go on."""
    seen: list[int | None] = []
    done = Event()

    def serve(sock: Any, _: Any) -> None:
        try:
            while data := sock.recv(100):
                sock.sendall(data)
        except OSError as error:
            seen.append(error.errno)
            done.set()

    with between(serve) as proxy, connect(proxy) as other:
        sock = connect(proxy)
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        reset(sock)
        assert done.wait(30)
        assert seen == [errno.ECONNRESET]
        other.sendall(b"still here")
        assert other.recv(100) == b"still here"


def test_a_server_that_can_not_be_reached_is_told_and_the_client_reset() -> None:
    """No connection hangs."""
    told: list[str] = []
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        proxy = Proxy(("127.0.0.1", 0), unused.getsockname(), told.append)
        proxy.start()
        with connect(proxy) as sock, pytest.raises(ConnectionResetError):
            sock.recv(1)
        proxy.stop()
    assert "could not connect to 127.0.0.1" in told[0]
    assert proxy.tapes == []


def test_what_is_kept_of_a_connection_is_bounded_and_what_passes_is_not() -> None:
    """A thousand bytes are kept of a million, and the tape says that it was cut."""

    def serve(sock: Any, _: Any) -> None:
        sock.sendall(str(len(read_all(sock))).encode())

    with between(serve, keep=1000) as proxy, connect(proxy) as sock:
        sock.sendall(bytes(1_000_000))
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"1000000"
    (tape,) = proxy.tapes
    assert (tape.kept, len(tape.stream("client")), tape.cut) == (1000, 1000, True)


def test_connections_beyond_those_that_are_kept_are_relayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are counted, and nothing is kept of them."""
    monkeypatch.setattr(proxy_module, "MOST_TAPES", 1)

    def serve(sock: Any, _: Any) -> None:
        sock.sendall(sock.recv(10))

    with between(serve) as proxy:
        for _ in range(3):
            with connect(proxy) as sock:
                sock.sendall(b"hello")
                assert read_all(sock) == b"hello"
    assert (len(proxy.tapes), proxy.unrecorded) == (1, 2)


def test_stop_cuts_the_connections_that_are_open() -> None:
    """So Ctrl-C ends the recorder while a client is still connected."""

    def serve(sock: Any, _: Any) -> None:
        sock.sendall(b"welcome")
        sock.recv(1)

    with between(serve) as proxy, connect(proxy) as sock:
        assert sock.recv(100) == b"welcome"
        proxy.stop()
        assert sock.recv(100) == b""
