"""How many files this process may open, has open, and what that means for clients."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Final

RESERVED_FILES: Final = 64
"""Descriptors kept for other things than clients: listeners, logs, the admin page, what handlers open."""


def raise_file_limit() -> int:
    """Raise this process's soft limit of open files to the hard one; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def open_files() -> int:
    """How many files this process has open; Linux 6.2 and later tell it without listing them."""
    return Path("/proc/self/fd").stat().st_size or sum(1 for _ in Path("/proc/self/fd").iterdir())


def default_max_connections() -> int:
    """How many clients the limit of open files carries, less those open and a reserve; at least 1."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, soft - open_files() - RESERVED_FILES)
