"""One client: read, answer, send, park, close.

A connection is a small object with slots and no greenlet of its own. The engine tells it of input with
:meth:`wake`, in the hub, where nothing may block: whole lines for the built-in confirmation are answered
there (the short way), and all else is left to a greenlet that the engine leases to the connection for one
call of :meth:`serve`. When nothing is left to read the call returns, and the client is parked. What could be
asked of the kernel (the peer's address) is not stored.

Its parts: :mod:`chat_gevent.stream` reads and sends, :mod:`chat_gevent.outgoing` has its state and outbox,
:mod:`chat_gevent.lifecycle` its endings, :mod:`chat_gevent.answering` answers.
This module has what the engine calls.

Every message that was read is answered before the connection closes, unless the client vanished.
"""

from __future__ import annotations

from select import EPOLLIN
from typing import Final

from gevent import getcurrent

from chat_gevent.answering import READ_BYTES, Answering
from chat_gevent.confirm import is_exit, whole
from chat_gevent.conversation import one_line
from chat_gevent.errors import Closed, WriteTimeout
from chat_gevent.framing import LINE, Auto, Chunk, Line
from chat_gevent.lifecycle import REFUSALS
from chat_gevent.state import BUSY, CLOSED, CLOSING, OPENING, PARKED, PARKED_SHORT, QUEUED, WAITING
from chat_gevent.stream import NeedsOutput

READS_PER_LEASE: Final = 16
"""Most reads before others have their turn, so that a client that floods can't starve them. One whole read
of :data:`READ_BYTES` ends it as well: 5,000 short messages that each need a look are work enough."""

EXIT_BYTES: Final = 16
"""A read that is ``/exit`` and nothing else has no more, or much white space: then it goes the long way."""


class Connection(Answering):
    """A client's connection.

    :param socket: non-blocking; the connection owns it.
    :param core: what all connections of the server share, a :class:`chat_gevent.core.Core`.
    :param opening: called once in a leased greenlet before the first message is read; it does the TLS
        handshake or reads a PROXY header.
    """

    __slots__ = ()

    # -- in the hub --------------------------------------------------------------------------------

    def wake(self, event: int) -> bool:
        """Answer input the short way, if it can be; returns whether a greenlet must :meth:`serve` it."""
        if self.state is not PARKED_SHORT or event != EPOLLIN:
            return self.state is not CLOSING or self.greenlet is not None or not self._dropped()
        core = self.core
        try:
            size = self.socket.recv_into(core.buffer)
        except BlockingIOError:
            return False
        except NeedsOutput:
            return True
        except OSError as error:
            self.lost(error)
            return False
        data = core.buffer[:size]
        if size == READ_BYTES or (found := whole(self.kept, data, core.limit)) is None:
            if size > EXIT_BYTES or self.kept or not is_exit(data):
                self.input = data
                return True
            self._exit(size)
            return False
        if found[1] or self.kept:
            more = len(found[1]) - len(self.kept)
            if not core.input.has_room(more):  # the long way answers this first, whoever has to go
                self.input = data
                return True
            core.input.hold(more)
        reply, self.kept, count = found
        self.framing = LINE  # which an LF in the first bytes decides, under ``auto``
        self.messages += count
        self.received += size
        self.tick = core.engine.tick
        try:
            sent = self.socket.send(reply)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.lost(error)
            return False
        self.sent += sent
        if sent == len(reply):
            return core.encrypts and self.encrypted and not self.socket.drained
        self.outbox = [reply[sent:]]
        return True

    def _exit(self, size: int) -> None:
        """End the output after a read that was ``/exit``, where nothing is due."""
        self.received += size
        self.reason = "exit"
        try:  # contextlib.suppress would be paid for each client
            self._end_output()
        except Closed:
            pass

    def _dropped(self) -> bool:
        """Drop what comes after the last reply; whether that needs no greenlet."""
        if self.encrypted:
            return False
        try:
            for _ in range(READS_PER_LEASE):
                if not self.socket.recv_into(self.core.buffer):
                    self.cut(self.reason)
                    return True
        except BlockingIOError:
            return True
        except OSError as error:
            self.lost(error)
            return True
        return False

    # -- in a leased greenlet ------------------------------------------------------------------------

    def serve(self, event: int = 0, resident: bool = False) -> None:
        """Answer all that has come in, until the client is parked or gone.

        ``event`` is what epoll said, 0 where it said nothing. A ``resident`` client is never parked.
        """
        if self.greenlet is not None:  # another greenlet is at it
            if self.waiter is not None:
                waiter, self.waiter = self.waiter, None
                self.core.engine.leases.resume(waiter, event)
            else:
                self.missed |= event
            return
        if self.state is CLOSED:  # since its event came
            return
        self.greenlet = getcurrent()
        try:
            if self.state is OPENING:
                self._open()
                event = 0
            elif self.state is not CLOSING:
                self.move(BUSY)
                if self.leaving in REFUSALS:
                    self._leave_if_asked()  # first: what it has sent meanwhile is not answered
            if self.outbox:
                self.send_due()
            if resident:
                self._converse(event)
            elif event != EPOLLIN or not self._answer_line():
                self._exchange(event)
        except Closed:
            pass
        except WriteTimeout:
            self.cut("write-timeout")
        except OSError as error:
            self.lost(error)
        except MemoryError:
            self.without_memory()
        except BaseException:
            self.cut("killed")
            raise
        finally:
            self.greenlet = self.waiter = None
            if self.state is BUSY:
                if not self.outbox:
                    self.outbox = None
                self.move(self._parked() if self.core.confirms else PARKED)
            elif self.state is CLOSED:
                self._tell_disconnected()

    def serve_resident(self) -> None:
        """Serve the client in the current greenlet for as long as it is connected, never parking it."""
        while self.state is not CLOSED:
            self.serve(resident=True)

    def _open(self) -> None:
        opening, self.opening = self.opening, None
        if opening is not None:
            self.input = opening(self) or None
        self.tick = self.core.engine.tick
        if self.leaving in REFUSALS:
            self._leave_if_asked()
        if self.state is OPENING and self.core.greets:
            self._greet()  # until that has returned, the client is none that others could send to
        if self.state is OPENING:  # it has not finished
            self.move(BUSY)

    def _converse(self, event: int) -> None:
        """Exchange, and wait for more, until the wait is ended or the client is gone."""
        while True:
            self._exchange(event)
            if self.state is CLOSED:
                return
            event = self.wait_readable()
            if not event:
                return

    def wait_readable(self, seconds: float | None = None) -> int:
        """As :meth:`Stream.wait_readable`."""
        if self.state is BUSY and not self.missed:
            self.move(WAITING)
        try:
            return super().wait_readable(seconds)
        finally:
            if self.state in (WAITING, QUEUED):
                self.move(BUSY)

    def _answer_line(self) -> bool:
        """Read, and answer if that is one whole line and nothing else is to be minded; whether it was."""
        core = self.core
        if (
            self.state is not BUSY
            or not core.rules.text
            or type(self.framing) is not Line
            or type(self.socket) is not core.system.socket
            or self.kept
            or self.input is not None
            or self.missed
            or self.leaving
        ):
            return False
        data = self.read(READ_BYTES)
        if data is None:
            return True
        message = one_line(data, core.rules)
        if message is None or len(data) == READ_BYTES:
            self.input = data
            return False
        self.received += len(data)
        self._answer([message], None)
        if self.missed or self.leaving:
            self._leave_if_asked()
            if self.state is not CLOSED:
                self._exchange(0)
        return True

    def _exchange(self, event: int) -> None:
        """Read and answer until nothing is left.

        A short read shows that, unless the event said more than "input": then only a read that finds nothing
        does.
        """
        plain = type(self.socket) is self.core.system.socket  # as ``encrypted``, without its call
        to_the_end = event != EPOLLIN
        reads = taken = 0
        while True:
            if reads == READS_PER_LEASE or taken >= READ_BYTES:  # others have their turn
                if self.state is not CLOSED:  # it was cut off while its handler was at work
                    if self.state is BUSY:
                        self.move(QUEUED)
                    self.core.engine.queue(self)
                return
            reads += 1
            if self.missed:
                to_the_end = True
                self.missed = 0
            data = self.input
            kind = type(self.framing)
            asked = min(self.framing.size, READ_BYTES) if kind is Chunk else READ_BYTES  # type: ignore[attr-defined]
            if data is not None:
                self.input = None
            else:
                data = self.read(asked)
                if data is None:
                    self._leave_if_asked()
                    if self.missed:  # it came while that was sent
                        continue
                    return
            size = len(data)
            taken += size
            if self.state is CLOSING:  # what comes after the last reply is dropped
                if not size:
                    self.cut(self.reason)
                    return
            elif not size:
                self._end_of_input()
                return
            else:
                self.received += size
                if kind is Auto:
                    to_the_end = True
                self._take(data)
                if self.leaving and self._leave_if_asked():
                    to_the_end = True
            if (size < asked if plain else self.socket.drained) and not to_the_end and not self.missed:
                return
