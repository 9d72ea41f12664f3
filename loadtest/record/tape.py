"""What is kept of one connection for guessing: pieces with their time and direction, within bounds.

The proxy relays everything; the tape keeps the beginning. Beyond ``limit`` bytes or :data:`MOST_PIECES`
pieces it keeps nothing more and says so in ``cut``, so a client that sends forever costs a fixed amount of
memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

KEPT_BYTES: Final = 2**20
"""Most bytes that are kept of one connection, both directions together, unless ``--keep`` says otherwise."""

MOST_PIECES: Final = 10_000
"""Most pieces of one connection. Pieces that follow each other at once in one direction are made one."""

TOGETHER_SECONDS: Final = 0.002
"""Two reads of one direction within this time were one write, or are taken for it."""

Side = Literal["client", "server"]
SIDES: Final[tuple[Side, Side]] = ("client", "server")


@dataclass(slots=True)
class Piece:
    """Bytes that one side sent at about one time."""

    side: Side
    began: float
    """When its first byte passed, in seconds on the clock of ``time.perf_counter``."""
    ended: float
    """When its last byte passed."""
    data: bytearray


@dataclass(slots=True)
class Tape:
    """The beginning of one connection."""

    limit: int = KEPT_BYTES
    pieces: list[Piece] = field(default_factory=list)
    kept: int = 0
    cut: bool = False
    """Whether more passed than was kept."""
    ended_by: Side | None = None
    """The side that ended its stream first, or None while both go on."""

    def add(self, side: Side, data: bytes, now: float) -> None:
        """Keep ``data``, or what fits of it."""
        if self.cut:
            return
        room = self.limit - self.kept
        if len(data) > room:
            data, self.cut = data[:room], True
        if not data:
            return
        self.kept += len(data)
        last = self.pieces[-1] if self.pieces else None
        if last and last.side == side and now - last.ended <= TOGETHER_SECONDS:
            last.data += data
            last.ended = now
        elif len(self.pieces) < MOST_PIECES:
            self.pieces.append(Piece(side, now, now, bytearray(data)))
        else:
            self.cut = True

    def end(self, side: Side) -> None:
        """``side`` has ended its stream, or reset the connection."""
        if self.ended_by is None:
            self.ended_by = side

    def stream(self, side: Side) -> bytes:
        """All bytes that were kept of what ``side`` sent."""
        return b"".join(piece.data for piece in self.pieces if piece.side == side)
