"""What the admin pages show: of one process, or (:mod:`chat_gevent.command.together`) of all workers."""

from __future__ import annotations

import logging
import os
import time
from typing import Any, Final

import gevent

from chat_gevent.command.history import History
from chat_gevent.command.observe import ClientRates
from chat_gevent.command.snapshot import Snapshot, Watched
from chat_gevent.command.total import WorkerFigures
from chat_gevent.core import Core

SHARE: Final = 0.01
"""Most of the loop's time that samples may take: where one takes long, they are rarer than each second."""

log = logging.getLogger("chat_gevent")

Top = tuple[list[dict[str, Any]], list[dict[str, Any]]]


class Overview:
    """The figures of the process that serves, and samples of its last ten minutes."""

    many = False
    """Whether there are several processes."""

    def __init__(self, watched: Watched, core: Core) -> None:
        self.watched = watched
        self.history = History()
        self.started = time.time()
        self.tops: Top = [], []
        """The busiest and the slowest clients."""
        self._rates = ClientRates(core)
        self._before: tuple[float, int] | None = None  # time and messages of the last sample
        self._messages_per_second = 0.0
        self._draining_since: float | None = None
        self._sampling: gevent.Greenlet[[], None] | None = None

    def start(self) -> None:
        """Take samples from now on."""
        self.watched.lag.second.start()
        self._sampling = gevent.spawn(self._sample)

    def stop(self) -> None:
        """Take no more samples."""
        self.watched.lag.second.stop()
        if self._sampling is not None:
            self._sampling.kill()

    def _sample(self) -> None:
        took = 0.0
        while True:
            due = int(time.monotonic() + took / SHARE) + 1
            gevent.sleep(due - time.monotonic())
            began = time.monotonic()
            self.watched.lag.second.turn()
            try:
                figures = self.own()
            except OSError as error:  # no file is left to read some of them from
                log.warning("there is no sample of this second: %s", error.strerror)
                continue
            if self._before is not None:
                self._messages_per_second = (figures.messages - self._before[1]) / (began - self._before[0])
            self._before = began, figures.messages
            took = time.monotonic() - began
            self.keep(figures)

    def own(self) -> Snapshot:
        """This process's figures of now."""
        figures = self.watched.snapshot()
        if self._draining_since is None and figures.draining:
            self._draining_since = time.monotonic()
        return figures

    def keep(self, figures: Snapshot) -> None:
        """Keep a sample of this process; it may wait."""
        self.history.add(time.monotonic(), figures)

    # -- what the pages ask --------------------------------------------------------------------------

    def look(self) -> None:
        """Called before :func:`chat_gevent.command.status.page`: :meth:`refresh`, and look for ``tops``."""
        self.refresh()
        self.tops = self.top()

    def refresh(self) -> None:
        """Called before :meth:`snapshot`, so that its figures are of now; it may wait for other workers."""

    def snapshot(self) -> Snapshot:
        """The figures of the whole server. Never waits."""
        return self.own()

    def workers(self) -> list[WorkerFigures]:
        """The figures of each worker."""
        figures = self.own()
        draining = self._draining_since
        return [
            WorkerFigures(
                worker=0,
                pid=os.getpid(),
                age=0.0,
                ready=not self.watched.draining,
                messages_per_second=self._messages_per_second,
                draining_seconds=None if draining is None else time.monotonic() - draining,
                figures=figures,
                messages=figures.messages,
                cpu_seconds=figures.process.cpu_seconds,
            )
        ]

    def readiness(self) -> tuple[bool, str]:
        """Whether new clients are welcome, and a word about it; may wait for other workers."""
        return (False, "draining") if self.watched.draining else (True, "ready")

    def clients(self, after: int, limit: int) -> dict[str, Any]:
        """A page of clients as for :meth:`chat_gevent.command.snapshot.Watched.clients`."""
        return self.watched.clients(after, limit)

    def top(self) -> Top:
        """The busiest and the slowest clients."""
        return self._rates.top()
