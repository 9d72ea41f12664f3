"""From the library's connections to what the admin pages show: a snapshot of all figures, a page of clients.

A snapshot walks all open connections, and no client is served meanwhile: it is taken only when asked for.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from chat_gevent.addresses import address_text
from chat_gevent.command.metrics import LAG_BUCKETS, LoopLag, TimedHandler
from chat_gevent.command.snapshot import HandlerFigures, Snapshot
from chat_gevent.confirm import ErrorCode
from chat_gevent.connection import REFUSALS, Connection, Phase

if TYPE_CHECKING:
    from chat_gevent.parking import ParkingLot


def snapshot(
    lot: ParkingLot,
    *,
    connections_limit: int,
    lag: LoopLag,
    handler: TimedHandler | None,
    log_lines_dropped: int,
) -> Snapshot:
    """The figures of all connections, those that are closed included."""
    live = [each for each in lot.connections if each is not None]
    return Snapshot(
        connections=lot.live,
        connections_limit=connections_limit,
        accepted=lot.accepted,
        # Known labels are there from the start: a first event must be an increase, not a new series.
        refused={**dict.fromkeys(REFUSALS, 0), **lot.refused},
        closed=dict(lot.closed),
        messages=lot.past_messages + sum(each.messages for each in live),
        received_bytes=lot.past_received + sum(each.received for each in live),
        sent_bytes=lot.past_sent + sum(each.sent for each in live),
        errors={**dict.fromkeys(ErrorCode, 0), **lot.errors},
        workers_busy=lot.greenlets_leased,
        workers_free=lot.greenlets_free,
        lag_bounds=LAG_BUCKETS,
        lag_counts=tuple(lag.counts),
        lag_seconds=lag.seconds,
        handler=None if handler is None else HandlerFigures(handler.calls, handler.seconds, handler.running),
        draining=lot.draining.is_set(),
        log_lines_dropped=log_lines_dropped,
    )


def clients(lot: ParkingLot, after: int, limit: int) -> dict[str, Any]:
    """A page of the connected clients whose id is above ``after``; ``next`` is null on the last page."""
    page: list[Connection] = []
    following = None
    for fd in range(after + 1, len(lot.connections)):
        connection = lot.connections[fd]
        if connection is None:
            continue
        if len(page) == limit:
            following = page[-1].fd
            break
        page.append(connection)
    return {"total": lot.live, "next": following, "clients": [_describe(each) for each in page]}


def _describe(connection: Connection) -> dict[str, Any]:
    lot = connection.lot
    since = datetime.now(UTC) - timedelta(seconds=(lot.tick - connection.since) * lot.tick_seconds)
    return {
        "id": connection.fd,
        "address": address_text(connection.address),
        "since": since.isoformat(timespec="seconds"),
        "idle_seconds": round((lot.tick - connection.tick) * lot.tick_seconds, 1),
        "messages": connection.messages,
        "received": connection.received,
        "sent": connection.sent,
        "framing": connection.framing.value,
        "tls": connection.tls,
        "state": _state(connection),
    }


def _state(connection: Connection) -> str:
    """``opening``, ``closing``, ``parked``, ``waiting`` (with a greenlet of its own), or ``busy``."""
    if connection.phase is not Phase.SERVING:
        return connection.phase.name.lower()
    if connection.greenlet is None:
        return "parked"
    return "waiting" if connection.waiting else "busy"


def departure(connection: Connection) -> dict[str, Any]:
    """What the access log says of a client that has left: address, seconds (to a tick), counts, reason."""
    lot = connection.lot
    return {
        "client": address_text(connection.address),
        "seconds": round((lot.tick - connection.since) * lot.tick_seconds, 2),
        "messages": connection.messages,
        "received": connection.received,
        "sent": connection.sent,
        "reason": str(connection.reason),
    }
