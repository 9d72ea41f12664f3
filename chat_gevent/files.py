"""How many files this process may open, has open, and how many clients this and other limits carry."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path
from typing import Final

from chat_gevent.memory import available_memory

RESERVED_FILES: Final = 64
"""Descriptors kept for other things than clients: listeners, logs, the admin page, what handlers open."""


CLIENT_BYTES: Final = 5427
"""Memory of the machine for one idle client, kernel and server together, 5.3 KiB, as three million took it
(benchmarks/README.md)."""

MEMORY_SHARE: Final = 0.8
"""Part of the available memory that is counted on; the rest is for data under way and for others."""


def raise_file_limit() -> int:
    """Raise this process's soft limit of open files to the hard one; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def open_files() -> int:
    """How many files this process has open; Linux 6.2 and later tell it without listing them."""
    return Path("/proc/self/fd").stat().st_size or sum(1 for _ in Path("/proc/self/fd").iterdir())


def connection_bounds(files: int | None = None) -> dict[str, int]:
    """How many clients each limit of this machine and process carries, by the limit's name.

    :param files: that the process has open beside those of clients; as many as are now unless given.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = open_files() if files is None else files
    bounds = {"the limit of open files": soft - held - RESERVED_FILES}
    with contextlib.suppress(OSError):  # a sandbox may hide them
        in_use = int(Path("/proc/sys/fs/file-nr").read_text().split()[0])
        in_all = int(Path("/proc/sys/fs/file-max").read_text())
        bounds["fs.file-max"] = in_all - in_use - RESERVED_FILES
    with contextlib.suppress(OSError):
        bounds["fs.epoll.max_user_watches"] = int(Path("/proc/sys/fs/epoll/max_user_watches").read_text())
    with contextlib.suppress(OSError):
        bounds["memory"] = int(available_memory() * MEMORY_SHARE / CLIENT_BYTES)
    return {name: max(1, most) for name, most in bounds.items()}


def default_max_connections() -> int:
    """How many clients the narrowest of :func:`connection_bounds` carries; at least 1."""
    return min(connection_bounds().values())
