"""Framings of a client: what is put around a message that is sent, and where a reply ends. Sans-I/O.

A framing has no state of its own, so that all clients of a process share one: what it kept of an unfinished
reply is handed back to it with the bytes that came next. That is ``b""`` at first, and false whenever
nothing is unfinished; the rest is the framing's own affair. It may be extended in place, so that a reply
which comes in many pieces takes time in proportion to its length.

====================== ====================================================================
:class:`Line`          LF ends a message; a CR before it is dropped from replies
:class:`Delimiter`     any byte string ends a message
:class:`LengthPrefix`  a count of 1 to 8 bytes comes first
:class:`Chunk`         nothing: a reply is what one read returned, or as long as was expected
====================== ====================================================================
"""

from __future__ import annotations

from typing import Any, Final, Literal, Protocol

from chat_gevent.framing import MessageTooLong
from loadtest.errors import FramingBroken

MAX_REPLY_BYTES: Final = 16 * 2**20
"""Default bound of one reply, in bytes: a server that never ends one may not eat the generator's memory."""


class ReplyFraming(Protocol):
    """What a client needs of a framing."""

    def encode(self, message: bytes, /) -> bytes:
        """The bytes to send for ``message``. Raises ValueError where the framing can't carry it."""

    def split(self, kept: Any, data: bytes, limit: int, /) -> tuple[list[bytes], Any]:
        """The replies that ``data`` completes, and what is kept of an unfinished one.

        Raises MessageTooLong (a reply of more than ``limit`` bytes) or FramingBroken.
        """

    def finish(self, kept: Any, /) -> list[bytes]:
        """What the end of the stream makes of what was kept."""


def marks_ends(framing: ReplyFraming) -> bool:
    """Whether a reply's end can be told from its bytes alone."""
    return not isinstance(framing, Chunk)


def one_message(framing: ReplyFraming, wire: bytes) -> bytes:
    """The message that ``framing.encode`` made ``wire`` of."""
    if not marks_ends(framing):
        return wire
    messages, _ = framing.split(b"", wire, len(wire))
    return messages[0]


class Delimiter:
    """Messages that end with ``delimiter``, which they may not contain."""

    def __init__(self, delimiter: bytes) -> None:
        if not delimiter:
            raise ValueError("a delimiter has at least one byte")
        self.delimiter = delimiter

    def encode(self, message: bytes) -> bytes:
        """Append the delimiter. Raises ValueError: the message contains it."""
        if self.delimiter in message:
            raise ValueError(f"the message contains its own delimiter {self.delimiter!r}")
        return message + self.delimiter

    def split(
        self, kept: bytes | bytearray, data: bytes, limit: int = MAX_REPLY_BYTES
    ) -> tuple[list[bytes], bytes | bytearray]:
        """Cut at every delimiter, wherever the reads happened to end. Raises MessageTooLong."""
        if kept:
            unsearched = max(0, len(kept) - len(self.delimiter) + 1)
            kept += data
            if kept.find(self.delimiter, unsearched) < 0:
                if self._size(kept) > limit:
                    raise MessageTooLong(limit, [])
                return [], kept
            data = bytes(kept)
        replies = data.split(self.delimiter)
        rest = bytearray(replies.pop())
        for number, reply in enumerate(replies):
            if self._size(reply) > limit:
                raise MessageTooLong(limit, self._trimmed(replies[:number]))
        replies = self._trimmed(replies)
        if self._size(rest) > limit:
            raise MessageTooLong(limit, replies)
        return replies, rest

    def finish(self, kept: bytes | bytearray) -> list[bytes]:
        """Bytes that no delimiter closed are a last message."""
        return [bytes(kept)] if kept else []

    def _size(self, message: bytes | bytearray) -> int:
        return len(message)

    def _trimmed(self, replies: list[bytes]) -> list[bytes]:
        return replies


class Line(Delimiter):
    """Lines: LF ends them, and one CR before it is no part of the reply."""

    def __init__(self) -> None:
        super().__init__(b"\n")

    def _size(self, message: bytes | bytearray) -> int:
        return len(message) - message.endswith(b"\r")

    def _trimmed(self, replies: list[bytes]) -> list[bytes]:
        return [reply.removesuffix(b"\r") for reply in replies]


class LengthPrefix:
    """A count of ``size`` bytes, then as many bytes of message; ``inclusive`` counts the prefix too."""

    def __init__(
        self, size: int = 4, order: Literal["big", "little"] = "big", *, inclusive: bool = False
    ) -> None:
        if not 1 <= size <= 8:
            raise ValueError("a length prefix has 1 to 8 bytes")
        self.size = size
        self.order: Literal["big", "little"] = order
        self.extra = size if inclusive else 0

    def encode(self, message: bytes) -> bytes:
        """Prepend the count. Raises ValueError: it does not fit the prefix."""
        try:
            return (len(message) + self.extra).to_bytes(self.size, self.order) + message
        except OverflowError:
            raise ValueError(f"{len(message)} bytes do not fit a prefix of {self.size}") from None

    def split(
        self, kept: bytes | bytearray, data: bytes, limit: int = MAX_REPLY_BYTES
    ) -> tuple[list[bytes], bytes | bytearray]:
        """Cut by the counts. Raises MessageTooLong, and FramingBroken for a count below its own size."""
        if not kept:
            kept = bytearray(data)
        else:
            kept += data
        replies: list[bytes] = []
        start = 0
        while len(kept) - start >= self.size:
            body = start + self.size
            length = int.from_bytes(kept[start:body], self.order) - self.extra
            if length < 0:
                raise FramingBroken(f"a length prefix says {length} bytes")
            if length > limit:
                raise MessageTooLong(limit, replies)
            if len(kept) < body + length:
                break
            start = body + length
            replies.append(bytes(kept[body:start]))
        return replies, kept[start:] if start else kept

    def finish(self, kept: bytes | bytearray) -> list[bytes]:
        """A message that is shorter than its count says is none."""
        return []


class Chunk:
    """No boundaries: the server takes what one read returns as a message, and so does this client.

    Where the caller knows the reply it expects, its length says when it is complete; where not, a
    reply is what one read returned, which is all that can be known.
    """

    def encode(self, message: bytes) -> bytes:
        """The message itself. Raises ValueError: it is empty, so nothing would be sent."""
        if not message:
            raise ValueError("an empty message can't be sent without a framing")
        return message

    def split(self, kept: bytes, data: bytes, limit: int = MAX_REPLY_BYTES) -> tuple[list[bytes], bytes]:
        """Everything that was read is one reply."""
        return ([kept + data] if kept + data else []), b""

    def finish(self, kept: bytes) -> list[bytes]:
        """Nothing is ever kept."""
        return []


def parse_framing(text: str) -> ReplyFraming:
    r"""``line``, ``chunk``, ``delimiter:TEXT`` (with Python's escapes: ``\0``, ``\x1f``) or ``length:N[le]``.

    Raises ValueError with a sentence for a person.
    """
    kind, _, argument = text.partition(":")
    if kind == "line" and not argument:
        return Line()
    if kind == "chunk" and not argument:
        return Chunk()
    if kind == "delimiter" and argument:
        return Delimiter(
            argument.encode("latin-1", "backslashreplace").decode("unicode_escape").encode("latin-1")
        )
    if kind == "length" and argument.removesuffix("le").isdigit():
        return LengthPrefix(int(argument.removesuffix("le")), "little" if argument.endswith("le") else "big")
    raise ValueError(f"unknown framing {text!r}: use line, chunk, delimiter:TEXT or length:BYTES[le]")
