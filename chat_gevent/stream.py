"""A non-blocking socket that a leased greenlet can wait on.

:class:`Stream` reads, sends all, and waits for either. While nothing has to wait it makes one system
call and nothing else. Input is waited for through the lot, which has the socket registered with its
epoll; room for output, which is rare, through a watcher of the hub's.
"""

from __future__ import annotations

import sys
from fcntl import ioctl
from ssl import SSLWantReadError, SSLWantWriteError
from termios import TIOCOUTQ
from typing import TYPE_CHECKING

from gevent import Timeout

if TYPE_CHECKING:
    from _socket import socket as RawSocket

    from greenlet import greenlet

    from chat_gevent.parking import ParkingLot
    from chat_gevent.tls import TlsSocket


class WriteTimeout(Exception):
    """The client took nothing of its replies for ``write_timeout``."""


class Stream:
    """A client's socket, and the greenlet that is leased to it while it has something to say.

    :param socket: non-blocking; the stream owns it.
    :param lot: where the socket is registered for input.
    """

    __slots__ = ("greenlet", "lot", "missed", "sent", "socket", "tls", "waiting")

    def __init__(self, socket: RawSocket, lot: ParkingLot) -> None:
        self.socket: RawSocket | TlsSocket = socket
        self.lot = lot
        self.greenlet: greenlet | None = None  # the one that is leased to this client
        self.waiting = False  # ... and waits for input
        self.missed = 0  # what epoll said while it was busy with something else
        self.tls = False  # the socket decrypts, and may hold input that epoll knows nothing of
        self.sent = 0  # bytes

    @property
    def fd(self) -> int:
        """The descriptor; -1 once the connection is closed."""
        return self.socket.fileno()

    def read(self, size: int) -> bytes | None:
        """One read: None where nothing is there, ``b""`` at the end of the stream. Raises OSError."""
        while True:
            try:
                return self.socket.recv(size)
            except (BlockingIOError, SSLWantReadError):
                return None
            except SSLWantWriteError:
                self.wait_writable()

    def wait_readable(self, seconds: float | None = None) -> int:
        """Block this greenlet until there may be input; returns what epoll said of it.

        That is 0 after ``seconds``, and when the connection is to be parked or closed.
        """
        if self.missed:
            event, self.missed = self.missed, 0
            return event
        timer = None if seconds is None else Timeout.start_new(seconds)
        self.waiting = True
        try:
            return int(self.lot.hub.switch())
        except Timeout as timeout:
            if timeout is not timer:
                raise
            return 0
        finally:
            self.waiting = False
            if timer is not None:
                timer.close()

    def send(self, data: bytes) -> None:
        """Send all of ``data``, blocking this greenlet while the client is slow to take it.

        Raises OSError: the client is gone; WriteTimeout: it took nothing for ``write_timeout``.
        """
        try:
            sent = self.socket.send(data)
        except (BlockingIOError, SSLWantWriteError):
            sent = 0
        self.sent += sent
        if sent < len(data):
            self._send_rest(memoryview(data)[sent:])

    def _send_rest(self, rest: memoryview) -> None:
        while rest:
            self.wait_writable()
            try:
                sent = self.socket.send(rest)
            except (BlockingIOError, SSLWantWriteError):
                continue
            self.sent += sent
            rest = rest[sent:]

    def wait_writable(self) -> None:
        """Block this greenlet until the client takes more. Raises WriteTimeout.

        The kernel says "writable" only once there is room for much (``TCP_NOTSENT_LOWAT``), so a client that
        takes little at a time is told by what is left in the socket.
        """
        seconds = self.lot.settings.write_timeout or None
        hub = self.lot.hub
        watcher = hub.loop.io(self.fd, 2)
        try:
            left = self._untaken()
            while True:
                try:
                    with Timeout.start_new(seconds, WriteTimeout()):
                        hub.wait(watcher)
                    return
                except WriteTimeout:
                    before, left = left, self._untaken()
                    if left >= before:
                        raise
        finally:
            watcher.close()

    def _untaken(self) -> int:
        """Bytes sent that the client's system has not confirmed (SIOCOUTQ, tcp(7)). Raises OSError."""
        return int.from_bytes(ioctl(self.fd, TIOCOUTQ, bytes(4)), sys.byteorder)

    def release(self, event: int = 0) -> None:
        """Have the hub end this connection's wait for input, if it is in one, with ``event`` as result."""
        if self.waiting:
            self.lot.hub.loop.run_callback(self._end_wait, event)

    def _end_wait(self, event: int) -> None:
        # Input or a time-out may have ended the wait first, and the greenlet be another client's by now.
        if self.waiting and self.greenlet is not None:
            self.waiting = False
            self.greenlet.switch(event)
