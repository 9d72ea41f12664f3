"""One client: read, answer, send, park, close.

A connection is a small object with slots and no greenlet of its own. The engine tells it of input with :meth:`wake`,
in the hub, where nothing may block: whole lines for the built-in confirmation are answered there (the short way), and
all else is left to a greenlet that the engine leases to the connection for one call of :meth:`serve`. When
nothing is left to read the call returns, and the client is parked. What could be asked of the kernel (the peer's
address) is not stored.

Its parts: :mod:`chat_gevent.stream` reads and sends, :mod:`chat_gevent.lifecycle` has its state and endings,
:mod:`chat_gevent.answering` answers. This module has what the engine calls.

Every message that was read is answered before the connection closes, unless the client vanished.
"""

from __future__ import annotations

from select import EPOLLIN
from typing import Final

from gevent import getcurrent

from chat_gevent.answering import READ_BYTES, Answering
from chat_gevent.confirm import whole
from chat_gevent.errors import Closed, WriteTimeout
from chat_gevent.framing import CHUNK_BYTES, Auto, Chunk
from chat_gevent.lifecycle import REFUSALS
from chat_gevent.state import State

READS_PER_LEASE: Final = 16
"""Most reads before others have their turn, so that a client that floods can't starve them. One whole read
of :data:`READ_BYTES` ends it as well: 5,000 short messages that each need a look are work enough."""


class Connection(Answering):
    """A client's connection.

    :param socket: non-blocking; the connection owns it.
    :param core: what all connections of the server share, a :class:`chat_gevent.core.Core`.
    :param opening: called once in a leased greenlet before the first message is read; it does the TLS handshake or
        reads a PROXY header.
    """

    __slots__ = ()

    # -- in the hub --------------------------------------------------------------------------------

    def wake(self, event: int) -> bool:
        """Answer input the short way, if it can be; returns whether a greenlet must :meth:`serve` it. Never blocks."""
        if self.state is not State.PARKED_SHORT or event != EPOLLIN:
            return True
        core = self.core
        try:
            size = self.socket.recv_into(core.buffer)
        except BlockingIOError:
            return False
        except OSError as error:
            self.lost(error)
            return False
        data = core.buffer[:size]
        if size == READ_BYTES or (found := whole(self.kept, data, core.limit)) is None:
            self.input = data
            return True
        if found[1] or self.kept:
            core.input.hold(len(found[1]) - len(self.kept))
        reply, self.kept, count = found
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
            return False
        self.outbox = [reply[sent:]]
        return True

    # -- in a leased greenlet ------------------------------------------------------------------------

    def serve(self, event: int = 0, resident: bool = False) -> None:
        """Answer all that has come in, until the client is parked or gone.

        ``event`` is what epoll said, 0 where it said nothing. A ``resident`` client is never parked.
        """
        if self.greenlet is not None:  # another greenlet is at it
            if self.waiter is not None:
                waiter, self.waiter = self.waiter, None
                self.core.engine.resume(waiter, event)
            else:
                self.missed |= event
            return
        if self.state is State.CLOSED:  # since its event came
            return
        self.greenlet = getcurrent()
        try:
            if self.state is State.OPENING:
                self._open()
                event = 0
            elif self.state is not State.CLOSING:
                self.move(State.BUSY)
            if self.outbox:
                self.send_due()
            self._converse(event, resident)
        except Closed:
            pass
        except WriteTimeout:
            self.cut("write-timeout")
        except OSError as error:
            self.lost(error)
        except BaseException:
            self.cut("killed")
            raise
        finally:
            self.greenlet = self.waiter = None
            if self.state is State.BUSY:
                if not self.outbox:
                    self.outbox = None
                self.move(self._parked())
            elif self.state is State.CLOSED:
                self._tell_disconnected()

    def serve_resident(self) -> None:
        """Serve the client in the current greenlet for as long as it is connected, never parking it."""
        while self.state is not State.CLOSED:
            self.serve(resident=True)

    def _open(self) -> None:
        opening, self.opening = self.opening, None
        if opening is not None:
            self.input = opening(self) or None
        self.tick = self.core.engine.tick
        if self.leaving in REFUSALS:
            self._leave_if_asked()
        if self.state is not State.OPENING:  # it has finished
            return
        self.move(State.BUSY)
        if self.core.greets:
            self._greet()

    def _converse(self, event: int, resident: bool) -> None:
        while True:
            self._exchange(event)
            if not resident or self.state is State.CLOSED:
                return
            event = self.wait_readable()
            if not event:
                return

    def wait_readable(self, seconds: float | None = None) -> int:
        """As :meth:`Stream.wait_readable`."""
        if self.state is State.BUSY and not self.missed:
            self.move(State.WAITING)
        try:
            return super().wait_readable(seconds)
        finally:
            if self.state in (State.WAITING, State.QUEUED):
                self.move(State.BUSY)

    def _exchange(self, event: int) -> None:
        """Read and answer until nothing is left.

        A short read shows that, unless the event said more than "input": then only a read that finds nothing does.
        """
        encrypted = self.encrypted
        to_the_end = event != EPOLLIN
        reads = taken = 0
        while True:
            if reads == READS_PER_LEASE or taken >= READ_BYTES:  # others have their turn
                if self.state is not State.CLOSED:  # it was cut off while its handler was at work
                    if self.state is State.BUSY:
                        self.move(State.QUEUED)
                    self.core.engine.queue(self)
                return
            reads += 1
            to_the_end |= self.missed != 0
            self.missed = 0
            data, self.input = self.input, None
            asked = CHUNK_BYTES if type(self.framing) is Chunk else READ_BYTES
            if data is None:
                data = self.read(asked)
                if data is None:
                    self._leave_if_asked()
                    if self.missed:  # it came while that was sent
                        continue
                    return
            taken += len(data)
            if self.state is State.CLOSING:  # what comes after the last reply is dropped
                if not data:
                    self.cut(self.reason)
                    return
            elif not data:
                self._end_of_input()
                return
            else:
                self.received += len(data)
                to_the_end |= type(self.framing) is Auto
                self._take(data)
                if self._leave_if_asked():
                    to_the_end = True
            short = self.socket.drained if encrypted else len(data) < asked
            if short and not (to_the_end or self.missed):
                return
