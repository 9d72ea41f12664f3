"""``/status.json``: what the status page shows, in one answer.

All keys are always there; a value that there is none of is null. Times are Unix times in seconds, durations
are seconds, rates are per second, sizes are bytes; counts are since the start of the server.

==================  ==========================================================================================
version             of chat_gevent
time                when the answer was made
started             when the server was started
ready               whether new clients are welcome
drain               null, or while it drains: ``clients_left``, and ``seconds`` since it began
backplane           null, or ``connected`` (true or false), ``published``, ``received``, ``dropped``
handler             null, or of a handler of one's own: ``calls``, ``seconds`` in it, ``running`` now
totals              over all workers: ``connections``, ``connections_limit``, ``accepted``, ``messages``,
                    ``received_bytes``, ``sent_bytes``, ``pushes``, ``pushes_dropped``, ``queued_bytes`` (of
                    pushes that wait now), ``broadcasts``, ``broadcast_seconds``, ``greenlets_busy``,
                    ``greenlets_free``, ``log_lines_dropped``
refused             connections refused when they came, by reason
closed              connections closed, by reason
errors              error replies sent, by code
workers             a list, of one for one process, each with ``worker`` (its number from 0), ``pid``,
                    ``connections``, ``connections_limit``, ``messages``, ``messages_per_second``,
                    ``greenlets_busy``, ``queued_bytes``, ``loop_lag_p50_seconds``,
                    ``loop_lag_p99_seconds``, ``cpu_seconds``, ``resident_bytes``, ``draining`` (true or
                    false), and ``age_seconds`` of these figures; ``messages`` and ``cpu_seconds`` are of
                    earlier workers of that number too
history             the last ten minutes, see below
busiest             the ten clients with the most messages a second: what ``/clients`` says of each, with
                    ``messages_per_second`` and ``due_bytes`` (of replies and pushes that it has not taken);
                    rates are since the answer before this, or since the client came
slowest             the ten clients with the most ``due_bytes``, in the same form; none with 0
==================  ==========================================================================================

``history`` has ``seconds`` (how far back it reaches: 600), ``newest`` (the time of the last value, null where
there is none yet) and ``series``: lists of equal length by name, oldest first, a second between two values.
Names: ``connections``, ``queued_bytes``, ``loop_lag_p50_seconds``, ``loop_lag_p99_seconds`` (of that second;
over workers, of the slowest one), ``messages_per_second``, ``pushes_per_second``, ``refused_per_second``,
``closed_per_second``; the first rate of all is null. With ``?after=TIME``, where TIME is the ``newest`` of an
answer before, only later values are told; ``newest`` stays TIME where there are none.
"""

from __future__ import annotations

import time
from typing import Any, Final

from chat_gevent import __version__
from chat_gevent.command.overview import Overview
from chat_gevent.command.total import WorkerFigures

TOTALS: Final = {
    "connections": "connections",
    "connections_limit": "connections_limit",
    "accepted": "accepted",
    "messages": "messages",
    "received_bytes": "received_bytes",
    "sent_bytes": "sent_bytes",
    "pushes": "pushes",
    "pushes_dropped": "pushes_dropped",
    "queued_bytes": "queued_bytes",
    "broadcasts": "broadcasts",
    "broadcast_seconds": "broadcast_seconds",
    "greenlets_busy": "workers_busy",
    "greenlets_free": "workers_free",
    "log_lines_dropped": "log_lines_dropped",
}
"""Keys of ``totals``, and which figure of a snapshot each is."""


def page(overview: Overview, after: float | None) -> dict[str, Any]:
    """The whole answer, ready for JSON; of the history what is later than ``after``, if that is given.

    To be called after ``overview.look()``; this waits for nothing.
    """
    figures = overview.snapshot()
    workers = overview.workers()
    drain = None
    if figures.draining:
        seconds = max((each.draining_seconds or 0.0 for each in workers), default=0.0)
        drain = {"clients_left": figures.connections, "seconds": round(seconds, 1)}
    busiest, slowest = overview.tops
    backplane, handler = figures.backplane, figures.handler
    return {
        "version": __version__,
        "time": round(time.time(), 3),
        "started": round(overview.started, 3),
        "ready": any(each.ready for each in workers),
        "drain": drain,
        "backplane": None
        if backplane is None
        else {name: getattr(backplane, name) for name in ("connected", "published", "received", "dropped")},
        "handler": None
        if handler is None
        else {name: getattr(handler, name) for name in ("calls", "seconds", "running")},
        "totals": {name: getattr(figures, figure) for name, figure in TOTALS.items()},
        "refused": dict(figures.refused),
        "closed": dict(figures.closed),
        "errors": dict(figures.errors),
        "workers": [_worker(each) for each in workers],
        "history": overview.history.series(after),
        "busiest": busiest,
        "slowest": slowest,
    }


def _worker(known: WorkerFigures) -> dict[str, Any]:
    figures = known.figures
    return {
        "worker": known.worker,
        "pid": known.pid,
        "connections": figures.connections,
        "connections_limit": figures.connections_limit,
        "messages": known.messages,
        "messages_per_second": round(known.messages_per_second, 1),
        "greenlets_busy": figures.workers_busy,
        "queued_bytes": figures.queued_bytes,
        "loop_lag_p50_seconds": round(figures.lag_p50, 6),
        "loop_lag_p99_seconds": round(figures.lag_p99, 6),
        "cpu_seconds": round(known.cpu_seconds, 3),
        "resident_bytes": figures.process.resident_bytes,
        "draining": figures.draining,
        "age_seconds": round(known.age, 2),
    }
