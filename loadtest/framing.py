"""Framings of a client: what is put around a message that is sent, and where a reply ends. Sans-I/O.

The protocol is that of :mod:`chat_gevent.framing`, whose ``Line``, ``Chunk``, ``Auto``, ``Delimiter`` and
``LengthPrefix`` are exported here as they are. A framing has no state of its own, so that all clients of a
process share one: what it kept of an unfinished reply is handed back to it with the bytes that came next.
That is ``b""`` at first, and false whenever nothing is unfinished; the rest is the framing's own affair.
Those of servers that say where a reply ends in other ways are in :mod:`loadtest.replies` and
:mod:`loadtest.counted`:

====================== ====================================================================================
``Raw()``              nothing marks an end: a reply is what one read returned, or as long as was expected
``Lines(last=...)``    several lines, the last of which matches a regular expression (SMTP, FTP)
``Several(each, ...)`` several messages of another framing, the last of which matches (PostgreSQL)
``Dot()``              lines that end with one that is a dot (POP3, NNTP)
``Counted(...)``       a count of the bytes after the first few, which belong to the message (PostgreSQL)
``Varint(...)``        the same with a count in groups of 7 bits (MQTT, protobuf)
``TextLength(...)``    a line that says in text how many bytes follow it (memcached, beanstalkd, NATS)
``Resp()``             values of Redis
``UntilClose()``       everything until the end of the stream (whois, HTTP/1.0, FTP's data)
====================== ====================================================================================
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from chat_gevent.framing import (
    Auto,
    Chunk,
    Delimiter,
    FramingError,
    LengthPrefix,
    Line,
    MessageTooLong,
)
from chat_gevent.framing_names import parse
from loadtest.counted import Counted, Varint
from loadtest.replies import Dot, Lines, Raw, Resp, Several, TextLength, UntilClose

__all__ = [
    "Auto",
    "Chunk",
    "Counted",
    "Delimiter",
    "Dot",
    "FramingError",
    "LengthPrefix",
    "Line",
    "Lines",
    "MessageTooLong",
    "Raw",
    "Resp",
    "Several",
    "TextLength",
    "UntilClose",
    "Varint",
    "Wire",
]

MAX_REPLY_BYTES: Final = 16 * 2**20
"""Default bound of one reply, in bytes: a server that never ends one may not eat the generator's memory."""


class ReplyFraming(Protocol):
    """What a client needs of a framing: :class:`chat_gevent.framing.Framing`, whatever it keeps."""

    @property
    def name(self) -> str:
        """What people call it."""

    def encode(self, message: bytes, /) -> bytes:
        """The bytes to send for ``message``. Raises ValueError or OverflowError where it can't carry it."""

    def split(self, kept: Any, data: bytes, limit: int, /) -> tuple[list[bytes], Any]:
        """The replies that ``data`` completes, and what is kept of an unfinished one. Raises FramingError."""

    def finish(self, kept: Any, limit: int, /) -> list[bytes]:
        """What the end of the stream makes of what was kept."""


class Wire(bytes):
    """Bytes that are sent as they are, without the connection's framing: ``client.request(Wire(b"..."))``."""


def marks_ends(framing: ReplyFraming) -> bool:
    """Whether a reply's end can be told from its bytes, or from the end of the stream."""
    return not isinstance(framing, Chunk | Raw)


def ends_with_stream(framing: ReplyFraming) -> bool:
    """Whether the end of the stream is the proper end of a reply."""
    return isinstance(framing, UntilClose)


def one_message(framing: ReplyFraming, wire: bytes) -> bytes:
    """The message that ``framing.encode`` made ``wire`` of. Raises ValueError: it is not one message."""
    if not wire:
        raise ValueError("an empty message can't be sent without a framing")
    if not marks_ends(framing):
        return wire
    messages, kept = framing.split(b"", wire, len(wire))
    if len(messages) != 1 or kept:
        raise ValueError("the message contains its own delimiter: it would be taken for several")
    return messages[0]


def parse_framing(text: str) -> ReplyFraming:
    """What a person wrote, by :func:`chat_gevent.framing_names.parse`; not ``auto``, which only a server has.

    Raises ValueError with a sentence for a person.
    """
    if text == "auto":
        raise ValueError("framing auto: a load test must know how replies end; a server with auto takes line")
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"framing {text}: {error}") from None
