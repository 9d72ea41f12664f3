"""One of several worker processes: what differs from a process that serves alone.

Its listeners are the master's, who also tells when all serve and when to stop, and keeps the service manager
informed. What master and worker tell each other is on the :class:`~chat_gevent.command.board.Board`.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Callable
from time import monotonic

import gevent
from gevent.event import Event

from chat_gevent.command import logs
from chat_gevent.command.backplane import needs_backplane
from chat_gevent.command.board import Board, Order, State
from chat_gevent.command.config import ServeSettings
from chat_gevent.command.overview import SHARE, Overview
from chat_gevent.command.process import ServerProcess
from chat_gevent.command.shared import SharedFigures
from chat_gevent.command.shares import settings_of_worker, share
from chat_gevent.command.together import Together
from chat_gevent.confirm import ErrorCode
from chat_gevent.listeners import Listener
from chat_gevent.tls import Certificates

log = logging.getLogger("chat_gevent")


class WorkerProcess(ServerProcess):
    """Serves as one of ``board.workers``.

    :param index: which share of the limits it has, from 0 on.
    :param slot: where its numbers are on the board, and its figures among those of all.
    :param connections: most clients of all workers.
    :param beat: called twice a second, and also while it drains.
    :param certificates: the master's. OpenSSL makes the key of session tickets with them, so that a client
        may resume its session with any worker.

    Other parameters, and what it raises, as of :class:`~chat_gevent.command.process.ServerProcess`.
    """

    def __init__(
        self,
        settings: ServeSettings,
        repeats: logs.RepeatFilter,
        listeners: list[Listener],
        admin_listener: Listener | None,
        *,
        board: Board,
        figures: SharedFigures,
        index: int,
        slot: int,
        connections: int,
        beat: Callable[[], object],
        certificates: Certificates | None = None,
    ) -> None:
        self._board = board
        self._figures = figures
        self._index = index
        self._slot = slot
        self._connections = connections
        self._beat_outside = beat
        self._master = os.getppid()
        self._hastened = Event()
        self._count_due = 0.0  # when messages may be added up again
        own = settings_of_worker(settings, index, board.workers)
        super().__init__(own, repeats, listeners, admin_listener, certificates)
        for listener, server in zip(self.listeners, self.servers, strict=True):
            if listener.inherited:
                server.max_accept = 1  # all workers wake for a client: let the one that is free take it
        problem = needs_backplane(settings, board.workers, self.core.service)
        if problem and index == 0:
            log.warning(problem)

    def overview(self) -> Overview:
        """What its admin pages show: all workers."""
        return Together(self, self.core, self._figures, self._slot)

    def _most_connections(self) -> int:
        return share(self._connections, self._index, self._board.workers)

    @property
    def draining(self) -> bool:
        """Whether this worker or the whole server should get no more clients."""
        return super().draining or self._board.draining

    # -- to run ------------------------------------------------------------------------------------

    def _watch_signals(self) -> None:
        gevent.signal_handler(signal.SIGTERM, self._obey)

    def _announce(self) -> None:
        gc.freeze()  # without collecting first, which would write to every page that the master shares
        self._tell(State.SERVING)
        if self._order is not Order.NONE:  # told before it could hear
            self._obey()

    def _beat(self) -> None:
        self._beat_outside()
        self._board.set(self._slot, "clients", self.core.registry.live)
        self._tell_messages()
        if not self._leaving:
            for server in self.servers:  # there may be more workers by now, or fewer
                server.max_connections = self._most_connections()
            if os.getppid() != self._master:
                log.error("the master is gone: this worker stops")
                self._stop()

    def _tell_messages(self) -> None:
        """Write how many messages were answered so far, for the master to know even if this worker is killed.

        That is done with each beat, and less often only where it takes long because of many clients.
        """
        began = monotonic()
        if began < self._count_due:
            return
        messages, _, _ = self.core.registry.totals(self.core.engine.all())
        self._board.set(self._slot, "messages", messages)
        ended = monotonic()
        self._count_due = ended + (ended - began) / SHARE

    @property
    def _order(self) -> Order:
        if os.getppid() != self._master:
            return Order.STOP
        return Order(self._board.get(self._slot, "order"))

    def _obey(self) -> None:
        """SIGTERM; it may come again for the same order."""
        if not self._leaving:
            self._stop()
        elif self._order is Order.HURRY:
            self._hastened.set()
            self.core.hurry()
        elif self._order is not Order.RETIRE:
            self._hastened.set()

    def _tell(self, state: State) -> None:
        """Write on the board, and have the master look."""
        self._board.set(self._slot, "state", state)
        if os.getppid() == self._master:
            os.kill(self._master, signal.SIGCHLD)

    # -- to end ------------------------------------------------------------------------------------

    def _drain(self) -> int:
        self._stopping = self._leaving = True
        settings = self.settings
        if self._order is Order.HURRY:
            self.core.hurry()
        log.debug("draining %d clients for at most %g s", self.core.registry.live, settings.drain_timeout)
        return self._end(settings.drain_timeout)

    def _before_drain(self) -> None:
        """Where another worker serves instead, tell the clients one after the other over a longer time."""
        seconds = self.settings.reload_interval
        if self._order > Order.RETIRE or not seconds:
            return
        began = monotonic()
        leaving = self.core.engine.all()
        self.core.draining.set()
        for done, connection in enumerate(leaving, 1):
            connection.ask_to_leave(ErrorCode.SHUTTING_DOWN)
            ahead = began + done * seconds / len(leaving) - monotonic()
            if self._hastened.wait(max(0.0, ahead)) or not self.core.registry.live:
                return

    def _stop_listening(self) -> None:
        order = self._order
        if order <= Order.CLOSE and self.admin is not None:
            self.admin.leave()  # the pages of a worker that goes would say that the server drains
        for listener, server in zip(self.listeners, self.servers, strict=True):
            if order <= Order.RETIRE or (order is Order.CLOSE and listener.inherited):
                server.close()  # who waits there is another worker's
        super()._stop_listening()
        self._tell(State.LOST if len(self._lost) == len(self._urls) else State.LEAVING)

    def _tell_end(self, messages: int, cut_off: int) -> None:
        self._board.set(self._slot, "messages", messages)
        self._board.set(self._slot, "cut_off", cut_off)
        self._board.set(self._slot, "clients", 0)
        lost = self._board.get(self._slot, "state") == State.LOST
        self._board.set(self._slot, "state", State.LOST if lost else State.ENDED)
        log.debug("this worker stopped: %d messages answered, %d clients cut off", messages, cut_off)
