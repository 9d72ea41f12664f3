"""From the library's connections to what the admin pages show: a snapshot of all figures, a page of clients.

A snapshot walks all open connections, and no client is served meanwhile: it is taken only when asked for.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from chat_gevent.addresses import address_text
from chat_gevent.command.metrics import LAG_BUCKETS, LoopLag, TimedHandler
from chat_gevent.command.snapshot import BackplaneFigures, HandlerFigures, Snapshot
from chat_gevent.confirm import ErrorCode
from chat_gevent.connection import Connection
from chat_gevent.core import Core
from chat_gevent.lifecycle import REFUSALS, Lifecycle


def snapshot(
    core: Core,
    *,
    connections_limit: int,
    lag: LoopLag,
    handler: TimedHandler | None,
    log_lines_dropped: int,
) -> Snapshot:
    """The figures of all connections, those that are closed included."""
    engine, registry = core.engine, core.registry
    messages, received, sent = registry.totals(engine.all())
    return Snapshot(
        connections=registry.live,
        connections_limit=connections_limit,
        accepted=registry.accepted,
        # Known labels are there from the start: a first event must be an increase, not a new series.
        refused={**dict.fromkeys(REFUSALS, 0), **registry.refused},
        closed={"slow": 0, **registry.closed},
        messages=messages,
        received_bytes=received,
        sent_bytes=sent,
        errors={**dict.fromkeys(ErrorCode, 0), **registry.errors},
        pushes=registry.pushes,
        pushes_dropped=registry.dropped,
        queued_bytes=core.queued,
        broadcasts=core.broadcasts.started,
        broadcast_seconds=core.broadcasts.seconds,
        workers_busy=engine.greenlets_leased,
        workers_free=engine.greenlets_free,
        lag_bounds=LAG_BUCKETS,
        lag_counts=tuple(lag.counts),
        lag_seconds=lag.seconds,
        handler=None if handler is None else HandlerFigures(handler.calls, handler.seconds, handler.running),
        backplane=_backplane(core),
        draining=core.draining.is_set(),
        log_lines_dropped=log_lines_dropped,
    )


def _backplane(core: Core) -> BackplaneFigures | None:
    found = core.backplane
    if found is None:
        return None
    return BackplaneFigures(found.connected, found.published, found.received, found.dropped)


def clients(core: Core, after: int, limit: int) -> dict[str, Any]:
    """A page of the connected clients whose id is above ``after``; ``next`` is null on the last page."""
    page: list[Connection] = []
    following = None
    connections = core.engine.connections
    for fd in range(after + 1, len(connections)):
        connection = connections[fd]
        if connection is None:
            continue
        if len(page) == limit:
            following = page[-1].fd
            break
        page.append(connection)
    return {"total": core.registry.live, "next": following, "clients": [_describe(each) for each in page]}


def _describe(connection: Connection) -> dict[str, Any]:
    engine = connection.core.engine
    since = datetime.now(UTC) - timedelta(seconds=(engine.tick - connection.since) * engine.tick_seconds)
    client = connection.client
    return {
        "id": connection.fd,
        "address": address_text(connection.address),
        "since": since.isoformat(timespec="seconds"),
        "idle_seconds": round((engine.tick - connection.tick) * engine.tick_seconds, 1),
        "messages": connection.messages,
        "received": connection.received,
        "sent": connection.sent,
        "framing": connection.framing.name,
        "tls": connection.encrypted,
        "queued_bytes": 0 if client is None else client._queued,
        "state": connection.state.label,
    }


def departure(connection: Lifecycle) -> dict[str, Any]:
    """What the access log says of a client that has left: address, seconds (to a tick), counts, reason."""
    engine = connection.core.engine
    return {
        "client": address_text(connection.address),
        "seconds": round((engine.tick - connection.since) * engine.tick_seconds, 2),
        "messages": connection.messages,
        "received": connection.received,
        "sent": connection.sent,
        "reason": str(connection.reason),
    }
