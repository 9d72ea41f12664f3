"""A record in shared memory that one process writes and others read, whole or not at all.

There are two places for it, which are written in turn. Each has a sequence number, the length and a checksum
over both and the data, so that a place that is half written shows itself, and the other one still has what
was written before. A writer that is killed in the middle of a write has lost that write and nothing else.
There is no lock: a writer waits for nobody, and a reader looks again where both places changed as it read.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

_HEADER: Final = struct.Struct("<QII")  # sequence number, length, checksum
_SEQUENCE: Final = struct.Struct("<Q")


class Record:
    """A record in ``memory``, which is zeros, or holds one. At most one process writes at a time."""

    def __init__(self, memory: memoryview) -> None:
        half = len(memory) // 2
        self._places = memory[:half], memory[half : 2 * half]
        self.room = half - _HEADER.size
        """Most bytes of data."""

    def write(self, data: bytes) -> None:
        """Replace the record. Raises ValueError: there is no room for so much."""
        if len(data) > self.room:
            raise ValueError(f"a record of {len(data)} bytes where there is room for {self.room}")
        sequence = self.sequence() + 1
        place = self._places[sequence % 2]
        place[_HEADER.size : _HEADER.size + len(data)] = data
        _HEADER.pack_into(place, 0, sequence, len(data), _checksum(sequence, data))

    def clear(self) -> None:
        """Have no record any more; not while another writes."""
        for place in self._places:
            place[: _HEADER.size] = bytes(_HEADER.size)

    def sequence(self) -> int:
        """The number of the record that is there, counted from 1; 0: there is none."""
        return self.read()[0]

    def read(self) -> tuple[int, bytes]:
        """Number and data of the newest record that is whole; 0 and nothing where there is none."""
        while True:
            before = self._sequences()
            found = max(map(self._read, self._places))
            # A read that took as long as two writes may have missed both, and be older than one before it.
            # Without any whole record, only one that was never finished may be there.
            if before == self._sequences() and (found[0] or 0 in before):
                return found

    def _sequences(self) -> list[int]:
        return [_HEADER.unpack_from(place)[0] for place in self._places]

    def _read(self, place: memoryview) -> tuple[int, bytes]:
        sequence, length, checksum = _HEADER.unpack_from(place)
        data = bytes(place[_HEADER.size : _HEADER.size + length])
        return (sequence, data) if sequence and _checksum(sequence, data) == checksum else (0, b"")


def _checksum(sequence: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(_SEQUENCE.pack(sequence)))
