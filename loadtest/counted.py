"""Framings of messages that begin with a count of their bytes, in other places or forms than LengthPrefix.

They are parts of a reply as those of :mod:`loadtest.replies` are; :mod:`loadtest.framing` exports them.
"""

from __future__ import annotations

from typing import Literal

from chat_gevent.framing import FramingError
from loadtest.replies import InParts, Unfinished


class Counted(InParts):
    """``head`` bytes, a count of ``size`` bytes, and as many bytes: the message is all but the count.

    PostgreSQL is ``Counted(head=1, inclusive=True)``: a letter, a count that counts itself, and the rest.
    """

    name = "counted"

    def __init__(
        self,
        head: int = 1,
        size: int = 4,
        order: Literal["big", "little"] = "big",
        *,
        inclusive: bool = False,
    ) -> None:
        self.head = head
        self.size = size
        self.order: Literal["big", "little"] = order
        self.inclusive = inclusive

    def _part(self, buffer: Unfinished, begin: int, at: int, seen: int) -> tuple[int, int] | None:
        found = self._count(buffer[at + self.head : at + self.head + 10])
        return None if found is None else (at + self.head + sum(found), 0)

    def _count(self, data: bytes | bytearray) -> tuple[int, int] | None:
        """How many bytes the count has, and how many follow it; None where it is unfinished."""
        if len(data) < self.size:
            return None
        length = int.from_bytes(data[: self.size], self.order) - (self.size if self.inclusive else 0)
        if length < 0:
            raise FramingError("a count that includes itself is below its own size", [])
        return self.size, length

    def _content(self, reply: bytes) -> bytes:
        found = self._count(reply[self.head : self.head + 10])
        assert found is not None
        return reply[: self.head] + reply[self.head + found[0] :]

    def encode(self, message: bytes) -> bytes:
        """The first ``head`` bytes, the count of the others, and these. Raises ValueError, OverflowError."""
        if len(message) < self.head:
            raise ValueError(f"a message has at least {self.head} bytes before its count")
        return message[: self.head] + self._prefix(len(message) - self.head) + message[self.head :]

    def _prefix(self, length: int) -> bytes:
        return (length + (self.size if self.inclusive else 0)).to_bytes(self.size, self.order)


class Varint(Counted):
    """As :class:`Counted`, with a count in groups of 7 bits (protobuf); MQTT is ``Varint(head=1)``."""

    name = "varint"

    def __init__(self, head: int = 0) -> None:
        super().__init__(head)

    def _count(self, data: bytes | bytearray) -> tuple[int, int] | None:
        length = 0
        for place, byte in enumerate(data[:10]):
            length |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return place + 1, length
        if len(data) >= 10:
            raise FramingError("a count of more than ten bytes", [])
        return None

    def _prefix(self, length: int) -> bytes:
        groups = bytearray()
        while length >= 0x80:
            groups.append(length & 0x7F | 0x80)
            length >>= 7
        groups.append(length)
        return bytes(groups)
