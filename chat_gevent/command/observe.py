"""From the library's connections to what the admin pages show: a snapshot of all figures, a page of clients.

A snapshot walks all open connections, and no client is served meanwhile: it is taken only when asked for.
"""

from __future__ import annotations

import os
import resource
import time
from array import array
from datetime import UTC, datetime, timedelta
from heapq import nlargest
from typing import Any, Final

from chat_gevent.addresses import address_text
from chat_gevent.command.metrics import LAG_BUCKETS, LoopLag, TimedHandler
from chat_gevent.command.snapshot import BackplaneFigures, HandlerFigures, ProcessFigures, Snapshot
from chat_gevent.confirm import ErrorCode
from chat_gevent.connection import Connection
from chat_gevent.core import Core
from chat_gevent.files import open_files
from chat_gevent.lifecycle import REFUSALS, Lifecycle

RATE_SECONDS: Final = 1.0
"""The least time over which a client's messages a second are counted."""

RATE_FACTOR: Final = 20
"""That time is at least so many times what a look at all clients takes: 5% of the loop's time at most."""


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
        workers_busy=engine.leases.leased,
        workers_free=engine.leases.free,
        lag_bounds=LAG_BUCKETS,
        lag_counts=tuple(lag.counts),
        lag_seconds=lag.seconds,
        lag_p50=lag.second.p50,
        lag_p99=lag.second.p99,
        handler=None if handler is None else HandlerFigures(handler.calls, handler.seconds, handler.running),
        backplane=_backplane(core),
        draining=core.draining.is_set(),
        log_lines_dropped=log_lines_dropped,
        process=_process(),
    )


def _process() -> ProcessFigures:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - procfs, read for each snapshot
        pages = int(statm.read().split()[1])
    return ProcessFigures(
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        resident_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
        open_files=open_files(),
        most_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
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


class ClientRates:
    """The busiest and the slowest clients; looks at every connection when it is asked, and at none else."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._seen = array("Q")  # messages at the last look, by descriptor
        self._since = array("q")  # ticks at which those connections began: a descriptor is soon another's
        self._looked = self._due = 0.0
        self._found: tuple[list[dict[str, Any]], list[dict[str, Any]]] = [], []

    def top(self, count: int = 10) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The clients with the most messages a second, and those with the most bytes due; most first.

        An answer is kept for :data:`RATE_SECONDS` or longer: rates over less than that would say little.
        """
        now = time.monotonic()
        passed, engine = now - self._looked, self._core.engine
        if now < self._due:
            return self._found
        self._looked = now
        more = len(engine.connections) - len(self._seen)
        self._seen.extend([0] * more)
        self._since.extend([-1] * more)
        rates: list[tuple[float, int]] = []
        due: list[tuple[int, int]] = []
        for fd, connection in enumerate(engine.connections):
            if connection is None:
                continue
            count_before, seconds = self._seen[fd], passed
            if self._since[fd] != connection.since or count_before > connection.messages:
                count_before, seconds = 0, max(1, engine.tick - connection.since) * engine.tick_seconds
            if connection.messages > count_before:
                rates.append(((connection.messages - count_before) / seconds, fd))
            if connection.outbox:
                due.append((_due(connection), fd))
            self._seen[fd], self._since[fd] = connection.messages, connection.since
        by_fd = {fd: rate for rate, fd in rates}
        busiest, slowest = (
            [
                {
                    **_describe(engine.connections[fd]),
                    "messages_per_second": round(by_fd.get(fd, 0.0), 1),
                    "due_bytes": _due(engine.connections[fd]),
                }
                for _, fd in nlargest(count, wanted)
            ]
            for wanted in (rates, due)
        )
        ended = time.monotonic()
        self._due = ended + max(RATE_SECONDS, RATE_FACTOR * (ended - now))
        self._found = busiest, slowest
        return self._found


def _due(connection: Connection) -> int:
    return sum(map(len, connection.outbox or ()))


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
