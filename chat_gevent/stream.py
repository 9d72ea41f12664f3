"""A non-blocking socket that a greenlet can wait on. It knows no engine, no TLS and no protocol.

:class:`Stream` reads, sends what is due, and waits for either. While nothing has to wait it makes one system
call and nothing else. Somebody else watches for input: he switches into :attr:`Stream.waiter` when there is
some. Room for output, which is waited for rarely, has a watcher of the hub's.

What is due to the client lies in :attr:`Stream.outbox`, replies and pushes in the order in which they were
made. :meth:`Stream.flush` sends it without blocking, from wherever it is called; :meth:`Stream.send_due`
blocks its greenlet until all of it is gone.
"""

from __future__ import annotations

from typing import Any, Protocol

from gevent import Timeout
from greenlet import greenlet

from chat_gevent.errors import WriteTimeout
from chat_gevent.system import System

JOINED_ITEMS = 2048
"""Most items of an outbox that are joined for one send."""


class NeedsOutput(Exception):
    """A socket can't be read before it has room for output: raised by sockets that encrypt."""


class Shared(Protocol):
    """What a stream shares with others."""

    system: System
    write_timeout: float
    """Seconds after which a client that takes nothing is given up; 0: never."""
    buffer: bytearray
    """Where all reads put what they take; nothing is kept in it."""
    queued: int
    """Bytes of pushes that wait in outboxes."""

    def demand_rate(self, seconds: float, taken: int) -> None:
        """Raise WriteTimeout where a client that is waited for has taken too little in so many seconds."""

    def settle(self, stream: Any, left: int) -> None:
        """Of what is due to ``stream`` so many bytes are left."""


class Stream:
    """A client's socket, and the greenlet that is leased to it while it has something to say.

    :param socket: non-blocking; the stream owns it. Its ``recv_into`` and ``send`` raise BlockingIOError
        where they would block.
    :param core: what it shares with others.
    """

    __slots__ = ("core", "greenlet", "missed", "outbox", "sent", "socket", "waiter")

    def __init__(self, socket: Any, core: Any) -> None:
        self.socket = socket
        self.core = core
        self.greenlet: greenlet | None = None  # the one that is leased to this client
        self.waiter: greenlet | None = None  # the same, while it waits for input
        self.missed = 0  # events that came while it was busy with something else
        self.sent = 0  # bytes
        self.outbox: list[str | bytes] | None = None

    @property
    def fd(self) -> int:
        """The descriptor; -1 once the connection is closed."""
        fd: int = self.socket.fileno()
        return fd

    def read(self, size: int) -> bytearray | None:
        """One read of at most ``size`` bytes: None where nothing is there, nothing at the end of the stream.

        Raises OSError, WriteTimeout.
        """
        buffer = self.core.buffer
        while True:
            try:
                taken: int = self.socket.recv_into(buffer, size)
                data: bytearray = buffer[:taken]
                return data
            except BlockingIOError:
                return None
            except NeedsOutput:
                self.wait_writable()

    def wait_readable(self, seconds: float | None = None) -> int:
        """Block this greenlet until there may be input; returns the event that said so.

        That is 0 after ``seconds``, and when the wait was ended for another reason.
        """
        if self.missed:
            event, self.missed = self.missed, 0
            return event
        timer = None if seconds is None else Timeout.start_new(seconds)
        self.waiter = self.greenlet
        try:
            return int(self.core.system.hub.switch())
        except Timeout as timeout:
            if timeout is not timer:
                raise
            return 0
        finally:
            self.waiter = None
            if timer is not None:
                timer.close()

    def end_wait(self, event: int = 0) -> None:
        """Have the hub end this stream's wait for input, if it is in one, with ``event`` as result."""
        if self.waiter is not None:
            self.core.system.hub.loop.run_callback(self._switch_to_waiter, event)

    def _switch_to_waiter(self, event: int) -> None:
        # Input or a time-out may have ended the wait first, and the greenlet be another client's by now.
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            waiter.switch(event)

    def flush(self) -> bool:
        """Send what is due, as far as the kernel takes it; returns whether all is gone. Never blocks.

        Raises OSError: the client is gone.
        """
        outbox = self.outbox
        while outbox:
            if len(outbox) <= JOINED_ITEMS:
                data = self.join(outbox)
                outbox.clear()
            else:
                data = self.join(outbox[:JOINED_ITEMS])
                del outbox[:JOINED_ITEMS]
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                outbox.insert(0, data)  # still due: whoever sends next must not go on behind it
                if self.core.queued:  # what went before is gone
                    self.core.settle(self, sum(map(len, outbox)))
                raise
            self.sent += sent
            if sent < len(data):
                outbox.insert(0, data[sent:] if sent else data)
                if not sent:  # TLS may have sent what it took before, and have room for more
                    break
        if self.core.queued:
            self.core.settle(self, sum(map(len, outbox)) if outbox else 0)
        return not outbox

    def join(self, due: list[str | bytes]) -> bytes:
        """What is due, in order, as bytes to send."""
        raise NotImplementedError

    def send_due(self) -> None:
        """Send all that is due, blocking this greenlet while the client is slow to take it.

        Raises OSError: the client is gone; WriteTimeout: it took nothing for ``write_timeout``.
        """
        if self.flush():
            return
        began, taken = self.core.system.monotonic(), self.taken()
        while True:
            self.wait_writable()
            self.core.demand_rate(self.core.system.monotonic() - began, self.taken() - taken)
            if self.flush():
                return

    def taken(self) -> int:
        """Bytes that the client's system has confirmed so far. Raises OSError."""
        untaken: int = self.core.system.untaken(self.fd)
        return self.sent - untaken

    def wait_writable(self) -> None:
        """Block this greenlet until the client takes more. Raises OSError, WriteTimeout.

        The kernel says "writable" only once there is room for much (``TCP_NOTSENT_LOWAT``), so a client that
        takes little at a time is told by what is left in the socket.
        """
        seconds = self.core.write_timeout or None
        system = self.core.system
        watcher = system.hub.loop.io(self.fd, 2)
        try:
            left, sent = system.untaken(self.fd), self.sent
            began, taken = system.monotonic(), sent - left
            while True:
                try:
                    with Timeout.start_new(seconds, WriteTimeout()):
                        system.hub.wait(watcher)
                    return
                except WriteTimeout:
                    before, left = left, system.untaken(self.fd)
                    if left >= before and self.sent == sent:  # nor was there room for what the hub has sent
                        raise
                    sent = self.sent
                    self.core.demand_rate(system.monotonic() - began, sent - left - taken)
        finally:
            watcher.close()
