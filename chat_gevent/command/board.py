"""What the arbiter and its workers tell each other, in a page of memory that all of them share.

Each worker has a row, which it alone writes but for one field: the arbiter sets ``replaced`` before it asks a
worker to leave whose sockets go on to be served by another. A field is written at once as a whole, so no lock
is needed. The arbiter, which runs no event loop, looks at the rows when it is woken.
"""

from __future__ import annotations

import mmap
from enum import IntEnum
from typing import Final

_ROW: Final = 16
_STATE, _REPLACED, _STATUS, _CUT_OFF = 0, 1, 2, 8


class Progress(IntEnum):
    """How far a worker has come."""

    STARTING = 0
    SERVING = 1
    FAILED = 2
    """It could not start; ``status`` is the exit status that says why."""


class Board:
    """Rows for ``slots`` workers; to be made before the first fork."""

    def __init__(self, slots: int) -> None:
        self._memory = mmap.mmap(-1, slots * _ROW)

    def clear(self, slot: int) -> None:
        """Make the row that of a worker that is about to start."""
        self._memory[slot * _ROW : (slot + 1) * _ROW] = bytes(_ROW)

    def progress(self, slot: int) -> Progress:
        """How far the worker has come."""
        return Progress(self._memory[slot * _ROW + _STATE])

    def serving(self, slot: int) -> None:
        """The worker serves."""
        self._memory[slot * _ROW + _STATE] = Progress.SERVING

    def failed(self, slot: int, status: int) -> None:
        """The worker can't start, and ``status`` (0 to 255) says why."""
        self._memory[slot * _ROW + _STATUS] = status
        self._memory[slot * _ROW + _STATE] = Progress.FAILED

    def status(self, slot: int) -> int:
        """What :meth:`failed` was given."""
        return self._memory[slot * _ROW + _STATUS]

    def replace(self, slot: int) -> None:
        """Another worker goes on at the sockets of this one."""
        self._memory[slot * _ROW + _REPLACED] = 1

    def replaced(self, slot: int) -> bool:
        """Whether another worker goes on at its sockets."""
        return bool(self._memory[slot * _ROW + _REPLACED])

    def cut_off(self, slot: int, clients: int) -> None:
        """The worker has ended, and cut off so many clients with replies still due."""
        begin = slot * _ROW + _CUT_OFF
        self._memory[begin : begin + 8] = clients.to_bytes(8, "little")

    def clients_cut_off(self, slot: int) -> int:
        """What :meth:`cut_off` was given; 0 before."""
        begin = slot * _ROW + _CUT_OFF
        return int.from_bytes(self._memory[begin : begin + 8], "little")
