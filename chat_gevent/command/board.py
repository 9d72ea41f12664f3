"""What master and workers tell each other, in memory that the master makes before it forks.

A signal carries no more than its number, and may come before its receiver listens; so an order is written
here first, and the signal only makes the worker look. A worker writes here how far it is, and what it did,
so that the master knows it even of one that was killed.
"""

from __future__ import annotations

import mmap
from enum import IntEnum
from typing import Final


class State(IntEnum):
    """How far a worker is."""

    STARTING = 0
    SERVING = 1
    LEAVING = 2
    """It accepts nobody any more; its clients are told to leave."""
    ENDED = 3
    FAILED = 4
    """It could not start; the exit status for that is there too."""
    LOST = 5
    """Its listeners have been shut down by another process."""


class Order(IntEnum):
    """What a worker that is sent SIGTERM is to do; a higher order replaces a lower one."""

    NONE = 0
    """Nobody of us has sent it: an operator wants this worker to go."""
    RETIRE = 1
    """Another worker has its listeners now: accept no more, have the clients leave."""
    CLOSE = 2
    """Nobody has its own listeners after it: accept who waits there, and close them."""
    STOP = 3
    """The server stops: accept who waits on any listener, and close them."""
    HURRY = 4
    """End at once."""


FIELDS: Final = ("state", "order", "status", "clients", "messages", "cut_off")


class Board:
    """A few numbers of each worker, and two of all: ``draining`` and ``workers``.

    :param slots: how many workers there may be at once.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._words = memoryview(mmap.mmap(-1, 8 * (2 + slots * len(FIELDS)))).cast("Q")

    @property
    def draining(self) -> bool:
        """Whether the server is about to stop."""
        return bool(self._words[0])

    @draining.setter
    def draining(self, value: bool) -> None:
        self._words[0] = value

    @property
    def workers(self) -> int:
        """How many workers there are to be, which share what is limited for all of them."""
        return self._words[1]

    @workers.setter
    def workers(self, value: int) -> None:
        self._words[1] = value

    def get(self, slot: int, field: str) -> int:
        """A number of the worker in a slot, by its name in :data:`FIELDS`."""
        return self._words[2 + slot * len(FIELDS) + FIELDS.index(field)]

    def set(self, slot: int, field: str, value: int) -> None:
        """Write a number of the worker in a slot."""
        self._words[2 + slot * len(FIELDS) + FIELDS.index(field)] = value

    def clear(self, slot: int) -> None:
        """Begin with a new worker in a slot."""
        for field in FIELDS:
            self.set(slot, field, 0)
