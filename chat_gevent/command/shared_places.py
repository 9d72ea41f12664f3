"""The limit of clients per address, counted over all workers.

The master makes the memory before it forks. Each worker has a table of its own in it, in which only it
writes: how many clients each address has there. What an address has in all is the sum over the tables. So
when a worker dies its table is emptied, and all that it had counted is taken off.

To look and then to take must be one step for all workers. A record lock of ``fcntl`` makes it one, which the
kernel gives back when its holder dies, whatever it was doing.

A table is a hash table with open addressing: of each address a keyed hash of 8 bytes, which is never 0, and
its count. Memory that no address has come to is never touched, and takes none.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

from chat_gevent.places import Places

MOST_ENTRIES: Final = 2**21
"""Most entries of a table: addresses of twice as many clients as one process has carried at once."""

ENTRY_BYTES: Final = 8 + 8

FULLEST: Final = 0.9
"""Part of a table that may be taken, so that a search ends soon."""


class SharedPlaces(Places):
    """Takes the place of :class:`chat_gevent.places.Places` in workers. Made by the master.

    :param most: places of each address.
    :param slots: how many workers there may be at once.
    :param clients: most clients of one worker.

    Raises OSError: there is no memory for it.
    """

    def __init__(self, most: int, slots: int, clients: int) -> None:
        super().__init__(most)
        self._entries = min(MOST_ENTRIES, max(256, 1 << (2 * clients - 1).bit_length()))
        self._table_bytes = self._entries * ENTRY_BYTES
        self._map = mmap.mmap(-1, slots * self._table_bytes)
        self._words = memoryview(self._map).cast("Q")  # of each entry two: hash and count
        self._used = memoryview(mmap.mmap(-1, 8 * slots)).cast("Q")  # entries of each slot
        self._lock = os.memfd_create("chat-gevent-places", os.MFD_CLOEXEC)
        self._secret = os.urandom(16)  # or else clients could choose addresses that meet in one entry
        self._slot = -1

    @property
    def most_clients(self) -> int:
        """Most clients of one worker, each with its own address, that have room; no bound in the largest."""
        return int(FULLEST * self._entries) if self._entries < MOST_ENTRIES else 2**62

    def open(self, slot: int) -> None:
        """Count in the table of ``slot`` from now on. In the worker."""
        self._slot = slot

    def release(self, slot: int) -> None:
        """Empty the table of a worker that is dead. In the master; it waits for nobody."""
        self._used[slot] = 0  # whoever reads meanwhile reads counts of the dead, or none of them
        self._map.madvise(mmap.MADV_REMOVE, slot * self._table_bytes, self._table_bytes)

    def full(self, host: str) -> bool:
        """Whether an address has no place left now; another worker may take the last one meanwhile."""
        return self._count(self._hash(host)) >= self.most

    def take(self, host: str) -> bool:
        """Take a place of an address; False where it has none left in any worker."""
        key = self._hash(host)
        with self._locked():
            if self._count(key) >= self.most:
                return False
            at = self._find(self._slot, key)
            if not self._words[at]:
                if self._used[self._slot] >= FULLEST * self._entries:
                    return False
                self._used[self._slot] += 1
                self._words[at] = key
            self._words[at + 1] += 1
        return True

    def give_back(self, host: str) -> None:
        """Give back a place that this worker took."""
        key = self._hash(host)
        with self._locked():
            at = self._find(self._slot, key)
            self._words[at + 1] -= 1
            if not self._words[at + 1]:
                self._used[self._slot] -= 1
                self._remove(at)

    def _hash(self, host: str) -> int:
        digest = blake2b(host.encode(errors="surrogateescape"), digest_size=8, key=self._secret).digest()
        return int.from_bytes(digest, "little") or 1

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self._lock, fcntl.LOCK_EX)  # held for microseconds
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def _count(self, key: int) -> int:
        words = self._words
        return sum(words[self._find(slot, key) + 1] for slot, used in enumerate(self._used) if used)

    def _find(self, slot: int, key: int) -> int:
        """Where the entry of a hash is, or would be, as an index of words."""
        base, entries, words = 2 * slot * self._entries, self._entries, self._words
        index = key % entries
        for _ in range(entries):
            if words[base + 2 * index] in (key, 0):
                break
            index = (index + 1) % entries
        return base + 2 * index

    def _remove(self, at: int) -> None:
        """Remove an entry, and move up those that a search finds only by way of it."""
        base, entries, words = 2 * self._slot * self._entries, self._entries, self._words
        hole = index = (at - base) // 2
        while True:
            index = (index + 1) % entries
            key = words[base + 2 * index]
            if not key:
                break
            if (index - key) % entries >= (index - hole) % entries:
                words[base + 2 * hole], words[base + 2 * hole + 1] = key, words[base + 2 * index + 1]
                hole = index
        words[base + 2 * hole] = words[base + 2 * hole + 1] = 0
