"""Every framing gives the same messages however a stream is split, and takes back what it encodes.

No exception but FramingError leaves ``split`` and ``finish``, and ValueError or OverflowError ``encode``; no
message and nothing that is kept is longer than the limit allows.
"""

from __future__ import annotations

from typing import Any, Final

from chat_gevent.framing import AUTO, LINE, Chunk, Delimiter, FramingError, LengthPrefix
from chat_gevent.telnet import TELNET
from loadtest.counted import Counted, Varint
from loadtest.replies import Dot, Lines, Raw, Resp, Several, TextLength, UntilClose
from tests.faults.fuzz.choices import Choices

FRAMINGS: Final[tuple[Any, ...]] = (
    LINE,
    AUTO,
    Chunk(),
    Chunk(7),
    Delimiter(b"\0"),
    Delimiter(b"\r\n"),
    Delimiter(b"abab"),
    LengthPrefix(1),
    LengthPrefix(2, "little"),
    LengthPrefix(4, inclusive=True),
    LengthPrefix(8),
    TELNET,
    Raw(),
    UntilClose(),
    Lines(rb"\d{3}( |$)"),
    Dot(),
    TextLength(rb"VALUE \S+ \d+ (\d+)", more=True),
    TextLength(rb"[A-Z]+ .*?(\d+)\r?$"),
    Resp(),
    Counted(head=1, inclusive=True),
    Counted(head=0, size=2, order="little"),
    Varint(head=1),
    Varint(),
    Several(Counted(head=1, inclusive=True), b"Z"),
)
LIMITS: Final = (64, 5, 1000, 2**24)
BY_READ: Final = (Chunk, Raw)
"""Those in which each read is a message."""
SLACK: Final = 24
"""Most bytes that are kept beyond the limit: a count or a mark, which is not part of a message."""


def check(data: bytes) -> None:
    """Raise AssertionError where a framing breaks a promise."""
    chosen = Choices(data)
    framing = chosen.of(FRAMINGS)
    limit = chosen.of(LIMITS)
    pieces = chosen.pieces()
    stream = b"".join(pieces)
    parts = split(framing, pieces, limit)
    if not isinstance(framing, BY_READ):
        whole = split(framing, [stream], limit)
        assert parts == whole, f"{framing} limit {limit} {pieces}: {parts}, and {whole} in one read"
    else:
        assert b"".join(parts[0]) == stream, f"{framing} {pieces}: {parts}"
    round_trip(framing, stream)


def split(framing: Any, pieces: list[bytes], limit: int) -> tuple[list[bytes], bool]:
    """The messages of a stream, with its end, and whether it was refused."""
    messages: list[bytes] = []
    kept: Any = b""
    try:
        for piece in pieces:
            found, kept = framing.split(kept, piece, limit)
            messages += found
            assert size(kept) <= _most_kept(framing, limit), f"{framing} keeps {size(kept)} of {limit}"
        messages += framing.finish(kept, limit)
    except FramingError as error:
        messages += error.complete
        return _bounded(framing, messages, limit), True
    return _bounded(framing, messages, limit), False


def size(kept: Any) -> int:
    """The bytes that are kept."""
    if isinstance(kept, tuple):  # of ``Several``
        return int(kept[1]) + size(kept[2])
    return len(kept)


def round_trip(framing: Any, message: bytes) -> None:
    """What ``encode`` makes of a message is read as that message, where the framing can carry it."""
    try:
        wire = framing.encode(message)
    except (ValueError, OverflowError):
        return
    if isinstance(framing, BY_READ):
        assert wire == message
        return
    expected = _carried(framing, message)
    if expected is not None:
        found = split(framing, [wire], 2**24)
        assert found == ([expected], False), f"{framing}: {message!r} became {found}"


def _carried(framing: Any, message: bytes) -> bytes | None:
    """What a receiver is to read of ``message``; None where the framing can't carry it as it is."""
    match framing:
        case LengthPrefix() | Counted():
            return message
        case Delimiter(end=end):
            return message if (message + end).find(end) == len(message) else None
        case UntilClose():
            return message
        case Dot():
            lines = message.splitlines()
            return b"\r\n".join(lines) if not lines or not framing.single.match(lines[0]) else None
        case Resp():
            return framing.command(*message.split())[:-2] if not message.startswith(b"*") else None
        case _ if framing == LINE:
            return None if b"\n" in message or message.endswith(b"\r") else message
    return None


def _most_kept(framing: Any, limit: int) -> int:
    return (2 if isinstance(framing, Several) else 1) * limit + SLACK


def _bounded(framing: Any, messages: list[bytes], limit: int) -> list[bytes]:
    if not isinstance(framing, Raw):
        longest = max(map(len, messages), default=0)
        allowed = limit + 3 if isinstance(framing, Chunk) else limit  # by the beginning of a character
        assert longest <= allowed, f"{framing}: a message of {longest} bytes, {limit} are allowed"
    return messages
