"""How limits that are meant for all workers together are shared out among them."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Final

from chat_gevent.command.config import ServeSettings
from chat_gevent.command.handler import StartError
from chat_gevent.command.process import most_connections

SHARED_OUT: Final = ("input_total_bytes", "outbox_total_bytes")
"""Settings of bytes for all clients."""


def share(total: int, index: int, workers: int) -> int:
    """The part of worker ``index``, from 0 on, of ``total``: the shares add up to it, and differ by 1."""
    return total // workers + (index < total % workers)


def settings_of_worker(settings: ServeSettings, index: int, workers: int) -> ServeSettings:
    """The settings of one worker: budgets of bytes are its share. 0, which means no limit, stays."""
    shares: dict[str, Any] = {}
    for name in SHARED_OUT:
        total = getattr(settings, name)
        shares[name] = max(1, share(total, index, workers)) if total else 0
    return dataclasses.replace(settings, **shares)


def count_workers(settings: ServeSettings) -> int:
    """How many workers the settings ask for; 0 means one for each core that this process may use."""
    return settings.workers or len(os.sched_getaffinity(0))


def most_of_all(settings: ServeSettings, workers: int, files: int | None = None) -> int:
    """Most clients of all workers; ``files`` as of :func:`~chat_gevent.command.process.most_connections`.

    Raises StartError: not even one for each.
    """
    most = most_connections(settings, workers, files)
    if most < workers:
        raise StartError(f"max_connections = {most}: must be at least 1 for each of {workers} workers", 2)
    return most
