"""Bytes to messages: where one message of a stream ends and the next begins.

A stream has no message boundaries. Three framings give it some:

``line``
    a message is the bytes up to LF; one CR before the LF is dropped. A reply ends with LF.
``chunk``
    a message is what one read of at most :data:`CHUNK_BYTES` returned; an unfinished UTF-8
    character at its end waits for the next read. A reply ends with nothing. This is what a client
    without terminators expects (``send`` a text, ``recv(1024)`` its confirmation).
``auto``
    undecided until the first bytes are in: an LF in them, or within :data:`AUTO_SECONDS` after
    them, means ``line`` for the rest of the connection, anything else ``chunk``. More than one
    message may have is ``line`` as well, and is refused.

How it works: each ``split_*`` is a pure function of the bytes that were left over and the bytes
that came in. It returns the complete messages and the new left-over, so a connection needs to keep
one ``bytes`` and no decoder object. Nothing here knows a socket, a clock, gevent or a log; the
decoder classes at the end only keep the left-over for callers who read a stream of their own.
"""

from __future__ import annotations

from codecs import utf_8_decode
from enum import Enum
from typing import Final

CHUNK_BYTES: Final = 1024
"""Most bytes that one ``chunk`` message is read from: the ``recv(1024)`` of the first clients."""

AUTO_SECONDS: Final = 0.1
"""How long ``auto`` waits for an LF after the first bytes, in seconds."""

MAX_MESSAGE_BYTES: Final = 65_536
"""Default bound of one message without its terminator, in bytes."""


class Framing(Enum):
    """How messages are told apart on one connection; see the module's docstring."""

    LINE = "line"
    CHUNK = "chunk"
    AUTO = "auto"

    @property
    def terminator(self) -> bytes:
        """What ends a reply under this framing: LF for ``line``, else nothing."""
        return b"\n" if self is Framing.LINE else b""


class MessageTooLong(ValueError):
    """A message exceeds the bound; the stream can't be read on, because its next start is unknown.

    ``complete`` holds the messages that were whole before it: they are still to be answered.
    """

    def __init__(self, limit: int, complete: list[bytes]) -> None:
        super().__init__(f"a message is limited to {limit} bytes")
        self.limit = limit
        self.complete = complete


def split_lines(
    left_over: bytes, data: bytes | bytearray, limit: int = MAX_MESSAGE_BYTES
) -> tuple[list[bytes], bytes]:
    """Split ``left_over + data`` at LF; returns the messages (no terminators) and the new left-over.

    A left-over is an unfinished line of at most ``limit`` bytes (one more when it ends in CR, which
    may yet turn out to belong to the terminator).

    Raises MessageTooLong: a line, finished or not, has more than ``limit`` bytes.
    """
    lines = (left_over + data).split(b"\n")
    rest = lines.pop()
    for index, line in enumerate(lines):
        if line.endswith(b"\r"):
            lines[index] = line = line[:-1]
        if len(line) > limit:
            raise MessageTooLong(limit, lines[:index])
    if len(rest) - rest.endswith(b"\r") > limit:
        raise MessageTooLong(limit, lines)
    return lines, rest


def split_chunk(
    left_over: bytes, data: bytes | bytearray, size: int = CHUNK_BYTES
) -> tuple[list[bytes], bytes]:
    """Cut what was read into messages of ``size`` bytes of input at most.

    ``data`` is usually one read of at most ``size`` bytes and gives one message; longer data (what
    ``auto`` had gathered before it decided) gives several. The new left-over is an unfinished UTF-8
    character, 0 to 3 bytes.
    """
    messages = []
    for start in range(0, len(data), size):
        piece = left_over + data[start : start + size]
        whole = len(piece) - unfinished_character(piece)
        if whole:
            messages.append(piece[:whole])
        left_over = piece[whole:]
    return messages, left_over


def unfinished_character(data: bytes) -> int:
    """How many bytes at the end of ``data`` begin a UTF-8 character that more bytes could finish: 0 to 3."""
    for back in range(1, min(3, len(data)) + 1):
        if data[-back] & 0xC0 != 0x80:  # not a continuation byte: the last character starts here
            try:
                decoded = utf_8_decode(data[-back:], "strict", False)[1]
            except UnicodeDecodeError:
                return 0
            if data[-back:].startswith(b"\xed") and back > 1 and data[1 - back] >= 0xA0:
                return 0  # a surrogate, which no byte can finish; the codec finds out one byte later
            return 0 if decoded else back
    return 0


class LineDecoder:
    """Keeps the left-over of a ``line`` stream: feed it whatever was read, take whole messages."""

    framing = Framing.LINE

    def __init__(self, limit: int = MAX_MESSAGE_BYTES) -> None:
        self.limit = limit
        self._left_over = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that ``data`` completes, in order. Raises MessageTooLong."""
        messages, self._left_over = split_lines(self._left_over, data, self.limit)
        return messages

    def finish(self) -> list[bytes]:
        """End of stream: the bytes that no terminator closed are a last message, if there are any."""
        last, self._left_over = self._left_over, b""
        return [last] if last else []


class ChunkDecoder:
    """Keeps the unfinished character of a ``chunk`` stream; the same methods as :class:`LineDecoder`."""

    framing = Framing.CHUNK

    def __init__(self, size: int = CHUNK_BYTES) -> None:
        self.size = size
        self._left_over = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that ``data``, one read, makes."""
        messages, self._left_over = split_chunk(self._left_over, data, self.size)
        return messages

    def finish(self) -> list[bytes]:
        """End of stream: an unfinished character is a last message, which is not UTF-8."""
        last, self._left_over = self._left_over, b""
        return [last] if last else []
