"""What is done with a server's clients, whichever listener they came from: the server as a service sees it.

:class:`Serving` is the part of :class:`~chat_gevent.server.ChatServer` that services use: groups, broadcasts,
ticks, figures, and :meth:`Serving.run`, which serves until a signal ends it.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import gevent
from gevent.event import Event
from gevent.server import StreamServer

from chat_gevent.broadcast import Group
from chat_gevent.core import Core
from chat_gevent.service import Client, Reply
from chat_gevent.state import OPENING
from chat_gevent.system import own_main_thread

EXIT_CUT_OFF: Final = 3
"""Exit status of a server that had to cut off clients with replies still due."""

log = logging.getLogger("chat_gevent")


@dataclass(frozen=True, slots=True)
class Stats:
    """Figures of a server since its start; bytes where a name says so."""

    connections: int
    accepted: int
    messages: int
    received_bytes: int
    sent_bytes: int
    pushes: int
    pushes_dropped: int
    queued_bytes: int
    closed: dict[str, int]
    refused: dict[str, int]


class Serving(StreamServer):
    """The server as its service sees it."""

    core: Core
    _stop_event: Event

    def group(self, name: str) -> Group:
        """The group of that name: always the same object."""
        return self.core.group(name)

    @property
    def clients(self) -> list[Client[Any]]:
        """All clients that are connected now."""
        return [
            each.known_client()
            for each in self.core.engine.all()
            if each.state is not OPENING and not each.is_leaving
        ]

    def broadcast(
        self,
        message: Reply,
        to: Group | Iterable[Client[Any]] | None = None,
        but: Client[Any] | None = None,
    ) -> int:
        """Send a message to many clients; returns how many of this process these are. Never blocks.

        With a backplane all clients, and those of a group, are those of all processes.

        :param to: all clients, those of a group, or those given, which are of this process.
        :param but: a client to leave out, such as the one that spoke.

        Raises TypeError, UnicodeEncodeError: ``message`` is none.
        """
        return self.core.broadcast(message, to, but)

    def stats(self) -> Stats:
        """Figures of now. It walks all connections."""
        core, registry = self.core, self.core.registry
        messages, received, sent = registry.totals(core.engine.all())
        return Stats(
            connections=registry.live,
            accepted=registry.accepted,
            messages=messages,
            received_bytes=received,
            sent_bytes=sent,
            pushes=registry.pushes,
            pushes_dropped=registry.dropped,
            queued_bytes=core.queued,
            closed=dict(registry.closed),
            refused=dict(registry.refused),
        )

    def every(self, seconds: float, function: Callable[[], object]) -> gevent.Greenlet[..., Any]:
        """Call ``function`` every so many seconds until the server stops, in a greenlet that is returned.

        A call that takes longer than that delays the next one, and none is made up for. What it raises is
        logged.
        """
        if not seconds > 0:
            raise ValueError("every: seconds must be above 0")
        return self.core.keep(gevent.spawn(self._repeat, seconds, function))

    def _repeat(self, seconds: float, function: Callable[[], object]) -> None:
        monotonic = self.core.system.monotonic
        due = monotonic() + seconds
        while True:
            self.core.system.sleep(max(0.0, due - monotonic()))
            try:
                function()
            except (Exception, gevent.Timeout):
                log.exception("%r, called every %g s, failed", function, seconds)
            due = max(due + seconds, monotonic())

    def begin_serving(self) -> None:
        """Tell the service that the server is about to serve."""
        if self.core.backplane is not None:
            self.core.backplane.start()
        self.core.service.started(self)

    def end_serving(self) -> None:
        """End what :meth:`every` has begun."""
        self.core.end_kept()

    def run(
        self,
        signals: Iterable[signal.Signals] = (signal.SIGINT, signal.SIGTERM),
        drain: float | None = None,
    ) -> int:
        """Serve until one of ``signals`` comes; returns the exit status: 0, or 3 where clients were cut off.

        The first signal drains, within ``drain`` seconds (``settings.drain_timeout`` unless given). The
        second ends it at once. Raises OSError as :meth:`start` does.
        """
        asked = 0

        def ask() -> None:
            nonlocal asked
            asked += 1
            if asked == 1:
                self.stop(drain)
            else:
                self.core.hurry()

        watchers = [gevent.signal_handler(number, ask) for number in signals]
        try:
            if not self.started:
                self.start()
            self._stop_event.wait()
            cut_off: int = self.stop(drain)  # type: ignore[func-returns-value, assignment]  # which ChatServer makes a count
            return EXIT_CUT_OFF if cut_off else 0
        finally:
            for watcher in watchers:
                watcher.cancel()
            own_main_thread()
