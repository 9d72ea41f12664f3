"""The master of ``serve --workers``: gunicorn's arbiter, with listeners, generations and limits of ours.

The master serves nobody and never starts an event loop. It opens the listeners, forks the workers, replaces
those that die, and passes on what it is told by signals:

===============  =================================================================================
TERM, INT, QUIT  all workers drain; the second of these ends them at once
HUP              a new generation of workers takes the place of the old one, whose clients are told to leave
TTIN, TTOU       one worker more, one less
USR1, USR2       a log line
===============  =================================================================================

Each position of a worker has TCP sockets of its own (:mod:`chat_gevent.command.positions`). A generation
begins with one worker: if that can't start, the old ones stay. Each old one is told to go when its successor
serves, which takes over the same sockets, so that nobody is refused or reset.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from collections.abc import Callable
from typing import Any, Final

from gunicorn.arbiter import Arbiter

from chat_gevent.command import logs, signals, systemd
from chat_gevent.command.arbiter import ServeApplication, ServeWorker
from chat_gevent.command.board import Board, Order, State
from chat_gevent.command.config import ServeSettings
from chat_gevent.command.handler import StartError
from chat_gevent.command.listening import close_listeners
from chat_gevent.command.positions import PATIENCE, Position, shareable
from chat_gevent.command.process import EXIT_CUT_OFF, EXIT_NOT_SERVING, say_ready
from chat_gevent.command.reloading import Reload
from chat_gevent.command.shared import SharedFigures
from chat_gevent.command.shared_places import SharedPlaces
from chat_gevent.command.shares import most_of_all
from chat_gevent.command.stopping import Stop
from chat_gevent.errors import ListenError
from chat_gevent.files import open_files
from chat_gevent.listeners import Listener
from chat_gevent.tls import Certificates

SPARE_SLOTS: Final = 8
"""Workers that there may be beyond two generations, for those that drain longer."""

log = logging.getLogger("chat_gevent")


class ChatArbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """Runs ``workers`` workers.

    :param listeners: of the server, TCP ones reserved; to be closed by :meth:`close`.
    :param load: reads the settings again. Raises ConfigError.

    Raises StartError.
    """

    WORKER_BOOT_ERROR = APP_LOAD_ERROR = -1  # no exit status of a worker ends the server: its state does

    def __init__(
        self,
        settings: ServeSettings,
        workers: int,
        listeners: list[Listener],
        admin_listener: Listener | None,
        repeats: logs.RepeatFilter,
        load: Callable[[], ServeSettings],
        certificates: Certificates | None = None,
    ) -> None:
        self.settings = settings
        self.certificates = certificates
        self.listeners = listeners
        self.admin_listener = admin_listener
        self.ready = False
        self.status = 0
        self._repeats = repeats
        most = 2 * max(workers, os.cpu_count() or 1)
        self.most_workers = most
        slots = 2 * most + SPARE_SLOTS
        files = open_files()  # those that are there by now are there in workers too
        try:
            self.board = Board(slots)
            self.figures = SharedFigures(slots, asks=admin_listener is not None)
        except OSError as error:
            shared = "the memory" if admin_listener is None else f"the memory and the {2 * slots} files"
            problem = f"can't make {shared} that {workers} workers share"
            raise StartError(f"{problem}: {error.strerror or error}") from None
        self._files = files + self.figures.mailboxes.kept
        self.connections = self.most_clients(settings, workers)
        self.places: SharedPlaces | None = None
        self.places = self.make_places(settings, self.connections)
        self._pid = os.getpid()
        self._shared = shareable(listeners)
        self.positions: list[Position] = []
        self._closing: list[tuple[Position, list[ServeWorker]]] = []
        self._messages = 0
        self.stopping = Stop(self)
        self.reload = Reload(self, load)
        super().__init__(ServeApplication(settings, workers))
        self.set_workers(workers)

    # -- gunicorn calls these ----------------------------------------------------------------------

    def start(self) -> None:
        """Hear signals."""
        self.pid = os.getpid()
        self._stats["start_time"] = time.time()
        self._watchdog = systemd.Watchdog()
        self._hang_up = signals.on_hang_up(self.stopping.ask, self.reload.begin)
        self.init_signals()
        gc.collect()
        gc.freeze()  # the workers share what is there: no collection is to write to it

    def handle_term(self) -> None:
        """Drain, and the second time end at once."""
        self.stopping.ask()

    handle_int = handle_quit = handle_term

    def handle_hup(self) -> None:
        """Replace the workers, or stop where the terminal is gone."""
        self._hang_up()

    def handle_usr1(self) -> None:
        """Say that there is nothing to do."""
        log.info(signals.NO_LOG_FILE)

    def handle_usr2(self) -> None:
        """Say that there is nothing to do."""
        log.info(signals.NO_UPGRADE)

    def handle_ttin(self) -> None:
        """One worker more."""
        if len(self.positions) >= self.most_workers:
            log.warning("SIGTTIN: %d workers are the most that this server can have", self.most_workers)
            return
        self.set_workers(len(self.positions) + 1)
        log.info("SIGTTIN: %d workers", len(self.positions))

    def handle_ttou(self) -> None:
        """One worker less."""
        if len(self.positions) <= 1:
            log.warning("SIGTTOU: one worker is left, and stays")
            return
        self.set_workers(len(self.positions) - 1)
        log.info("SIGTTOU: %d workers", len(self.positions))

    def handle_winch(self) -> None:
        """Nothing: the size of a terminal has changed."""

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        """Wait for signals, or until something is due."""
        now = time.monotonic()
        due = [each.due for each in self.positions if each.worker is None]
        if self.stopping.at is not None and not self.stopping.begun:
            due.append(self.stopping.at)
        found: list[int] = super().wait_for_signals(max(0.01, min([timeout, *(each - now for each in due)])))
        return found

    def manage_workers(self) -> None:
        """Bring the workers to what they should be. Raises StopIteration: the server is to stop."""
        self._watchdog.feed(1.0)
        self._repeats.flush()
        if self.status or self.stopping.is_due:
            raise StopIteration
        self._close_positions()
        for position in list(self.positions):
            if position.worker is not None and self.state(position.worker) in (State.LEAVING, State.ENDED):
                position.worker = None  # somebody has told it to go
            if position.worker is None and position.successor is None:
                self._fill(position)
            if not self.ready and self.state(self.positions[0].worker) is not State.SERVING:
                return  # if the first can't start, the others need not try
        self.reload.advance()
        if not self.ready and all(self.state(each.worker) is State.SERVING for each in self.positions):
            self._announce()

    def _fill(self, position: Position) -> None:
        if time.monotonic() < position.due:
            return
        try:
            position.open(self.settings)
        except ListenError as error:
            log.error("a worker has to wait: %s", error)
            position.due = time.monotonic() + PATIENCE
            return
        position.worker = self.fork(position)

    def fork(self, position: Position) -> ServeWorker | None:
        """Start a worker for a position; None where too many are about to leave still."""
        if len(self.WORKERS) >= self.board.slots:
            return None
        self._forking = position
        pid = self.spawn_worker()
        worker: ServeWorker = self.WORKERS[pid]
        return worker

    def prepare(self, worker: ServeWorker) -> None:
        """Give a worker that is about to be forked what it needs."""
        worker.settings = self.settings
        worker.index = self._forking.index
        worker.generation = self.reload.generation
        worker.listeners = self._forking.listeners()

    def take_listeners(self, worker: ServeWorker) -> tuple[list[Listener], Listener | None]:
        """What a worker serves; it closes all others, whose queues would wait for it. In the worker."""
        own = [each.socket for each in worker.listeners]
        for position in [*self.positions, *(each for each, _ in self._closing)]:
            for each in position.listeners():
                if each.socket not in own:
                    each.socket.close()
        for each in self.listeners:
            if each.socket not in own:
                each.socket.close()
        return worker.listeners, self.admin_listener

    def state(self, worker: ServeWorker | None) -> State:
        """How far a worker is."""
        return State.ENDED if worker is None else State(self.board.get(worker.slot, "state"))

    def ended(self, worker: ServeWorker) -> None:
        """Take a worker that is dead off the books."""
        state = self.state(worker)
        self._messages += self.board.get(worker.slot, "messages")
        self.stopping.ended(worker, self.board.get(worker.slot, "cut_off"))
        if self.places is not None:
            self.places.release(worker.slot)
        if state is State.FAILED and not self.ready:
            self.status = self.board.get(worker.slot, "status")
        if state is State.LOST and not self.stopping.begun:
            log.error("no listener is left: the server stops")
            self.status = EXIT_NOT_SERVING
        for position in self.positions:
            if position.successor is worker:
                position.successor = None
                self.reload.failed(worker, position.died(worker.started))
            elif position.worker is worker:
                position.worker, position.successor = position.successor, None
                self._say_again(position, worker)

    def _say_again(self, position: Position, worker: ServeWorker) -> None:
        delay = position.died(worker.started)
        if self.stopping.begun or self.status:
            return
        log.info("worker %d is dead; another one starts in %g s", worker.slot, delay)
        if delay > PATIENCE:
            position.close()  # so that the kernel gives its share of the clients to the others

    # -- more or fewer workers ---------------------------------------------------------------------

    def set_workers(self, workers: int) -> None:
        """Have so many positions; workers of those beyond are told to close their sockets."""
        while len(self.positions) < workers:
            self.positions.append(Position(len(self.positions), self._shared))
        while len(self.positions) > workers:
            position = self.positions.pop()
            leaving = [each for each in (position.worker, position.successor) if each is not None]
            for each in leaving:
                self.order(each, Order.CLOSE)
            self._closing.append((position, leaving))
        self.board.workers = self.num_workers = workers

    def order(self, worker: ServeWorker, order: Order) -> None:
        """Tell a worker to go."""
        if self.board.get(worker.slot, "order") < order:
            self.board.set(worker.slot, "order", order)
        if worker.pid in self.WORKERS:
            self.kill_worker(worker.pid, signal.SIGTERM)

    def _close_positions(self) -> None:
        """Close the sockets of positions that are no more, once their workers have accepted who waited."""
        for position, workers in list(self._closing):
            if all(each.pid not in self.WORKERS or self.state(each) >= State.LEAVING for each in workers):
                position.close()
                self._closing.remove((position, workers))

    def make_places(self, settings: ServeSettings, connections: int) -> SharedPlaces | None:
        """Memory for clients per address, if there is a limit: what is there already, or else new.

        Old workers count in what is there, so no new one takes its place. Raises StartError: there is none,
        or too little for so many clients.
        """
        most, places = settings.max_connections_per_address, self.places
        if most and places is not None and connections > places.most_clients:
            problem = f"{connections} clients are too many for the memory of max_connections_per_address"
            raise StartError(f"{problem}: at most {places.most_clients} without a restart")
        if not most or places is not None:
            return places
        try:
            return SharedPlaces(most, self.board.slots, connections)
        except OSError as error:
            raise StartError(f"max_connections_per_address: {error.strerror or error}") from None

    def most_clients(self, settings: ServeSettings, workers: int) -> int:
        """Most clients of so many workers. Raises StartError: not even one for each."""
        return most_of_all(settings, workers, self._files)

    # -- the beginning and the end -----------------------------------------------------------------

    def _announce(self) -> None:
        self.ready = True
        urls = " ".join(each.url for each in self.listeners)
        if self.admin_listener is not None:
            log.info("admin pages at %s", self.admin_listener.http_url)
        workers, settings = len(self.positions), self.settings
        log.info("serving %s to at most %d clients", urls, self.connections)
        log.info(
            "each of %d workers takes %d of these clients, %d bytes of unfinished messages and %d of pushes",
            *(workers, self.connections // workers),
            *(settings.input_total_bytes // workers, settings.outbox_total_bytes // workers),
        )
        say_ready(urls)
        systemd.notify("READY=1", f"STATUS=serving {urls} with {workers} workers")

    def clients(self) -> int:
        """How many clients all workers have, as they last told."""
        return sum(self.board.get(each.slot, "clients") for each in self.WORKERS.values())

    def halt(self, reason: Any = None, exit_status: int = 0) -> None:
        """Have all workers end. Raises SystemExit."""
        self.stop()
        cut_off = self.stopping.cut_off
        if self.ready:
            log.info("stopped: %d messages answered, %d clients cut off", self._messages, cut_off)
        raise SystemExit(self.status or (EXIT_CUT_OFF if cut_off else 0))

    def stop(self, graceful: bool = True) -> None:
        """Have all clients leave, and wait for the workers to end."""
        self.stopping.run()

    def order_all(self, order: Order) -> None:
        """Tell all workers to go."""
        for worker in list(self.WORKERS.values()):
            self.order(worker, order)

    def close(self) -> None:
        """Close all listeners, in the master only."""
        if os.getpid() == self._pid:
            for each in [*self.positions, *(position for position, _ in self._closing)]:
                each.close()
            close_listeners(self.listeners)
