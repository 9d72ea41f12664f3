"""The service of ``many-connections --broadcasts``: it confirms messages, and tells ``!TEXT`` to everybody.

Each worker measures for how long its broadcasts hold its event loop:

* ``slices_100us``: how long the slices were in which messages were put into outboxes and sent, in CPU time of
  the thread, so that waiting for a core does not count, as counts by tenths of a millisecond. What the kernel
  does for other processes in an interrupt is counted as time of the process that it interrupts;
* ``begins_100us``: likewise the beginnings of a broadcast, which make the list of all clients;
* ``lag_100us``: how late a timer of 10 ms was, waiting for a core included, as counts by tenths of a
  millisecond. It runs from the beginning of a broadcast until a tenth of a second after the last slice, so
  that hundreds of idle workers don't keep the machine busy with it.

When the worker is told to stop, these figures and the counts of its registry and of its backplane go into a
file of the folder that MANY_CONNECTIONS_FOLDER names.
"""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Callable
from math import ceil
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any, Final

import gevent

from chat_gevent.service import Client, Service

FOLDER: Final = "MANY_CONNECTIONS_FOLDER"
"""The variable of the environment that names the folder."""
TIMER_SECONDS: Final = 0.01
LINGER_SECONDS: Final = 0.1
"""The timer goes on for so long after the last slice: few clients are told without a slice."""


class Times:
    """How often the calls of a method took which CPU time, in tenths of a millisecond, rounded up."""

    def __init__(self, owner: type, name: str, counts: Counter[int]) -> None:
        self.told: Callable[[], None] | None = None
        """Told before each call."""
        method: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(method)
        def timed(*arguments: Any) -> Any:
            if self.told is not None:
                self.told()
            began = thread_time()
            try:
                return method(*arguments)
            finally:
                counts[ceil((thread_time() - began) * 1e4)] += 1

        setattr(owner, name, timed)


class Lag:
    """How late the event loop is with a timer, while there is something to deliver.

    :param broadcasts: the server's :class:`chat_gevent.broadcast.Broadcasts`.
    """

    def __init__(self, broadcasts: Any) -> None:
        self.counts: Counter[int] = Counter()
        """By tenths of a millisecond."""
        self._broadcasts = broadcasts
        self._timer = gevent.get_hub().loop.timer(TIMER_SECONDS, TIMER_SECONDS)
        self._due = self._until = 0.0
        self._runs = False

    def watch(self) -> None:
        """A broadcast begins."""
        self._until = perf_counter() + LINGER_SECONDS
        if not self._runs:
            self._runs = True
            self._start()

    def _start(self) -> None:
        self._due = perf_counter() + TIMER_SECONDS
        self._timer.again(self._tick, update=True)  # `start` would go on with what was left of the last time

    def _tick(self) -> None:
        now = perf_counter()
        self.counts[max(0, round((now - self._due) * 1e4))] += 1
        if self._broadcasts.running:
            self._until = now + LINGER_SECONDS
        self._runs = now < self._until
        if self._runs:
            self._start()
        else:
            self._timer.stop()


class Broadcaster(Service):
    """Everybody is told what one says after `!`."""

    def started(self, server: Any) -> None:
        """Begin to measure: the process has one server, so the methods are those of the classes."""
        self._server, core = server, server.core
        self._lag = Lag(core.broadcasts)
        self._begins: Counter[int] = Counter()
        self._slices: Counter[int] = Counter()
        Times(type(core), "deliver", self._begins).told = self._lag.watch
        for owner, name in ((type(core.broadcasts), "_slice"), (type(core.engine), "_flush")):
            Times(owner, name, self._slices)  # the two ways in which pushes are sent

    def message(self, message: str, client: Client[Any]) -> str:
        """Confirm it, and tell everybody what is for all."""
        if message.startswith("!"):
            self._server.broadcast(message[1:])
        return "Received: " + message

    def stopping(self, server: Any) -> None:
        """Write the figures; the clients have left."""
        registry, backplane = server.core.registry, server.core.backplane
        figures = {
            "pushes": registry.pushes,
            "dropped": registry.dropped,
            "slow": registry.closed["slow"],
            "write_timeout": registry.closed["write-timeout"],
            "backplane_dropped": backplane.dropped,
            "slices_100us": self._slices,
            "begins_100us": self._begins,
            "lag_100us": self._lag.counts,
        }
        (Path(os.environ[FOLDER]) / f"worker-{os.getpid()}.json").write_text(json.dumps(figures))
