"""A kernel in memory: TCP sockets, a listener and epoll, with the semantics of Linux.

What the server sees is in :class:`Listener`, :class:`Epoll`, and the sockets of
:mod:`tests.faults.simulation.sockets`. Nothing here waits, and nothing happens by itself.

Edge-triggered events are made as ``fs/eventpoll.c`` and ``net/ipv4/tcp.c`` make them:

* Whatever happens to a socket wakes its epoll item with a key; an item that is interested in the key is put
  on the ready list, behind those that are there. An end or an error has no key, and wakes every item.
* ``epoll_wait`` takes items off that list and reports what holds *now* of what they are interested in;
  nothing is reported where nothing holds any more. ``epoll_ctl`` puts an item on it where something holds.
* A socket is writable while at most two thirds of its buffer are used. The wake for that comes only to a
  socket that was found full before: by a send that took less than all, or by a poll.
* An item goes with the descriptor.

"""

from __future__ import annotations

import errno
import os
from _socket import AF_INET, SOCK_STREAM
from select import (
    EPOLLERR,
    EPOLLET,
    EPOLLHUP,
    EPOLLIN,
    EPOLLPRI,
    EPOLLRDBAND,
    EPOLLRDNORM,
)
from typing import Any, ClassVar

READABLE = EPOLLIN | EPOLLPRI | EPOLLRDNORM | EPOLLRDBAND
"""The key with which data that comes in wakes (``sock_def_readable``)."""

FIRST_FD = 10


def failed(number: int) -> OSError:
    """The OSError of an ``errno``; of the class that Python has for it."""
    return OSError(number, os.strerror(number))


class Kernel:
    """Descriptors, and what is wrong with how they were used.

    ``violations`` collects what no correct server does, such as to watch a descriptor that is closed.
    """

    current: ClassVar[Kernel]
    """The kernel of the world that is simulated now."""

    def __init__(self) -> None:
        self.files: dict[int, Any] = {}
        self.violations: list[str] = []
        self.ports = 0
        self.refuses_watches = 0
        """How many of the next descriptors can't be registered: no epoll watches are left."""
        self.refuses_accepts = 0
        """How many of the next accepts fail: no descriptors are left."""

    def open(self, file: Any) -> int:
        """The lowest free descriptor, as POSIX has it, for ``file``."""
        fd = FIRST_FD
        while fd in self.files:
            fd += 1
        self.files[fd] = file
        return fd

    def poll(self, fd: int) -> int:
        """What holds of a descriptor now; 0 of one that is closed."""
        file = self.files.get(fd)
        return 0 if file is None else file.poll()


class Item:
    """A socket's registration with an epoll descriptor."""

    __slots__ = ("fd", "mask", "ready", "socket")

    def __init__(self, fd: int, socket: Any, mask: int, ready: dict[Item, None]) -> None:
        self.fd, self.socket, self.ready = fd, socket, ready
        self.mask = mask | EPOLLERR | EPOLLHUP


class Epoll:
    """An epoll descriptor; of the kernel that is :attr:`Kernel.current`."""

    def __init__(self) -> None:
        self._kernel = Kernel.current
        self._ready: dict[Item, None] = {}  # an ordered set
        self._fd = self._kernel.open(self)

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def poll(self, _timeout: float = 0, most: int = -1) -> Any:
        """Events, as ``select.epoll.poll``; without arguments: whether there may be some, as a poll mask."""
        ready = self._ready
        if most < 0:
            return EPOLLIN if ready else 0
        events: list[tuple[int, int]] = []
        for item in list(ready):
            if len(events) == most:
                break
            del ready[item]
            holds = item.socket.poll() & item.mask
            if holds:
                events.append((item.fd, holds))
        return events

    def register(self, fd: int, mask: int) -> None:
        """Raises OSError: no watches are left; ValueError: it is closed."""
        kernel = self._kernel
        if self._fd < 0:
            raise ValueError("I/O operation on closed epoll object")
        socket: Any = kernel.files.get(fd)
        if not hasattr(socket, "item"):  # a real one, with which a server looks whether there are watches
            return
        if kernel.refuses_watches:
            kernel.refuses_watches -= 1
            raise failed(errno.ENOSPC)
        if not mask & EPOLLET:
            kernel.violations.append(f"descriptor {fd} is registered level-triggered")
        socket.item = item = Item(fd, socket, mask, self._ready)
        if socket.poll() & item.mask:
            self._ready[item] = None

    def modify(self, fd: int, mask: int) -> None:
        """Raises OSError: the descriptor is closed."""
        socket = self._kernel.files.get(fd)
        if socket is None or socket.item is None:
            self._kernel.violations.append(f"epoll_ctl on descriptor {fd}, which is not registered")
            raise failed(errno.EBADF)
        item = socket.item
        item.mask = mask | EPOLLERR | EPOLLHUP
        if socket.poll() & item.mask:
            self._ready[item] = None

    def close(self) -> None:
        """Give the descriptor back."""
        del self._kernel.files[self._fd]
        self._fd = -1


class Listener:
    """A listening socket, and those who wait in its backlog."""

    family, type, proto = AF_INET, SOCK_STREAM, 0

    def __init__(self) -> None:
        self._kernel = Kernel.current
        self._backlog: list[Any] = []
        self._fd = self._kernel.open(self)

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def accept(self) -> Any:
        """Only to be recognized by: servers look for this name."""
        raise NotImplementedError

    def getsockname(self) -> tuple[str, int]:
        """The address."""
        return "127.0.0.1", 1

    def getsockopt(self, *_: Any) -> int:
        """1, as to whether it listens."""
        return 1

    def setblocking(self, _: bool) -> None:
        """Nothing here blocks."""

    def setsockopt(self, *_: Any) -> None:
        """Options change nothing here."""

    def poll(self) -> int:
        """Readable while somebody waits."""
        return EPOLLIN if self._backlog else 0

    def connect(self, peer: Any) -> None:
        """Put a new client into the backlog."""
        self._backlog.append(peer)

    def _accept(self) -> tuple[int, tuple[str, int]]:
        """Descriptor and address of the next client. Raises OSError."""
        if not self._backlog:
            raise BlockingIOError(errno.EAGAIN, "nobody waits")
        if self._kernel.refuses_accepts:
            self._kernel.refuses_accepts -= 1
            raise failed(errno.EMFILE)
        peer = self._backlog.pop(0)
        return self._kernel.open(peer.socket), peer.address

    def close(self) -> None:
        """Stop listening: those who wait are reset."""
        del self._kernel.files[self._fd]
        for peer in self._backlog:
            peer.was_reset = True
            peer.socket.closed = True
        self._backlog = []
