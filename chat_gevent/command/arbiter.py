"""gunicorn's parts for ``serve --workers``: its application, its worker and its log.

gunicorn forks the workers, hears signals, and ends a worker whose event loop is stuck. What is done about
listeners, generations and limits is in :mod:`chat_gevent.command.master`. The two functions at the end are
where the figures of all workers are told that a worker comes and goes.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

import gevent
from gevent import monkey
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker

from chat_gevent.command import logs
from chat_gevent.command.board import Board, State
from chat_gevent.command.handler import StartError
from chat_gevent.command.patching import patch_late
from chat_gevent.command.process import EXIT_NOT_SERVING
from chat_gevent.command.shares import count_workers
from chat_gevent.command.standard import complain, printable
from chat_gevent.command.worker_process import WorkerProcess
from chat_gevent.errors import ChatError
from chat_gevent.listeners import Listener
from chat_gevent.system import own_main_thread
from chat_gevent.tls import Certificates

if TYPE_CHECKING:
    from chat_gevent.command.config import ServeSettings
    from chat_gevent.command.shared import SharedFigures
    from chat_gevent.command.shared_places import SharedPlaces

SILENT_SECONDS: Final = 30
"""How long the event loop of a worker may be stuck before the worker is ended."""

HOOKS_SECONDS: Final = 10.0
"""What the master waits for workers beyond the time to drain: handshakes and last hooks take some of it."""

IGNORED: Final = (
    *(signal.SIGINT, signal.SIGQUIT, signal.SIGHUP),  # a terminal sends them to the master as well
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGTTIN, signal.SIGTTOU),
)
"""What a worker does nothing about; only the master does."""

log = logging.getLogger("chat_gevent")


class ArbiterLog(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Has gunicorn's warnings and errors logged as all else is; what it tells beside is said in our words."""

    def setup(self, cfg: Any) -> None:
        """Set up no handlers: there is a log already."""
        self.cfg = cfg
        self.error_log = log

    def info(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log at the level ``debug``."""
        log.debug("gunicorn: " + msg, *args)

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Leave it out."""

    def close_on_exec(self) -> None:
        """Do nothing: there are no files."""

    def reopen_files(self) -> None:
        """Do nothing: there are no files."""


class ServeApplication(BaseApplication):  # type: ignore[misc]
    """Tells gunicorn what to run."""

    def __init__(self, settings: ServeSettings, workers: int) -> None:
        self._settings = settings
        self._workers = workers
        super().__init__()

    def load_config(self) -> None:
        """Give gunicorn its options."""
        settings = self._settings
        options = {
            "workers": self._workers,
            "worker_class": ServeWorker,
            "logger_class": ArbiterLog,
            "timeout": SILENT_SECONDS,
            "graceful_timeout": math.ceil(settings.drain_timeout + HOOKS_SECONDS),
            "control_socket_disable": True,
            "proc_name": "chat-gevent",
            "pre_fork": _pre_fork,
            "child_exit": _child_exit,
        }
        if os.access("/dev/shm", os.W_OK):  # a heartbeat must not wait for a disk
            options["worker_tmp_dir"] = "/dev/shm"
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> None:
        """There is no application in gunicorn's sense: the worker loads the handler."""


class Master(Protocol):
    """What a worker needs of the master, whose memory it was forked with."""

    board: Board
    figures: SharedFigures
    places: SharedPlaces | None
    connections: int
    certificates: Certificates | None
    ready: bool

    def prepare(self, worker: ServeWorker) -> None:
        """Give a worker that is about to be forked what it needs."""

    def take_listeners(self, worker: ServeWorker) -> tuple[list[Listener], Listener | None]:
        """Its listeners and that of the admin pages; all others are closed."""

    def ended(self, worker: ServeWorker) -> None:
        """A worker has ended."""


class ServeWorker(Worker):  # type: ignore[misc]
    """One worker; the master sets the attributes before it forks."""

    arbiter: Master
    settings: ServeSettings
    index: int
    slot: int
    generation: int
    started: float
    listeners: list[Listener]

    def init_process(self) -> None:
        """Become a process of its own, and serve. Raises SystemExit."""
        gevent.reinit()
        settings = self.settings
        if count_workers(settings) > len(os.sched_getaffinity(0)):
            # Workers that share a core are not to break into each other's turns: two on one core cost 1.13 of
            # one worker's CPU a message at 85,000 a second, and 1.08 so.
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        repeats = logs.start(settings.log_level, settings.log_format, worker=self.slot)
        if settings.monkey and not monkey.is_module_patched("socket"):
            patch_late()
        self._repeats = repeats
        try:
            super().init_process()
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)  # until it ends, whatever handlers are set
            own_main_thread()

    def init_signals(self) -> None:
        """Leave to the master what a terminal sends to both."""
        super().init_signals()
        for number in IGNORED:
            signal.signal(number, _ignore)  # not SIG_IGN, which programs that a handler runs would inherit

    def handle_exit(self, sig: int, frame: object) -> None:
        """SIGTERM before it serves: there are no clients yet. Raises SystemExit."""
        sys.exit(0)

    def run(self) -> None:
        """Serve until it is told to stop. Raises SystemExit."""
        board, arbiter = self.arbiter.board, self.arbiter
        listeners, admin = arbiter.take_listeners(self)
        try:
            process = WorkerProcess(
                *(self.settings, self._repeats, listeners, admin),
                board=board,
                figures=arbiter.figures,
                index=self.index,
                slot=self.slot,
                connections=arbiter.connections,
                beat=self.notify,
                certificates=arbiter.certificates,
            )
            if arbiter.places is not None and process.core.registry.places is not None:
                arbiter.places.most = self.settings.max_connections_per_address
                arbiter.places.open(self.slot)
                process.core.registry.places = arbiter.places
            with process:
                process.run()
        except StartError as error:
            self._fail(str(error), error.status)
        except ChatError as error:
            self._fail(str(error), EXIT_NOT_SERVING)
        except Exception:
            log.exception("this worker failed")
            self._fail("", EXIT_NOT_SERVING)

    def _fail(self, why: str, status: int) -> None:
        board = self.arbiter.board
        if board.get(self.slot, "state") == State.STARTING:
            board.set(self.slot, "status", status)
            board.set(self.slot, "state", State.FAILED)
        if why and not self.arbiter.ready:  # as a single process says it, which has not begun to log
            complain(f"chat-gevent serve: error: {printable(why)}", 0)
        elif why:
            log.error("this worker can't start: %s", why)


def _ignore(*_: Any) -> None:
    pass


def _pre_fork(arbiter: Master, worker: ServeWorker) -> None:
    worker.arbiter = arbiter
    worker.started = time.monotonic()
    worker.slot = arbiter.figures.claim()
    arbiter.prepare(worker)
    arbiter.board.clear(worker.slot)


def _child_exit(arbiter: Master, worker: ServeWorker) -> None:
    arbiter.ended(worker)
    arbiter.figures.release(worker.slot)
