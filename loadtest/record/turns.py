"""Who spoke when: the pieces of a tape as turns. A turn is what one side sent before the other spoke again.

Within a turn, ``parts`` are what was sent after a pause of :data:`PAUSE_SECONDS` or more: where a client
writes a message, waits and writes another one, nothing was the reply to the first; where a server speaks
again after a pause, what it says then was not asked for. Whether such a pause lies between messages or
within one is only known with the framing, so the turns keep the parts and judge nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from loadtest.record.tape import Side, Tape

PAUSE_SECONDS: Final = 0.15
"""A silence that separates what one side says from what it says next. Much longer than a loopback's
round trip and than a client takes between two writes of one message; shorter than a person's pause."""


@dataclass(slots=True)
class Part:
    """What was sent without a pause."""

    data: bytes
    began: float
    ended: float


@dataclass(slots=True)
class Turn:
    """What one side sent before the other spoke again."""

    side: Side
    parts: list[Part]

    @property
    def data(self) -> bytes:
        """All of it."""
        return b"".join(part.data for part in self.parts)


def turns_of(tape: Tape) -> list[Turn]:
    """The turns of ``tape`` in order, without the last one of a tape that was cut: it may be unfinished."""
    turns: list[Turn] = []
    for piece in tape.pieces:
        part = Part(bytes(piece.data), piece.began, piece.ended)
        if not turns or turns[-1].side != piece.side:
            turns.append(Turn(piece.side, [part]))
        elif piece.began - turns[-1].parts[-1].ended >= PAUSE_SECONDS:
            turns[-1].parts.append(part)
        else:
            last = turns[-1].parts[-1]
            turns[-1].parts[-1] = Part(last.data + part.data, last.began, part.ended)
    if tape.cut and turns:
        turns.pop()
    return turns
