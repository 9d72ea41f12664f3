"""Both ends of a connection in memory: the server's socket, and the client.

A peer's data is in the socket's buffer once :meth:`Peer.send` has returned, and the server's is with the peer
once it takes it. What wakes the server, and when, is as in :mod:`tests.faults.simulation.kernel`.

A :class:`Fault` can be armed for the next call of a kind: what happens to the connection just before or just
after that call, or the error that the call fails with.
"""

from __future__ import annotations

import errno
from _socket import AF_INET, MSG_PEEK, SHUT_RD, SHUT_RDWR, SHUT_WR
from dataclasses import dataclass
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, EPOLLRDNORM, EPOLLWRNORM
from typing import Any

from tests.faults.simulation.kernel import READABLE, Item, Kernel, failed


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at the next call of a kind.

    ``moment`` is ``before`` or ``after`` the call; ``error`` has the call fail with the errno ``amount``.
    """

    moment: str
    deed: str
    """``arrive`` (data), ``fin``, ``reset``, ``lose`` (a time-out), ``take``, ``urgent``, or ``error``."""
    data: bytes = b""
    amount: int = 0


class Socket:
    """The server's end of a connection.

    :param room: bytes that its buffer for output takes.
    :param window: bytes that its buffer for input takes.
    """

    family = AF_INET

    def __new__(cls, *arguments: Any, fileno: int | None = None, **options: Any) -> Socket:
        """A new one; with ``fileno`` the one that an accept gave that descriptor to."""
        if fileno is None:
            return super().__new__(cls)
        found: Socket = Kernel.current.files[fileno]
        return found

    def __init__(
        self, *_: Any, fileno: int | None = None, peer: Any = None, room: int = 0, window: int = 0
    ) -> None:
        if fileno is not None:
            self._fd = fileno
            return
        self._fd = -1
        self.kernel = Kernel.current
        self.peer: Peer = peer
        self.room, self.window = room, window
        self.incoming = bytearray()
        self.outgoing = bytearray()
        self.taken = bytearray()
        """All bytes that reads have returned."""
        self.produced = bytearray()
        """All bytes that sends have taken."""
        self.input_ended = self.read_shut = self.write_shut = self.end_was_read = False
        self.error = 0
        self.dead = self.closed = self._found_full = False
        self.urgent = -1  # how many bytes before the urgent mark are still to be read
        self.item: Item | None = None
        self.armed: dict[str, list[Fault]] = {}

    # -- what the server calls ---------------------------------------------------------------------

    def fileno(self) -> int:
        """The descriptor; -1 once closed."""
        return self._fd

    def setblocking(self, _: bool) -> None:
        """Nothing here blocks."""

    def getpeername(self) -> tuple[str, int]:
        """The client's address. Raises OSError."""
        if self.closed or self.dead:
            raise failed(errno.EBADF if self.closed else errno.ENOTCONN)
        return self.peer.address

    def recv_into(self, buffer: bytearray, size: int = 0) -> int:
        """Read. Raises OSError."""
        self._begin("recv")
        size = size or len(buffer)
        taken = self._read(size)
        buffer[: len(taken)] = taken
        self.taken += taken
        if not taken:
            self.end_was_read = True
        if self.armed:
            self._happen("recv", "after")
        return len(taken)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Read, or look what could be read. Raises OSError."""
        self._begin("recv")
        if flags & MSG_PEEK:
            if not self.incoming and not (self.input_ended or self.read_shut or self.dead):
                raise BlockingIOError(errno.EAGAIN, "nothing is there")
            return bytes(self.incoming[:size])
        taken = self._read(size)
        self.taken += taken
        return taken

    def _read(self, size: int) -> bytes:
        incoming = self.incoming
        if incoming:
            if self.urgent >= 0:
                if self.urgent:
                    size = min(size, self.urgent)
                    self.urgent -= min(size, len(incoming))
                else:
                    self.urgent = -1
            taken = bytes(incoming[:size])
            del incoming[:size]
            return taken
        if self.error:
            self._raise_error()
        if self.input_ended or self.read_shut or self.dead:
            return b""
        raise BlockingIOError(errno.EAGAIN, "nothing is there")

    def _raise_error(self) -> None:
        error, self.error = self.error, 0
        raise failed(error)

    def send(self, data: bytes) -> int:
        """Take as much of ``data`` as there is room for. Raises OSError."""
        self._begin("send")
        if self.error:
            self._raise_error()
        if self.write_shut or self.dead:
            raise failed(errno.EPIPE)
        free = self.room - len(self.outgoing)
        if free <= 0:
            self._found_full = True
            raise BlockingIOError(errno.EAGAIN, "no room")
        sent = data[:free]
        self.outgoing += sent
        self.produced += sent
        if len(sent) < len(data):
            self._found_full = True
        if self.armed:
            self._happen("send", "after")
        return len(sent)

    def shutdown(self, how: int) -> None:
        """End output, or both. Raises OSError."""
        self._begin("shutdown")
        if self.dead:
            raise failed(errno.ENOTCONN)
        if how in (SHUT_RD, SHUT_RDWR):
            self.read_shut = True
        if how in (SHUT_WR, SHUT_RDWR):
            self.write_shut = True
        self._wake(0)
        if self.armed:
            self._happen("shutdown", "after")

    def close(self) -> None:
        """Give the descriptor back. Input that is there unread, or comes later, resets the client."""
        if self.closed:
            return
        self.closed = True
        if self._fd >= 0:
            del self.kernel.files[self._fd]
        self._fd = -1
        if self.item is not None:
            self.item.ready.pop(self.item, None)
            self.item = None
        if self.incoming:
            self.peer.be_reset()

    def untaken(self) -> int:
        """Bytes that the client has not taken."""
        return len(self.outgoing)

    # -- how it is waited for ------------------------------------------------------------------------

    def poll(self) -> int:
        """What holds now, as ``tcp_poll`` says it."""
        holds = 0
        ended = self.input_ended or self.read_shut
        if (ended and self.write_shut) or self.dead:
            holds |= EPOLLHUP
        if ended or self.dead:
            holds |= EPOLLIN | EPOLLRDNORM | EPOLLRDHUP
        if self.incoming:
            holds |= EPOLLIN | EPOLLRDNORM
        if self.urgent >= 0:
            holds |= EPOLLPRI
        if self.error:
            holds |= EPOLLERR
        if self.write_shut or self.dead or self.is_writable():
            holds |= EPOLLOUT | EPOLLWRNORM
        else:
            self._found_full = True
        return holds

    def is_writable(self) -> bool:
        """Whether at most two thirds of the buffer are used (``sk_stream_is_writeable``)."""
        used = len(self.outgoing)
        return self.room - used >= used >> 1 and used < self.room

    def _wake(self, key: int) -> None:
        item = self.item
        if item is not None and (not key or key & item.mask):
            item.ready[item] = None

    def _begin(self, call: str) -> None:
        if self.closed:
            raise failed(errno.EBADF)
        if self.armed:
            self._happen(call, "before")

    def _happen(self, call: str, moment: str) -> None:
        """Have what is armed for a call happen."""
        faults = self.armed.get(call)
        if not faults or not (
            faults[0].moment == moment or (moment == "before" and faults[0].deed == "error")
        ):
            return
        fault = faults.pop(0)
        if not faults:
            del self.armed[call]
        if fault.deed == "error":
            self.peer.faulted = True
            if fault.amount in (errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT):
                self.die(0)
            raise failed(fault.amount)
        self.peer.do(fault)

    # -- what happens to it --------------------------------------------------------------------------

    def arrive(self, data: bytes) -> int:
        """Data comes in, as much as the window takes; returns how many bytes that is."""
        taken = data[: max(0, self.window - len(self.incoming))]
        if taken:
            self.incoming += taken
            self._wake(READABLE)
        return len(taken)

    def end(self) -> None:
        """The client ends its stream."""
        self.input_ended = True
        self._wake(0)

    def die(self, error: int) -> None:
        """The connection is gone: what was not sent is lost, and what has come in can still be read."""
        self.dead, self.error = True, error
        self.outgoing.clear()
        self._wake(0)

    def make_room(self) -> None:
        """Tell that there is room again, to those who found the buffer full."""
        if self._found_full and self.is_writable():
            self._found_full = False
            self._wake(EPOLLOUT | EPOLLWRNORM)


class Peer:
    """The client's end of a connection, and what is known of it.

    :param slot: which of the clients it is.
    """

    def __init__(self, kernel: Kernel, slot: int, host: str, room: int, window: int) -> None:
        kernel.ports += 1
        self.slot = slot
        self.address = host, kernel.ports
        self.socket = Socket(peer=self, room=room, window=window)
        self.got = bytearray()
        self.sent = 0
        self.ended = self.gone = self.at_end = self.was_reset = self.faulted = False

    def do(self, fault: Fault) -> None:
        """Have a fault happen."""
        if fault.deed == "arrive":
            self.send(fault.data)
        elif fault.deed == "fin":
            self.end()
        elif fault.deed == "reset":
            self.reset()
        elif fault.deed == "lose":
            self.lose()
        elif fault.deed == "take":
            self.read(fault.amount)
        elif fault.deed == "urgent":
            self.send_urgent()

    def send(self, data: bytes) -> None:
        """Send as much of ``data`` as the window takes."""
        if self.ended or self.gone or self.was_reset or self.socket.dead:
            return
        if self.socket.closed:
            self.be_reset()
        elif self.socket.read_shut:
            self.be_reset()
            self.socket.die(0)
        else:
            self.sent += self.socket.arrive(data)

    def send_urgent(self) -> None:
        """Send an urgent byte: it is no part of the stream, but a read stops short where it was."""
        socket = self.socket
        if not (
            self.ended or self.gone or self.was_reset or socket.dead or socket.closed or socket.read_shut
        ):
            socket.urgent = len(socket.incoming)
            socket._wake(READABLE)

    def read(self, most: int) -> None:
        """Take at most so many bytes."""
        if self.gone or self.was_reset:
            return
        socket = self.socket
        self.got += socket.outgoing[:most]
        del socket.outgoing[:most]
        if not socket.outgoing and (socket.closed or socket.write_shut):
            self.at_end = True
        socket.make_room()

    def end(self) -> None:
        """End the own stream."""
        if not (self.ended or self.gone or self.was_reset):
            self.ended = True
            if not self.socket.closed and not self.socket.dead:
                self.socket.end()

    def reset(self) -> None:
        """Close with a reset."""
        if not self.gone:
            self.gone = True
            if not self.socket.closed and not self.socket.dead:
                self.faulted = True
                self.socket.die(errno.ECONNRESET)

    def lose(self) -> None:
        """Vanish: the kernel gives the connection up."""
        if not self.gone:
            self.gone = True
            if not self.socket.closed and not self.socket.dead:
                self.faulted = True
                self.socket.die(errno.ETIMEDOUT)

    def be_reset(self) -> None:
        """The server's kernel resets the connection; what was not taken is lost."""
        self.was_reset = True
        self.socket.outgoing.clear()
