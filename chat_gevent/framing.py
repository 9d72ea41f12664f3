"""Bytes to messages and back: where one message of a stream ends and the next begins. Pure.

A stream has no message boundaries. A **framing** gives it some. Server, client and load test use the same:

=====================  =================================================================================
``Line()``             a message is the bytes up to LF; one CR before the LF is dropped
``Chunk()``            a message is what one read of at most 1,024 bytes returned; for clients that send no
                       terminator. An unfinished UTF-8 character at its end waits for the next read
``Auto()``             ``Line`` or ``Chunk``, decided by the first bytes (see :class:`Auto`)
``Delimiter(b"…")``    a message is the bytes up to a byte string of one's own
``LengthPrefix(4)``    a message follows a count of its bytes, a number of 1, 2, 4 or 8 bytes
=====================  =================================================================================

How it works: a framing is an object without state, so that one serves all connections. What a connection
has to remember is one value, ``kept``: the beginning of a message that is not complete yet, ``b""`` at first.

* ``split(kept, data, limit)`` takes what was kept and what was read, and returns the complete messages and
  what is to be kept from now on. A beginning that grows is a ``bytearray`` that grows in place, and only new
  bytes are searched, so a message that comes in many pieces costs time in proportion to its length.
* ``finish(kept, limit)`` says what the end of the stream makes of what was kept.
* ``encode(message)`` gives a message the form that it has on the wire.

>>> Line().split(b"", b"one\\ntwo\\nthr")
([b'one', b'two'], b'thr')
>>> LengthPrefix(2).encode(b"hello")
b'\\x00\\x05hello'

A framing of one's own is a class with these three methods and a ``name``. Nothing here knows a socket, a
clock, gevent or a log.
"""

from __future__ import annotations

from typing import Any, Final, Literal, Protocol

from chat_gevent.errors import BadCount as BadCount
from chat_gevent.errors import FramingError as FramingError
from chat_gevent.errors import MessageTooLong as MessageTooLong
from chat_gevent.utf8 import unfinished_character

LF, CR = b"\n\r"  # numbers: in a bytearray a byte is found three times as fast as bytes of length 1

CHUNK_BYTES: Final = 1024
"""Most bytes that one ``chunk`` message is read from: the ``recv(1024)`` of the first clients."""

AUTO_SECONDS: Final = 0.1
"""How long :class:`Auto` waits for an LF after the first bytes, in seconds."""

SEGMENT_BYTES: Final = 1000
"""A first read of as many bytes has filled a TCP segment, and the rest of the line may be in the next one."""

SEGMENT_SECONDS: Final = 1.0
"""How long :class:`Auto` waits for that rest, in seconds: a lost segment comes again after 0.2 s or more."""

MAX_MESSAGE_BYTES: Final = 65_536
"""Default bound of one message without its terminator, in bytes."""

Kept = bytes | bytearray
"""The beginning of a message: what :meth:`Framing.split` returned is only to be given back to it."""


class Framing(Protocol):
    """What server, client and load test ask of a framing; the module's docstring says how it works."""

    @property
    def name(self) -> str:
        """What people call it, such as ``line``."""

    def split(self, kept: Kept, data: Kept, limit: int) -> tuple[list[bytes], Kept]:
        """The messages that ``data`` completes, and what is kept. Raises MessageTooLong."""

    def finish(self, kept: Kept, limit: int) -> list[bytes]:
        """The messages that the end of the stream completes, none or one. Raises MessageTooLong."""

    def encode(self, message: bytes) -> bytes:
        """``message`` as it goes over the wire."""


class _Plain:
    """What the framings of this module share: they are equal where kind and parameters are."""

    __slots__ = ()
    name = ""

    def _parameters(self) -> tuple[Any, ...]:
        return ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self._parameters()))})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._parameters() == other._parameters()

    def __hash__(self) -> int:
        return hash((type(self), self._parameters()))


class Line(_Plain):
    """Messages end with LF; one CR before it is dropped."""

    __slots__ = ()
    name = "line"

    def split(self, kept: Kept, data: Kept, limit: int = MAX_MESSAGE_BYTES) -> tuple[list[bytes], Kept]:
        """Split at LF. What is kept is an unfinished line of at most ``limit`` bytes.

        It may have one more that is a CR, which may yet turn out to belong to the terminator.
        Raises MessageTooLong: a line, finished or not, has more than ``limit`` bytes.
        """
        if LF not in data:
            if len(kept) + len(data) - (data or kept).endswith(b"\r") > limit:
                raise MessageTooLong(limit, [])
            return [], grow(kept, data)
        lines = (bytes(kept) + data).split(b"\n")
        rest = lines.pop()
        for index, line in enumerate(lines):
            if line.endswith(b"\r"):
                lines[index] = line = line[:-1]
            if len(line) > limit:
                raise MessageTooLong(limit, lines[:index])
        if len(rest) - rest.endswith(b"\r") > limit:
            raise MessageTooLong(limit, lines)
        return lines, rest

    def finish(self, kept: Kept, limit: int = MAX_MESSAGE_BYTES) -> list[bytes]:
        """Bytes that no LF closed are a last message."""
        return _last(kept, limit)

    def encode(self, message: bytes) -> bytes:
        """``message`` and an LF; one that has LFs of its own is several lines to who reads it."""
        return message + b"\n"


class Chunk(_Plain):
    """Each read of at most ``size`` bytes is a message.

    :param until_lf: whether a read that ends with LF makes the rest of the stream lines (:meth:`settle`).
    """

    __slots__ = ("size", "until_lf")
    name = "chunk"

    def __init__(self, size: int = CHUNK_BYTES, until_lf: bool = False) -> None:
        self.size = size
        self.until_lf = until_lf

    def _parameters(self) -> tuple[Any, ...]:
        return self.size, self.until_lf

    def split(self, kept: Kept, data: Kept, limit: int = MAX_MESSAGE_BYTES) -> tuple[list[bytes], Kept]:
        """Make a message of each ``size`` bytes of what was read, or of each ``limit`` bytes if that is less.

        ``data`` is usually one read and gives one message; longer data gives several. What is kept is an
        unfinished UTF-8 character, 0 to 3 bytes, with which the next message begins. Never raises
        MessageTooLong.
        """
        messages = []
        size = min(self.size, limit)
        for start in range(0, len(data), size):
            piece = bytes(kept) + data[start : start + size]
            whole = len(piece) - unfinished_character(piece)
            if whole:
                messages.append(piece[:whole])
            kept = piece[whole:]
        return messages, kept

    def finish(self, kept: Kept, limit: int = MAX_MESSAGE_BYTES) -> list[bytes]:
        """An unfinished character is a last message, which is not UTF-8."""
        return [bytes(kept)] if kept else []

    def encode(self, message: bytes) -> bytes:
        """``message`` as it is."""
        return message

    def settle(self, data: Kept) -> Line | Chunk:
        """The framing that holds from the read ``data`` on."""
        return LINE if self.until_lf and data.endswith(b"\n") else self


class Auto(_Plain):
    """``Line`` or ``Chunk``, decided by the first bytes.

    An LF in them, or within :data:`AUTO_SECONDS` after them, means ``Line`` for the rest of the stream;
    otherwise they are a message of ``Chunk``, which holds until a read ends with LF: that read and all that
    follows is ``Line``. First bytes that filled a segment have :data:`SEGMENT_SECONDS`. More than a message
    may have is a line as well, and will be refused. (The server takes out the negotiation of a telnet client:
    :mod:`chat_gevent.telnet`.)

    Time is the caller's business: it asks :meth:`seconds` how long to wait, :meth:`decide` at each read, and
    takes :data:`UNDECIDED` when the time is over. A caller that does not wait at all may use ``split`` and
    ``finish``, which take the stream for lines.
    """

    __slots__ = ()
    name = "auto"

    def seconds(self, kept: Kept) -> float:
        """How long after the first bytes, all of which are in ``kept``, an LF may still come."""
        return SEGMENT_SECONDS if len(kept) >= SEGMENT_BYTES else AUTO_SECONDS

    def decide(self, kept: Kept, limit: int) -> Line | None:
        """What the first bytes say, or None where only time can tell."""
        return LINE if b"\n" in kept or len(kept) > limit else None

    def split(self, kept: Kept, data: Kept, limit: int = MAX_MESSAGE_BYTES) -> tuple[list[bytes], Kept]:
        """As :meth:`Line.split`."""
        return LINE.split(kept, data, limit)

    def finish(self, kept: Kept, limit: int = MAX_MESSAGE_BYTES) -> list[bytes]:
        """As :meth:`Line.finish`."""
        return LINE.finish(kept, limit)

    def encode(self, message: bytes) -> bytes:
        """``message`` as it is: nothing is known of who reads it."""
        return message


class Delimiter(_Plain):
    """Messages end with ``end``, a byte string of one or more bytes. Raises ValueError."""

    __slots__ = ("end",)
    name = "delimiter"

    def __init__(self, end: bytes) -> None:
        if not isinstance(end, bytes) or not end:
            raise ValueError("a delimiter must be one or more bytes")
        self.end = end

    def _parameters(self) -> tuple[Any, ...]:
        return (self.end,)

    def split(self, kept: Kept, data: Kept, limit: int = MAX_MESSAGE_BYTES) -> tuple[list[bytes], Kept]:
        """Split at the delimiter; what is kept may end in a part of it. Raises MessageTooLong."""
        end = self.end
        overlap = len(end) - 1
        seam = bytes(kept[-overlap:]) if overlap else b""
        if end not in data and (not overlap or end not in seam + data[:overlap]):
            if len(kept) + len(data) - overlap > limit:
                raise MessageTooLong(limit, [])
            return [], grow(kept, data)
        messages = (bytes(kept) + data).split(end)
        rest = messages.pop()
        for index, message in enumerate(messages):
            if len(message) > limit:
                raise MessageTooLong(limit, messages[:index])
        if len(rest) - overlap > limit:
            raise MessageTooLong(limit, messages)
        return messages, rest

    def finish(self, kept: Kept, limit: int = MAX_MESSAGE_BYTES) -> list[bytes]:
        """Bytes that no delimiter closed are a last message."""
        return _last(kept, limit)

    def encode(self, message: bytes) -> bytes:
        """``message`` and the delimiter."""
        return message + self.end


class LengthPrefix(_Plain):
    """A message follows a count of its bytes, which takes ``size`` bytes: 1, 2, 4 or 8.

    :param order: of the bytes of the count, ``big`` (the most significant one first) or ``little``.
    :param inclusive: whether the count counts its own bytes too.

    Raises ValueError.
    """

    __slots__ = ("inclusive", "order", "size")
    name = "length"

    def __init__(
        self, size: int = 4, order: Literal["big", "little"] = "big", *, inclusive: bool = False
    ) -> None:
        if size not in (1, 2, 4, 8):
            raise ValueError("a length prefix has 1, 2, 4 or 8 bytes")
        if order not in ("big", "little"):
            raise ValueError("the order of a length prefix is big or little")
        self.size = size
        self.order: Literal["big", "little"] = order
        self.inclusive = inclusive

    def _parameters(self) -> tuple[Any, ...]:
        return self.size, self.order, self.inclusive

    def __repr__(self) -> str:
        return f"LengthPrefix({self.size}, {self.order!r}, inclusive={self.inclusive})"

    def split(self, kept: Kept, data: Kept, limit: int = MAX_MESSAGE_BYTES) -> tuple[list[bytes], Kept]:
        """Take whole messages. Raises MessageTooLong as soon as the count is known, or BadCount."""
        size, order = self.size, self.order
        extra = size if self.inclusive else 0
        if len(kept) >= size:
            length = int.from_bytes(kept[:size], order) - extra
            if len(kept) + len(data) < size + length:  # it grows, and nothing has to be looked at
                return [], grow(kept, data)
        data = bytes(kept) + data if kept else bytes(data)
        messages: list[bytes] = []
        start = 0
        while len(data) - start >= size:
            length = int.from_bytes(data[start : start + size], order) - extra
            if length < 0:
                raise BadCount(limit, messages)
            if length > limit:
                raise MessageTooLong(limit, messages)
            end = start + size + length
            if end > len(data):
                break
            messages.append(data[start + size : end])
            start = end
        return messages, data[start:]

    def finish(self, kept: Kept, limit: int = MAX_MESSAGE_BYTES) -> list[bytes]:
        """A message that was cut off is none."""
        return []

    def encode(self, message: bytes) -> bytes:
        """The count and ``message``. Raises OverflowError: it is longer than the count can say."""
        length = len(message) + (self.size if self.inclusive else 0)
        return length.to_bytes(self.size, self.order) + message


LINE: Final = Line()
CHUNK: Final = Chunk()
AUTO: Final = Auto()
UNDECIDED: Final = Chunk(until_lf=True)
"""What :class:`Auto` is when its time is over without an LF."""

BY_NAME: Final[dict[str, Line | Chunk | Auto]] = {each.name: each for each in (LINE, CHUNK, AUTO)}
"""The framings that a setting can name."""


def grow(kept: Kept, data: Kept) -> Kept:
    """``kept`` and ``data``, in place where that is possible.

    A copy for each piece would make a long message cost the square of its length.
    """
    if not kept:
        return bytes(data)
    if not isinstance(kept, bytearray):
        kept = bytearray(kept)
    kept += data
    return kept


def _last(kept: Kept, limit: int) -> list[bytes]:
    if len(kept) > limit:  # by a CR, or a part of a delimiter, which the rest of it would have made its own
        raise MessageTooLong(limit, [])
    return [bytes(kept)] if kept else []
