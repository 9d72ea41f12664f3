"""A client's bytes, in any reads, mean what the protocol in ``tests.protocol`` says they mean.

Beyond that: the short way gives the bytes of the long one, a client that is not ``chunk``'s gets the same
replies however its bytes were split, and what is kept between reads is never more than a message may have.
"""

from __future__ import annotations

from typing import Final

from chat_gevent.confirm import CONFIRMED, whole
from chat_gevent.conversation import Control, Ending, Invalid, Rules, end, join, read, time_is_up
from chat_gevent.framing import AUTO, CHUNK, LINE, Auto, Delimiter, Framing, Kept, LengthPrefix, Line
from tests.faults.fuzz.choices import Choices
from tests.protocol import Expected, Refused, expect, without_telnet

KINDS: Final[tuple[tuple[str | bytes | int, Framing], ...]] = (
    ("line", LINE),
    ("auto", AUTO),
    ("chunk", CHUNK),
    (b"abab", Delimiter(b"abab")),
    (1, LengthPrefix(1)),
    (4, LengthPrefix(4)),
)
LIMITS: Final = (40, 4, 8, 65_536)
WORDS: Final = ("/exit", None, "A", "straße", "Σας")
SLACK: Final = 16
"""Most bytes that are kept beyond a message of the limit: a CR, a count, a delimiter's or command's begin."""


def check(data: bytes) -> None:
    """Raise AssertionError where the library and the protocol differ."""
    chosen = Choices(data)
    name, framing = chosen.of(KINDS)
    flags = chosen.byte()
    limit, word = chosen.of(LIMITS), chosen.of(WORDS)
    waits = chosen.byte()
    pieces = chosen.pieces()
    stream = b"".join(pieces)
    telnet = name == "auto" and stream.startswith(b"\xff")
    rules = Rules(limit, bool(flags & 1 == 0) or telnet, word)
    reads: list[bytes | None] = list(pieces)
    if name == "auto" and waits & 1 and reads:
        reads.insert(1 + (waits >> 1) % len(reads), None)
    found, sent, taken = converse(framing, reads, rules)
    expected = expect(name, reads, limit, rules.text, word)
    assert found == expected, f"{framing} {rules.limit} {word} {reads}: {found}, and not {expected}"
    if telnet:
        known = b"".join(each or b"" for each in reads[:taken])
        assert without_telnet(known)[1].startswith(sent) or found[1] is not None, (reads, sent)
    if name not in ("chunk", "auto"):
        again, _, _ = converse(framing, [stream], rules)
        assert again == found, f"{framing} {reads}: {found}, and {again} in one read"
    if type(framing) is Line and word == "/exit" and rules.text:
        _short_way(stream, limit, rules)


def converse(framing: Framing, reads: list[bytes | None], rules: Rules) -> tuple[Expected, bytes, int]:
    """What the library makes of ``reads``: what was said, what is sent as it is, how many reads it took."""
    said: list[str | bytes | Refused] = []
    sent = b""
    kept: Kept = b""
    ending: Ending | None = None
    taken = 0
    for data in [*reads, b""]:
        taken += 1
        if data is None:
            if type(framing) is not Auto:
                continue
            framing, events, ending, kept = time_is_up(kept, rules)
        elif data:
            framing, events, ending, kept = read(framing, kept, data, rules)
        else:
            framing, events, ending = end(framing, kept, rules)
        assert len(kept) <= rules.limit + SLACK, f"{len(kept)} bytes are kept of {rules.limit} allowed"
        for event in events:
            if isinstance(event, Control):
                sent += event.data
            else:
                said.append(Refused(event.explanation) if isinstance(event, Invalid) else event)
        if ending is not None:
            break
    return (said, ending.value if ending else None), sent, taken


def _short_way(stream: bytes, limit: int, rules: Rules) -> None:
    """Where the short way answers a read, it answers as the long one does."""
    short = whole(b"", stream, limit)
    if short is None:
        return
    _, events, ending, kept = read(LINE, b"", stream, rules)
    assert ending is None
    long = join(LINE, [CONFIRMED + event for event in events if isinstance(event, str)])
    assert short == (long, kept, len(events)), f"{stream!r}: {short}"
