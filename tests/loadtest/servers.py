"""Servers of many kinds for a client to meet, each a few lines of gevent in this process."""

from __future__ import annotations

import struct
from collections.abc import Callable
from time import perf_counter
from typing import Any

import gevent
from gevent import socket
from gevent.server import StreamServer

Handler = Callable[[Any, Any], None]


class ScriptedServer:
    """A server with one way of behaving, on any port unless one is given; a context manager."""

    def __init__(self, handler: Handler, port: int = 0, **options: Any) -> None:
        def handle(connection: Any, address: Any) -> None:
            try:
                handler(connection, address)
            except ConnectionError:
                pass  # the client was stopped in the middle of something, as clients are

        self.server = StreamServer(("127.0.0.1", port), handle, **options)

    def __enter__(self) -> ScriptedServer:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop(timeout=0)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server.server_port or 0

    @property
    def host(self) -> str:
        """The same, as Locust wants it."""
        return f"tcp://127.0.0.1:{self.port}"


def lines(connection: Any) -> Any:
    """The lines that a client sends, with their LF."""
    with connection.makefile("rb") as stream:
        yield from stream


def confirm(connection: Any, _: Any) -> None:
    """As it should be."""
    for line in lines(connection):
        if line.strip().lower() == b"/exit":
            return
        connection.sendall(b"Received: " + line)


def late(connection: Any, _: Any) -> None:
    """50 ms late."""
    for line in lines(connection):
        gevent.sleep(0.05)
        connection.sendall(b"Received: " + line)


def pieces(connection: Any, _: Any) -> None:
    """In three pieces, each sent on its own."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for line in lines(connection):
        reply = b"Received: " + line
        for piece in (reply[:4], reply[4:-1], reply[-1:]):
            connection.sendall(piece)
            gevent.sleep(0.01)


class HeldPieces:
    """Replies in two pieces: the second one follows when the first is read, and 20 ms have passed since.

    ``heard`` says whether the client has read the first piece; a test sets it.
    """

    def __init__(self) -> None:
        self.heard: Callable[[], bool] = bool
        self.moments: list[tuple[float, float, float]] = []
        """When each message came, when its first piece was seen to be read, and when the second was sent."""

    def __call__(self, connection: Any, _: Any) -> None:
        """Serve a client."""
        for line in lines(connection):
            came = perf_counter()
            connection.sendall(b"Rece")
            while not self.heard():
                gevent.sleep(0.001)
            read = perf_counter()
            while perf_counter() < read + 0.02:
                gevent.sleep(0.001)
            self.moments.append((came, read, perf_counter()))
            connection.sendall(b"ived: " + line)


def burst(connection: Any, _: Any) -> None:
    """Nothing until four messages are in, then all four replies in one write."""
    waiting: list[bytes] = []
    for line in lines(connection):
        waiting.append(b"Received: " + line)
        if len(waiting) == 4:
            connection.sendall(b"".join(waiting))
            waiting.clear()


def twice(connection: Any, _: Any) -> None:
    """Each reply twice."""
    for line in lines(connection):
        connection.sendall((b"Received: " + line) * 2)


def wrong(connection: Any, _: Any) -> None:
    """With the reply to another message."""
    for _line in lines(connection):
        connection.sendall(b"Received: something else\n")


def refuse(connection: Any, _: Any) -> None:
    """With an error of the confirm protocol."""
    for _line in lines(connection):
        connection.sendall(b"Error: handler-failed: sorry\n")


def never(connection: Any, _: Any) -> None:
    """Reads, and says nothing."""
    while connection.recv(65_536):
        pass


def deaf(connection: Any, _: Any) -> None:
    """Does not even read."""
    gevent.sleep(60)


def leave(connection: Any, _: Any) -> None:
    """Ends the stream instead of answering."""
    connection.recv(1024)


def half(connection: Any, _: Any) -> None:
    """Ends the stream in the middle of a reply."""
    connection.recv(1024)
    connection.sendall(b"Rece")


def reset(connection: Any, _: Any) -> None:
    """Resets the connection instead of answering."""
    connection.recv(1024)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def push(connection: Any, _: Any) -> None:
    """Speaks without having been asked, 30 ms after the connection opened."""
    gevent.sleep(0.03)
    connection.sendall(b"hello there\n")
    never(connection, _)


def go_away(connection: Any, _: Any) -> None:
    """Closes 30 ms after the connection opened."""
    gevent.sleep(0.03)


def echo(connection: Any, _: Any) -> None:
    """Any bytes, as they come."""
    while data := connection.recv(65_536):
        connection.sendall(data)
