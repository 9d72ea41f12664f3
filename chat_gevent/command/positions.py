"""The positions of workers: each has listening sockets, and a worker that serves them, or waits for one.

The master holds the sockets, so those who have connected wait while a dead worker is replaced, and nobody is
reset. A worker that dies at once again and again is started again less and less often; meanwhile its own
sockets are closed, so that the kernel gives their share of the clients to the others.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any, Final

from chat_gevent.command.config import ServeSettings
from chat_gevent.listeners import Listener, listen_beside

QUICK_SECONDS: Final = 2.0
"""A worker that lives no longer has died at once."""

FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 30.0
"""Seconds before a worker is started again that has died at once twice in a row; doubled each time."""

PATIENCE: Final = 1.0
"""Longest delay in which clients wait in the sockets of a position that has no worker."""


class Position:
    """Position ``index`` of those that workers have.

    :param listeners: of the whole server; TCP ones are reserved, those that workers share are inherited.
    """

    def __init__(self, index: int, listeners: list[Listener]) -> None:
        self.index = index
        self.worker: Any = None
        """The one that serves, or begins to; None where there is none."""
        self.successor: Any = None
        """One of the next generation, that takes the place of ``worker`` once it serves."""
        self.due = 0.0  # when a worker may be started
        self._quick_deaths = 0
        self._all = listeners
        self._own: dict[int, Listener] = {}  # by their index in ``_all``

    def open(self, settings: ServeSettings) -> None:
        """Have sockets that listen. Raises ListenError."""
        for number, each in enumerate(self._all):
            if not each.inherited and number not in self._own:
                self._own[number] = listen_beside(each, settings)

    @property
    def is_open(self) -> bool:
        """Whether its own sockets, if it has any, listen."""
        return bool(self._own)

    def listeners(self) -> list[Listener]:
        """What its worker is to serve, in the order of the server's listeners."""
        return [self._own.get(number, each) for number, each in enumerate(self._all)]

    def close(self) -> None:
        """Close its own sockets, in this process; who waits in them is reset if no other has them."""
        for each in self._own.values():
            each.socket.close()
        self._own.clear()

    def died(self, started: float) -> float:
        """Note that its worker, started at that time, is dead; returns the seconds until the next starts."""
        now = time.monotonic()
        self._quick_deaths = self._quick_deaths + 1 if now - started < QUICK_SECONDS else 0
        delay = 0.0
        if self._quick_deaths > 1:
            delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(20, self._quick_deaths - 2))
        self.due = now + delay
        return delay


def shareable(listeners: list[Listener]) -> list[Listener]:
    """Listeners for positions: those that can't be opened once a worker count as inherited by all."""
    return [
        dataclasses.replace(each, inherited=True, _inode=None) if each.plain_scheme == "unix" else each
        for each in listeners
    ]
