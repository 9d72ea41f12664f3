"""The two things a service manager and a server tell each other: sockets handed over, and readiness.

Both are systemd's protocols, spoken by others as well, and need no library: ``LISTEN_FDS`` is described in
sd_listen_fds(3), ``NOTIFY_SOCKET`` in sd_notify(3). Without their environment variables nothing happens.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

FIRST_FD: Final = 3
"""SD_LISTEN_FDS_START: the first descriptor that is handed over."""

log = logging.getLogger("chat_gevent")


def inherited_sockets(environment: MutableMapping[str, str] = os.environ) -> list[tuple[str, socket.socket]]:
    """Take over the listening sockets, each with its name (``FileDescriptorName=``), and unset the variables.

    Sockets meant for another process are left alone.
    Raises OSError: a descriptor is no listening stream socket.
    """
    ours = environment.get("LISTEN_PID") == str(os.getpid())
    count, names = environment.get("LISTEN_FDS", ""), environment.get("LISTEN_FDNAMES", "").split(":")
    if not ours or not count.isdecimal():
        return []
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environment.pop(variable, None)
    found = []
    for index in range(int(count)):
        fd = FIRST_FD + index
        os.set_inheritable(fd, False)
        listener = socket.socket(fileno=fd)
        if listener.type != socket.SOCK_STREAM or not listener.getsockopt(
            socket.SOL_SOCKET, socket.SO_ACCEPTCONN
        ):
            raise OSError(f"descriptor {fd}, which was handed over, is no listening stream socket")
        listener.setblocking(False)
        found.append((names[index] if index < len(names) else "", listener))
    return found


def notify(*states: str, environment: MutableMapping[str, str] = os.environ) -> bool:
    """Tell the service manager ``READY=1`` and the like; returns whether there is one that could be told."""
    path = environment.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            manager.setblocking(False)
            manager.connect("\0" + path[1:] if path.startswith("@") else path)
            manager.send("\n".join(states).encode())
    except OSError as error:
        log.warning("can't notify the service manager at %s: %s", path, error.strerror)
        return False
    return True


def monotonic_usec() -> str:
    """``MONOTONIC_USEC=...``, which goes with ``RELOADING=1``."""
    return f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


def watchdog_seconds(environment: MutableMapping[str, str] = os.environ) -> float:
    """How often the service manager wants ``WATCHDOG=1``: half of what it allows; 0 where it doesn't."""
    allowed, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not allowed.isdecimal() or pid not in ("", str(os.getpid())):
        return 0.0
    return int(allowed) / 2e6


class Watchdog:
    """Tells the service manager as often as it wants that this process runs."""

    def __init__(self) -> None:
        self._period = watchdog_seconds()
        self._due = time.monotonic()

    def feed(self, interval: float) -> None:
        """To be called every ``interval`` seconds; by the clock, because it may be called late."""
        now = time.monotonic()
        if self._period and now + interval > self._due:
            notify("WATCHDOG=1")
            self._due = now + self._period
