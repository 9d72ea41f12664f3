"""A TCP proxy that relays bytes between clients and one server, unchanged, and keeps a copy of the beginning.

Two greenlets a connection, one for each direction. What one side does, the other sees:

* bytes, at once and in order (``TCP_NODELAY`` on both sides);
* the end of one direction, as the end of that direction only, while the other goes on;
* a reset, as a reset, once what had come before it from the same side is delivered, or could not be
  delivered in :data:`LAST_WORDS_SECONDS`. A side that had ended its own direction before is seen to be gone
  at the next byte for it.

Where the server can't be reached, the client is reset, and the reason is told. Urgent data (``MSG_OOB``) is
not relayed as urgent.
"""

from __future__ import annotations

import fcntl
import socket as plain_socket
import struct
import sys
import termios
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final, Literal, cast

import gevent
from gevent import socket
from gevent.pool import Pool
from gevent.server import StreamServer

from loadtest.record.tape import KEPT_BYTES, Side, Tape

READ_BYTES: Final = 65_536
CONNECT_SECONDS: Final = 10.0
"""How long the server has to accept a connection."""
LAST_WORDS_SECONDS: Final = 5.0
"""How long the bytes of a side that is gone may take to reach the other one."""
MOST_TAPES: Final = 200
"""Connections of which anything is kept; those that come later are relayed and counted only."""
TCP_CLOSE: Final = 7
"""TCP_CLOSE of Linux's ``include/net/tcp_states.h``."""
RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with a time of zero: ``close`` sends a reset."""


class Proxy:
    """Listens on ``listen`` and connects each client to ``to``; ``tapes`` has what passed.

    :param tell: is given each sentence for a person, such as that the server can't be reached.
    :param keep: bytes that are kept of a connection.
    """

    def __init__(
        self,
        listen: tuple[str, int],
        to: tuple[str, int],
        tell: Callable[[str], None],
        keep: int = KEPT_BYTES,
    ) -> None:
        self.to = to
        self.tapes: list[Tape] = []
        self.unrecorded = 0
        """Connections that were relayed after as many as could be kept."""
        self._tell = tell
        self._keep = keep
        self._server = StreamServer(listen, self._serve, spawn=Pool())  # a pool is what stop() can end

    def start(self) -> None:
        """Listen. Raises OSError."""
        self._server.start()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port, *_ = cast(tuple[Any, ...], self._server.address)
        return str(host), int(port)

    def stop(self) -> None:
        """Stop listening and cut the connections that are still open."""
        self._server.stop(timeout=0)

    def _serve(self, client: Any, _: Any) -> None:
        tape = Tape(self._keep)
        try:
            server = socket.create_connection(self.to, timeout=CONNECT_SECONDS)
        except OSError as error:
            self._tell(f"could not connect to {self.to[0]}:{self.to[1]}: {error}")
            _close(client, reset=True)
            return
        if len(self.tapes) < MOST_TAPES:
            self.tapes.append(tape)
        else:
            self.unrecorded += 1
            tape.cut = True
        try:
            self._relay(client, server, tape)
        finally:
            for each in (client, server):
                each.close()

    def _relay(self, client: Any, server: Any, tape: Tape) -> None:
        """Return when both directions have ended."""
        for each in (client, server):
            each.settimeout(None)
            each.setsockopt(plain_socket.IPPROTO_TCP, plain_socket.TCP_NODELAY, 1)
        ways = [
            gevent.spawn(_pump, client, server, "client", tape),
            gevent.spawn(_pump, server, client, "server", tape),
        ]
        try:
            for way in gevent.iwait(ways):
                if way.value == "reading":  # the side that it read from is gone, with all that it had to say
                    self._reset(client, server)
                    return
                if way.value == "writing":  # the other side is gone: what it had sent before is still due
                    gevent.joinall(ways, timeout=LAST_WORDS_SECONDS)
                    self._reset(client, server)
                    return
        finally:
            gevent.killall(ways)

    def _reset(self, *sockets: Any) -> None:
        """Reset both connections, but not before what was written to them has been received."""
        end = perf_counter() + LAST_WORDS_SECONDS
        while any(_unsent(each) for each in sockets) and perf_counter() < end:
            gevent.sleep(0.005)
        for each in sockets:
            _close(each, reset=True)


def _pump(source: Any, sink: Any, side: Side, tape: Tape) -> Literal["end", "reading", "writing"]:
    """Relay what ``source``, which is the ``side`` of the tape, sends. Returns what ended it."""
    while True:
        try:
            data = source.recv(READ_BYTES)
        except OSError:
            tape.end(side)
            return "reading"
        if not data:
            tape.end(side)
            try:
                sink.shutdown(socket.SHUT_WR)
            except OSError:  # the other side has left already, and its own direction tells how
                pass
            return "end"
        tape.add(side, data, perf_counter())
        try:
            sink.sendall(data)
        except OSError:
            tape.end("server" if side == "client" else "client")
            return "writing"


def _unsent(sock: Any) -> int:
    """Bytes that were written to ``sock`` and not acknowledged; 0 where the connection is gone."""
    state = sock.getsockopt(plain_socket.IPPROTO_TCP, plain_socket.TCP_INFO, 1)[0]
    if state == TCP_CLOSE:
        return 0
    return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def _close(sock: Any, reset: bool) -> None:
    if reset:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        except OSError:  # it is closed
            pass
    sock.close()
