"""What the engine and its connections ask of the machine, in one small object.

By default these are the real calls. A simulation hands an object of its own to
:class:`chat_gevent.core.Core`, and with it a poller, a clock and sockets that it controls.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from _socket import socket as RawSocket
from fcntl import ioctl
from select import EPOLLIN, POLLIN
from termios import TIOCOUTQ
from typing import Any

import gevent
from gevent import get_hub, getcurrent
from gevent.monkey import get_original


def own_main_thread() -> None:
    """Have the interpreter know its main thread again, so that it can end; to be called in the main greenlet.

    ``monkey.patch_all()`` takes the greenlet that calls it for the main thread, a handler's for example. At
    its end the interpreter then waits for ever for the real one.
    """
    main: Any = threading.main_thread()
    if getcurrent().parent is None and main.ident != threading.get_ident():
        main._ident = threading.get_ident()


def check_watches(system: System) -> None:
    """Raise OSError unless the kernel has epoll watches left: without them nobody could be served."""
    probe = os.eventfd(0, os.EFD_CLOEXEC)
    pollers = [system.epoll(), system.epoll()]  # the engine's, and the hub's that watches it
    try:
        for each in pollers:
            each.register(probe, EPOLLIN)
    except OSError as error:
        problem = "no epoll watches left (fs.epoll.max_user_watches)"
        raise OSError(error.errno, problem) from None
    finally:
        for each in pollers:
            each.close()
        os.close(probe)


class System:
    """The real machine."""

    __slots__ = ("epoll", "hub", "monotonic", "perf_counter", "sleep", "socket")

    def __init__(self) -> None:
        self.hub: Any = get_hub()
        # monkey.patch_all(), which a handler's module may have called, takes some names out of ``select``.
        self.epoll: Any = get_original("select", "epoll")
        self.monotonic = time.monotonic
        self.perf_counter = time.perf_counter
        self.sleep = gevent.sleep
        self.socket: Any = RawSocket
        """The class of plain sockets; one of another class decrypts."""

    def readable(self, listener: Any) -> bool:
        """Whether somebody waits to be accepted."""
        ready = get_original("select", "poll")()
        ready.register(listener, POLLIN)
        return bool(ready.poll(0))

    def untaken(self, fd: int) -> int:
        """Bytes sent that the peer's system has not confirmed (SIOCOUTQ, tcp(7)). Raises OSError."""
        return int.from_bytes(ioctl(fd, TIOCOUTQ, bytes(4)), sys.byteorder)
