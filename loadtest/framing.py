"""Framings of a client: what is put around a message that is sent, and where a reply ends. Sans-I/O.

A framing has no state of its own, so that all clients of a process share one: the bytes that were
left over are passed in and handed back.

====================== ====================================================================
:class:`Line`          LF ends a message; a CR before it is dropped from replies
:class:`Delimiter`     any byte string ends a message
:class:`LengthPrefix`  a count of 1 to 8 bytes comes first
:class:`Chunk`         nothing: a reply is what one read returned, or as long as was expected
====================== ====================================================================
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

from chat_gevent.framing import MessageTooLong, split_lines
from loadtest.errors import FramingBroken

MAX_REPLY_BYTES: Final = 16 * 2**20
"""Default bound of one reply, in bytes: a server that never ends one may not eat the generator's memory."""


class Framing(Protocol):
    """What a client needs of a framing."""

    bounded: bool
    """Whether a reply's end can be told from its bytes alone."""

    def encode(self, message: bytes) -> bytes:
        """The bytes to send for ``message``."""

    def split(self, data: bytes) -> tuple[list[bytes], bytes]:
        """The complete replies in ``data``, and the bytes left over. Raises FramingBroken."""


class Delimiter:
    """Messages that end with ``delimiter``, which they may not contain."""

    bounded = True

    def __init__(self, delimiter: bytes, limit: int = MAX_REPLY_BYTES) -> None:
        if not delimiter:
            raise ValueError("a delimiter has at least one byte")
        self.delimiter = delimiter
        self.limit = limit

    def encode(self, message: bytes) -> bytes:
        """Append the delimiter. Raises ValueError: the message contains it."""
        if self.delimiter in message:
            raise ValueError(f"the message contains its own delimiter {self.delimiter!r}")
        return message + self.delimiter

    def split(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Cut at every delimiter, wherever the reads happened to end."""
        replies = data.split(self.delimiter)
        rest = replies.pop()
        if len(rest) > self.limit:
            raise FramingBroken(f"more than {self.limit} bytes and no delimiter")
        return replies, rest


class Line(Delimiter):
    """Lines: LF ends them, and one CR before it is no part of the reply."""

    def __init__(self, limit: int = MAX_REPLY_BYTES) -> None:
        super().__init__(b"\n", limit)

    def split(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Cut at every LF."""
        try:
            return split_lines(b"", data, self.limit)
        except MessageTooLong as error:
            raise FramingBroken(str(error)) from None


class LengthPrefix:
    """A count of ``size`` bytes, then as many bytes of message; ``inclusive`` counts the prefix too."""

    bounded = True

    def __init__(
        self,
        size: int = 4,
        order: Literal["big", "little"] = "big",
        *,
        inclusive: bool = False,
        limit: int = MAX_REPLY_BYTES,
    ) -> None:
        if not 1 <= size <= 8:
            raise ValueError("a length prefix has 1 to 8 bytes")
        self.size = size
        self.order: Literal["big", "little"] = order
        self.extra = size if inclusive else 0
        self.limit = limit

    def encode(self, message: bytes) -> bytes:
        """Prepend the count. Raises ValueError: it does not fit the prefix."""
        try:
            return (len(message) + self.extra).to_bytes(self.size, self.order) + message
        except OverflowError:
            raise ValueError(f"{len(message)} bytes do not fit a prefix of {self.size}") from None

    def split(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Cut by the counts."""
        replies = []
        start = 0
        while len(data) - start >= self.size:
            body = start + self.size
            length = int.from_bytes(data[start:body], self.order) - self.extra
            if not 0 <= length <= self.limit:
                raise FramingBroken(f"a length prefix says {length} bytes")
            if len(data) < body + length:
                break
            start = body + length
            replies.append(data[body:start])
        return replies, data[start:]


class Chunk:
    """No boundaries: the peer takes what one read returns as a message, and so does this client.

    Where the caller knows the reply it expects, its length says when it is complete; where not, a
    reply is what one read returned, which is all that can be known.
    """

    bounded = False

    def encode(self, message: bytes) -> bytes:
        """The message itself. Raises ValueError: it is empty, so nothing would be sent."""
        if not message:
            raise ValueError("an empty message can't be sent without a framing")
        return message

    def split(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Everything that was read is one reply."""
        return ([data] if data else []), b""


def parse_framing(text: str) -> Framing:
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
