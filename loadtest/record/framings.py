"""Which framing fits the requests of a recording, and which the replies.

A guess is tried with the very framing that the locustfile will name: its ``split`` is given each turn, and it
fits where a turn leaves nothing unfinished. The server's turns say more than that: a framing that finds
exactly one reply for each request is better than one that merely finds ends, so those are looked for first,
and the more particular ones before the general ones: ``Lines`` before ``Line``, since any of its replies
are also lines.

Where nothing fits, the framing is ``Raw()``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from loadtest.framing import (
    Counted,
    Delimiter,
    Dot,
    LengthPrefix,
    Line,
    Lines,
    Raw,
    Resp,
    TextLength,
    UntilClose,
    Varint,
)
from loadtest.record.turns import Turn

LIMIT: Final = 2**24
"""Most bytes of one message that is looked for."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A framing and the Python text that makes it."""

    text: str
    framing: Any

    def split(self, data: bytes) -> list[bytes] | None:
        """The messages that ``data`` consists of, or None where that is not a whole number of messages."""
        try:
            messages, kept = self.framing.split(b"", data, LIMIT)
        except ValueError:
            return None
        return list(messages) if not kept else None

    def cut(self, data: bytes) -> list[bytes] | None:
        """``data`` cut into its messages, each as it stands on the wire; None as :meth:`split`.

        No framing says how many bytes a message took, so it is read again in pieces: line by line, or byte
        by byte where messages end within lines.
        """
        messages = self.split(data)
        if messages is None or len(messages) < 2:
            return None if messages is None else [data]
        wires = self._cut(data, re.findall(rb"[^\n]*\n|[^\n]+", data))
        return wires if len(wires) == len(messages) else self._cut(data, [bytes([each]) for each in data])

    def _cut(self, data: bytes, pieces: Sequence[bytes]) -> list[bytes]:
        wires, kept, start, end = [], b"", 0, 0
        for piece in pieces:
            end += len(piece)
            found, kept = self.framing.split(kept, piece, LIMIT)
            if found:
                wires.append(data[start:end])
                start = end
        return wires

    def message_of(self, wire: bytes) -> bytes | None:
        """The message that ``encode`` makes ``wire`` of, or None where there is none."""
        whole = self.split(wire) or []
        for message in (wire, wire.removesuffix(b"\r\n"), wire.removesuffix(b"\n"), *whole[:1]):
            try:
                if self.framing.encode(message) == wire and (not whole or len(whole) == 1):
                    return message
            except (ValueError, OverflowError):
                continue
        return None


def resp_words(wire: bytes) -> list[bytes] | None:
    """The words of a command of Redis, or None where ``wire`` is not one array of strings."""
    words, at = [], wire.find(b"\n") + 1
    while match := re.compile(rb"\$(\d+)\r\n").match(wire, at):
        at = match.end() + int(match[1]) + 2
        words.append(wire[match.end() : at - 2])
    return words if Resp.command(*words) == wire else None


def candidate(kind: type, *values: object, **named: object) -> Candidate:
    """``kind(*values, **named)`` with its text."""
    words = [raw(each) for each in values] + [f"{name}={raw(each)}" for name, each in named.items()]
    return Candidate(f"{kind.__name__}({', '.join(words)})", kind(*values, **named))


def raw(value: object) -> str:
    r"""``value`` as Python text; a byte string with backslashes as ``rb"..."`` where that is possible."""
    if isinstance(value, bytes) and b"\\" in value and value.isascii():
        text = value.decode()
        if text.isprintable() and '"' not in text and not text.endswith("\\"):
            return f'rb"{text}"'
    if isinstance(value, bytes | str):
        text = repr(value)
        quote = text.index("'") if "'" in text else -1
        if text.endswith("'") and 0 <= quote <= 1 and '"' not in text:
            return f'{text[:quote]}"{text[quote + 1 : -1]}"'
        return text
    return repr(value)


RAW: Final = candidate(Raw)
CRLF: Final = candidate(Delimiter, b"\r\n")
LINE: Final = candidate(Line)
NUL: Final = candidate(Delimiter, b"\0")
STATUS: Final = candidate(Lines, last=rb"\d{3}( |\r|$)")
RESP: Final = candidate(Resp)
DOT: Final = candidate(Dot)
UNTIL_CLOSE: Final = candidate(UntilClose)
SIZED: Final = (
    candidate(TextLength, rb"VALUE \S+ \d+ (\d+)", more=True),
    candidate(TextLength, rb"[A-Z]+ .*?(\d+)\r?$"),
)
"""Lines that say how many bytes follow: as memcached does, and as NATS and beanstalkd do."""
COUNTED: Final = (
    *(
        candidate(LengthPrefix, size, order, **({"inclusive": True} if inclusive else {}))
        for size in (4, 2, 8)
        for order in ("big", "little")
        for inclusive in (False, True)
    ),
    candidate(Counted, head=1, inclusive=True),
    candidate(Varint, head=1),
    candidate(LengthPrefix, 1),
    candidate(Varint),
)
TEXT: Final = (STATUS, CRLF, LINE)


@dataclass(frozen=True, slots=True)
class Guess:
    """How requests and replies end."""

    requests: Candidate
    replies: Candidate
    strict: bool
    """Whether each request has exactly one reply."""

    @property
    def lines(self) -> bool:
        """Whether replies are lines of text, of which several may be one reply."""
        return self.replies in TEXT


def guess_framings(conversations: Sequence[Sequence[Turn]]) -> Guess:
    """The framings of a server's conversations, which are all taken for one protocol."""
    asked = [turn.data for turns in conversations for turn in turns if turn.side == "client"]
    answered = [turn.data for turns in conversations for turn in turns if turn.side == "server"]
    if not asked or not answered:
        return Guess(_fits(asked), _fits(answered), False)
    if all(data.startswith(b"*") and RESP.split(data) for data in asked) and _fit(RESP, answered):
        return Guess(RESP, RESP, True)
    requests = _fits(asked)
    pairs = list(_pairs(conversations))
    for each in (*TEXT, *SIZED, NUL, *COUNTED):
        if _fit(each, answered) and _one_each(requests, each, pairs):
            return Guess(requests, each, True)
    return Guess(requests, _fits(answered), False)


def _fit(each: Candidate, turns: Sequence[bytes]) -> bool:
    return all(each.split(turn) for turn in turns)


def _fits(turns: Sequence[bytes]) -> Candidate:
    """The framing that leaves nothing unfinished in any turn, however many messages it finds."""
    for each in (CRLF, LINE, NUL, *COUNTED):
        if turns and _fit(each, turns):
            return each
    return RAW


def split_reply(turn: Turn, replies: Candidate) -> tuple[bytes, list[bytes]]:
    """A server's turn as the reply to what was asked, and what it said after a pause, which nobody asked for.

    A pause within a message separates nothing.
    """
    parts = [part.data for part in turn.parts]
    for count in range(1, len(parts)):
        reply = b"".join(parts[:count])
        later = parts[count:]
        if replies.split(reply) and replies.split(b"".join(later)):
            return reply, later
    return b"".join(parts), []


def _pairs(conversations: Sequence[Sequence[Turn]]) -> list[tuple[Turn, Turn]]:
    """Each client's turn with the server's turn that followed."""
    return [
        (turns[index], turns[index + 1])
        for turns in conversations
        for index in range(len(turns) - 1)
        if turns[index].side == "client"
    ]


def _one_each(requests: Candidate, replies: Candidate, pairs: Sequence[tuple[Turn, Turn]]) -> bool:
    """Whether each client's turn got one reply, or as many as the messages that it has.

    A client that went on after a pause, without a reply, had not waited for one.
    """
    for asked, answered in pairs:
        if len(asked.parts) > 1 and requests.split(asked.parts[0].data):
            return False
        reply, _ = split_reply(answered, replies)
        found = len(replies.split(reply) or [])
        sent = len(requests.split(asked.data) or [b""])
        if found not in (1, sent):
            return False
    return bool(pairs)
