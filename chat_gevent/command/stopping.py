"""The end of several workers: the master is asked to stop, waits a delay, and has the workers end."""

from __future__ import annotations

import logging
import signal
import time
from typing import Any, Final

from chat_gevent.command import signals, systemd
from chat_gevent.command.arbiter import HOOKS_SECONDS, ServeWorker
from chat_gevent.command.board import Order, State

LAST_SECONDS: Final = 7.0
"""How long a worker that was told to end at once may take."""

log = logging.getLogger("chat_gevent")


class Stop:
    """Ends the workers of ``master``, a :class:`~chat_gevent.command.master.ChatArbiter`."""

    def __init__(self, master: Any) -> None:
        self._master = master
        self.at: float | None = None
        """When the drain is to begin, if that has been asked for."""
        self.begun = False
        self.cut_off = 0

    @property
    def is_due(self) -> bool:
        """Whether the drain is to begin now."""
        return self.at is not None and time.monotonic() >= self.at

    def ask(self) -> None:
        """A signal asks for it. The second one within ``drain_delay`` ends the delay."""
        master = self._master
        if self.at is not None:
            log.warning("second signal: the drain begins now")
            self.at = 0.0
            return
        delay = master.settings.drain_delay if master.ready else 0.0
        self.at = time.monotonic() + delay
        master.board.draining = True
        systemd.notify("STOPPING=1", f"STATUS=draining {master.clients()} clients")
        if delay:
            log.info("draining in %g s; until then clients are admitted", delay)

    def run(self) -> None:
        """Have all clients leave, and wait for the workers to end; some may have to be killed."""
        master = self._master
        self.begun = master.board.draining = True
        if master.ready:
            log.info("draining %d clients for at most %g s", master.clients(), master.settings.drain_timeout)
        for each in master.listeners:
            each.remove_file()
        master.order_all(Order.STOP if master.ready else Order.HURRY)
        limit = time.monotonic() + master.settings.drain_timeout + HOOKS_SECONDS
        hurried = False
        while master.WORKERS and time.monotonic() < limit:
            for number in master.wait_for_signals(0.5):
                if number in signals.STOP and not hurried:
                    log.warning("second signal: the drain ends now")
                    hurried = True
                    master.order_all(Order.HURRY)
                    limit = min(limit, time.monotonic() + LAST_SECONDS)
            master.reap_workers()
            if all(master.state(each) >= State.LEAVING for each in master.WORKERS.values()):
                master.close()
        master.kill_workers(signal.SIGKILL)
        while master.WORKERS:
            master.reap_workers()
            time.sleep(0.01)

    def ended(self, worker: ServeWorker, cut_off: int) -> None:
        """Count the clients that a worker cut off which has ended, or that it had when it was killed."""
        state = self._master.state(worker)
        if self.begun:
            killed = state not in (State.ENDED, State.LOST, State.STARTING, State.FAILED)
            self.cut_off += cut_off + (self._master.board.get(worker.slot, "clients") if killed else 0)
        elif cut_off:
            log.warning("%d clients of worker %d were cut off", cut_off, worker.slot)
