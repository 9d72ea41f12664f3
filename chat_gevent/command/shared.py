"""The figures of all workers, in memory that they share with the process that started them.

That process, the master, makes a :class:`SharedFigures` before it starts the first worker, so that all have
the same memory, and gives each worker a slot in it. A worker publishes its figures into its slot
(:mod:`chat_gevent.command.records`), once a second and when somebody asks; no message pays for it. Any
worker can read them all.

When a worker is gone the master adds the counts that it published last to those of all that are gone, and
frees the slot. A counter that somebody has read never goes back meanwhile, although nothing is locked: each
worker has a number of its own, its *life*, and the record of those that are gone says for each slot up to
which life it includes. So figures of a dead worker count from its slot before the change and from that record
after it, never twice. A reader looks again if that record has changed while it read the slots.

What a worker had not published when it was killed is lost: the counts of a second at most.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import time
from dataclasses import replace
from typing import Any, Final

from chat_gevent.command import history
from chat_gevent.command.peers import Mailboxes
from chat_gevent.command.records import Record
from chat_gevent.command.snapshot import Snapshot
from chat_gevent.command.total import WorkerFigures, add_seconds, add_up, pack, to_bytes, unpack

SLOT_BYTES: Final = 2**14
"""Memory of one slot, for two records of 8 KiB; one takes about 1 KiB. Pages that are not used take none."""

_PER_SLOT_GONE: Final = 128
"""Bytes that the record of those that are gone may need for each slot, twice."""

_RING_AT: Final = 0
_GONE_AT: Final = -(-history.BYTES // mmap.PAGESIZE) * mmap.PAGESIZE


class SharedFigures:
    """Figures of at most ``slots`` workers at a time. To be made before the first of them is forked.

    :param asks: whether the workers ask each other as well, which takes two files for each slot.

    Needs no event loop. Raises OSError: there is no memory for it, or there are no files.
    """

    def __init__(self, slots: int, asks: bool = True) -> None:
        self.slots = slots
        self.started = time.time()
        """When the server was started, as a Unix time."""
        self.mailboxes = Mailboxes(slots if asks else 0)
        gone_bytes = SLOT_BYTES + -(-slots * _PER_SLOT_GONE // mmap.PAGESIZE) * mmap.PAGESIZE
        self._file = os.memfd_create("chat-gevent-figures", os.MFD_CLOEXEC)
        size = _GONE_AT + gone_bytes + slots * SLOT_BYTES
        os.ftruncate(self._file, size)
        memory = memoryview(mmap.mmap(self._file, size))
        self._gone = Record(memory[_GONE_AT : _GONE_AT + gone_bytes])
        first = _GONE_AT + gone_bytes
        self._records = [
            Record(memory[first + slot * SLOT_BYTES : first + (slot + 1) * SLOT_BYTES])
            for slot in range(slots)
        ]
        self.history = history.History(memory[_RING_AT : history.BYTES])
        self._lives = [0] * slots  # of the master, which a worker has as it was when it was forked
        self._claimed: set[int] = set()
        self._own = -1

    def close(self) -> None:
        """Close its files, for this process."""
        self.mailboxes.close()
        os.close(self._file)

    # -- in the master -------------------------------------------------------------------------------

    def claim(self) -> int:
        """A free slot, for a worker that is about to be started. Raises RuntimeError: there is none."""
        for slot in range(self.slots):
            if slot not in self._claimed:
                self._claimed.add(slot)
                self._lives[slot] += 1
                self._records[slot].clear()
                return slot
        raise RuntimeError(f"all {self.slots} slots are taken")

    def release(self, slot: int) -> None:
        """Free the slot of a worker whose process is gone; what it counted stays."""
        _, gone, before = self._read_gone()
        ended = self._read(slot)
        if ended is not None:
            messages, cpu_seconds = before[slot][1:]
            before[slot] = [
                self._lives[slot],
                messages + ended.figures.messages,
                add_seconds((cpu_seconds, ended.figures.process.cpu_seconds)),
            ]
            total = add_up([], add_up([ended.figures], gone))
            self._gone.write(to_bytes([pack(total), before]))
        self._claimed.discard(slot)

    # -- in a worker ---------------------------------------------------------------------------------

    def open(self, slot: int) -> None:
        """Publish into ``slot`` from now on, which the master claimed before it started this process."""
        self._own = slot
        self.mailboxes.keep(slot)

    def publish(
        self,
        figures: Snapshot,
        *,
        ready: bool = True,
        messages_per_second: float = 0.0,
        draining_since: float | None = None,
    ) -> None:
        """Let the others know this worker's figures; ``draining_since`` is of ``time.monotonic``.

        Raises ValueError: they don't fit into a slot.
        """
        life, now = self._lives[self._own], time.monotonic()
        about = [life, os.getpid(), now, ready, messages_per_second, draining_since]
        self._records[self._own].write(to_bytes([about, pack(figures)]))

    def has_duty(self) -> bool:
        """Whether this process is the one of all that writes the history.

        Who holds that duty keeps it until its process ends, however it ends; then the next that asks has it.
        """
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)  # a lock of this process, renewed
        except (BlockingIOError, PermissionError):
            return False
        return True

    # -- in any of them ------------------------------------------------------------------------------

    def read(self, slot: int) -> Snapshot | None:
        """What the worker in ``slot`` published last; None: nothing, or there is none."""
        return next((each.figures for each in self.collect()[0] if each.worker == slot), None)

    def total(self) -> Snapshot:
        """The sum over all workers, with the counts of those that are gone."""
        return self.collect()[1]

    def collect(self) -> tuple[list[WorkerFigures], Snapshot]:
        """Each worker that lives and has published, by number, and the sum over all; of one moment."""
        while True:
            mark, gone, before = self._read_gone()
            living = []
            for slot, (included, messages, cpu_seconds) in enumerate(before):
                found = self._read(slot, included)
                if found is not None:
                    living.append(
                        replace(
                            found,
                            messages=messages + found.figures.messages,
                            cpu_seconds=add_seconds((cpu_seconds, found.figures.process.cpu_seconds)),
                        )
                    )
            if self._gone.sequence() == mark:
                return living, add_up([each.figures for each in living], gone)

    def _read(self, slot: int, included: int = 0) -> WorkerFigures | None:
        """The record of a slot, unless its life is among those that are included elsewhere already."""
        sequence, data = self._records[slot].read()
        if not sequence:
            return None
        (life, pid, taken, ready, rate, draining_since), values = json.loads(data)
        if life <= included:
            return None
        now = time.monotonic()
        return WorkerFigures(
            worker=slot,
            pid=pid,
            age=max(0.0, now - taken),
            ready=ready,
            messages_per_second=rate,
            draining_seconds=None if draining_since is None else max(0.0, now - draining_since),
            figures=unpack(values),
            messages=0,
            cpu_seconds=0.0,
        )

    def _read_gone(self) -> tuple[int, Snapshot | None, list[list[Any]]]:
        """Number of the record, the sum over those that are gone; of each slot life, messages, CPU time."""
        sequence, data = self._gone.read()
        if not sequence:
            return 0, None, [[0, 0, 0.0] for _ in range(self.slots)]
        values, before = json.loads(data)
        return sequence, unpack(values), before
