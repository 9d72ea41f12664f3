"""SIGHUP in the master of several workers: a new generation with settings that are read again.

One worker of the new generation starts first. Only if it serves do the others start; if it fails, all old
ones stay, with the settings they have. Each position's old worker is told to go when the new one serves.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from chat_gevent.command import systemd
from chat_gevent.command.board import Order, State
from chat_gevent.command.config import ConfigError
from chat_gevent.command.handler import StartError
from chat_gevent.command.listening import read_certificates
from chat_gevent.command.positions import PATIENCE
from chat_gevent.command.shares import count_workers
from chat_gevent.errors import CertificateError
from chat_gevent.tls import Certificates

if TYPE_CHECKING:
    from chat_gevent.command.arbiter import ServeWorker
    from chat_gevent.command.config import ServeSettings
    from chat_gevent.command.positions import Position

FIXED: Final = (
    *("host", "port", "listen", "ipv6_only", "unix_mode", "backlog", "admin", "monkey"),
    *("log_level", "log_format"),
)
"""Settings that need a restart: the master holds what they are about."""

log = logging.getLogger("chat_gevent")


class Reload:
    """Replaces the workers of ``master``, a :class:`~chat_gevent.command.master.ChatArbiter`.

    :param load: reads the settings again. Raises ConfigError.
    """

    def __init__(self, master: Any, load: Callable[[], ServeSettings]) -> None:
        self.generation = 0
        self._master = master
        self._load = load
        self._waits = False
        self._workers = 0  # how many there are to be, where the settings say something new about it
        # What to go back to: settings, clients, certificates.
        self._before: tuple[ServeSettings, int, Certificates | None] | None = None

    def begin(self) -> None:
        """Read the settings, and begin to replace the workers."""
        master = self._master
        if not master.ready or master.board.draining:
            return
        systemd.notify("RELOADING=1", systemd.monotonic_usec())
        old = master.settings
        try:
            new = self._load()
            kept = {name: getattr(old, name) for name in FIXED}
            changed = [name for name in FIXED if getattr(new, name) != kept[name]]
            if bool(new.tls_certificate) != bool(old.tls_certificate):
                changed.append("tls_certificate")
                kept |= {name: getattr(old, name) for name in ("tls_certificate", "tls_key", "tls_client_ca")}
            new = dataclasses.replace(new, **kept)
            certificates = read_certificates(new)
            workers = len(master.positions) if new.workers == old.workers else count_workers(new)
            if workers > master.most_workers:
                raise StartError(f"workers = {workers}: at most {master.most_workers} without a restart")
            connections = master.most_clients(new, workers)
            if master.places is not None and not new.max_connections:  # the machine may carry more by now
                connections = min(connections, master.places.most_clients)
            places = master.make_places(new, connections)
        except (ConfigError, StartError, CertificateError) as error:
            log.error("SIGHUP: the workers stay as they are: %s", error)
            systemd.notify("READY=1")
            return
        if changed:
            log.warning("SIGHUP: these settings change with a restart only: %s", ", ".join(changed))
        if self._before is None:
            self._before = old, master.connections, master.certificates
        master.settings, master.connections, master.certificates = new, connections, certificates
        master.places = places
        if new.workers != old.workers:
            self._workers = workers
        self.generation += 1
        self._waits = False

    def advance(self) -> None:
        """Do what can be done now."""
        if self._before is None:
            return
        master = self._master
        for position in master.positions:
            self._replace(position)
            if not self._serves(master.positions[0]):
                return  # if the first can't start, the others need not try
        if self._workers:
            master.set_workers(self._workers)
            self._workers = 0
            return
        if all(self._serves(each) for each in master.positions):
            self._before = None
            if master.settings.tls_certificate:
                file = master.settings.tls_certificate
                log.info("SIGHUP: new connections get the certificate that was read from %s", file)
            log.info("SIGHUP: %d workers are replaced", len(master.positions))
            systemd.notify("READY=1")

    def _serves(self, position: Position) -> bool:
        worker = position.worker
        return (
            worker is not None
            and worker.generation == self.generation
            and self._master.state(worker) is State.SERVING
        )

    def _replace(self, position: Position) -> None:
        master = self._master
        successor, old = position.successor, position.worker
        if successor is not None:
            if master.state(successor) is State.SERVING:
                position.worker, position.successor = successor, None
                if old is not None:
                    master.order(old, Order.RETIRE)
        elif old is not None and old.generation != self.generation and time.monotonic() >= position.due:
            if len(master.WORKERS) + len(master.positions) <= master.board.slots:
                position.successor = master.fork(position)
            elif not self._waits:
                self._waits = True
                log.warning("SIGHUP: waits until old workers have ended: %d are left", len(master.WORKERS))

    def failed(self, worker: ServeWorker, delay: float) -> None:
        """A successor has ended before it served. If it could not start, the old workers stay.

        :param delay: until another one would start; it is long where several have ended.
        """
        if self._before is None or (self._master.state(worker) is not State.FAILED and delay <= PATIENCE):
            return
        master = self._master
        log.error("SIGHUP: the workers stay as they are, because a new one can't start")
        master.settings, master.connections, master.certificates = self._before
        self._before, self._workers = None, 0
        for position in master.positions:
            if position.successor is not None:
                master.order(position.successor, Order.HURRY)
                position.successor = None
            if position.worker is not None:
                position.worker.generation = self.generation
        systemd.notify("READY=1")
