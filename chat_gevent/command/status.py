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
                    ``loop_lag_p99_seconds``, ``draining`` (true or false), and ``age_seconds`` of these
                    figures
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

import os
import time
from typing import Any, Final

import gevent

from chat_gevent import __version__
from chat_gevent.command import observe
from chat_gevent.command.history import History
from chat_gevent.command.snapshot import Snapshot, Watched
from chat_gevent.core import Core

SHARE: Final = 0.01
"""Most of the loop's time that samples may take: where one takes long, they are rarer than each second."""

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


class Status:
    """The status of one process, and the samples of its last ten minutes."""

    def __init__(self, core: Core, watched: Watched) -> None:
        self._watched = watched
        self._history = History()
        self._started = time.time()
        self._drain_began: float | None = None
        self._last: tuple[float, int] | None = None
        self._rate = 0.0
        self._rates = observe.ClientRates(core)
        self._sampling: gevent.Greenlet[[], None] | None = None

    def start(self) -> None:
        """Take samples from now on."""
        self._watched.lag.second.start()
        self._sampling = gevent.spawn(self._sample)

    def stop(self) -> None:
        """Take no more samples."""
        self._watched.lag.second.stop()
        if self._sampling is not None:
            self._sampling.kill()

    def _sample(self) -> None:
        took = 0.0
        while True:
            due = int(time.monotonic() + took / SHARE) + 1
            gevent.sleep(due - time.monotonic())
            began = time.monotonic()
            self._watched.lag.second.turn()
            figures = self._watched.snapshot()
            self._history.add(began, figures)
            if self._last is not None:
                self._rate = (figures.messages - self._last[1]) / (began - self._last[0])
            self._last = began, figures.messages
            if figures.draining and self._drain_began is None:
                self._drain_began = began
            took = time.monotonic() - began

    def page(self, after: float | None) -> dict[str, Any]:
        """The whole answer, ready for JSON; of the history what is later than ``after``, if that is given."""
        figures = self._watched.snapshot()
        busiest, slowest = self._rates.top()
        worker = {
            "worker": 0,
            "pid": os.getpid(),
            "connections": figures.connections,
            "connections_limit": figures.connections_limit,
            "messages": figures.messages,
            "messages_per_second": round(self._rate, 1),
            "greenlets_busy": figures.workers_busy,
            "queued_bytes": figures.queued_bytes,
            "loop_lag_p50_seconds": round(figures.lag_p50, 6),
            "loop_lag_p99_seconds": round(figures.lag_p99, 6),
            "draining": figures.draining,
            "age_seconds": 0.0,
        }
        return {
            **whole(figures, ready=not self._watched.draining, drain_began=self._drain_began),
            "started": round(self._started, 3),
            "workers": [worker],
            "history": self._history.series(after),
            "busiest": busiest,
            "slowest": slowest,
        }


def whole(figures: Snapshot, *, ready: bool, drain_began: float | None) -> dict[str, Any]:
    """The parts of the answer that are of the whole server; ``drain_began`` as of ``time.monotonic``."""
    drain = None
    if figures.draining:
        began = time.monotonic() if drain_began is None else drain_began
        drain = {"clients_left": figures.connections, "seconds": round(time.monotonic() - began, 1)}
    backplane, handler = figures.backplane, figures.handler
    return {
        "version": __version__,
        "time": round(time.time(), 3),
        "ready": ready,
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
    }
