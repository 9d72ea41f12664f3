"""Snapshots for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from chat_gevent.command.metrics import LAG_BUCKETS
from chat_gevent.command.snapshot import ProcessFigures, Snapshot


def figures(**given: Any) -> Snapshot:
    """A snapshot of a server that has done nothing, but for what is ``given``."""
    nothing: dict[str, Any] = {
        "connections": 0,
        "connections_limit": 0,
        "accepted": 0,
        "refused": {},
        "closed": {},
        "messages": 0,
        "received_bytes": 0,
        "sent_bytes": 0,
        "errors": {},
        "pushes": 0,
        "pushes_dropped": 0,
        "queued_bytes": 0,
        "broadcasts": 0,
        "broadcast_seconds": 0.0,
        "workers_busy": 0,
        "workers_free": 0,
        "lag_bounds": LAG_BUCKETS,
        "lag_counts": (0,) * (len(LAG_BUCKETS) + 1),
        "lag_seconds": 0.0,
        "lag_p50": 0.0,
        "lag_p99": 0.0,
        "handler": None,
        "backplane": None,
        "draining": False,
        "log_lines_dropped": 0,
        "process": ProcessFigures(0.0, 0, 0, 0),
    }
    return Snapshot(**{**nothing, **given})
