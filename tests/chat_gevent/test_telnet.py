"""Telnet's commands among the text: taken out and refused, wherever a stream is cut."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from chat_gevent.framing import Kept, MessageTooLong
from chat_gevent.telnet import TELNET
from tests.protocol import without_telnet

WILL_ECHO, DONT_ECHO = b"\xff\xfb\x01", b"\xff\xfe\x01"
DO_NAOCRD, WONT_NAOCRD = b"\xff\xfd\n", b"\xff\xfc\n"  # an option whose number is that of LF
TERMINAL = b"\xff\xfa\x18\0xterm\n\xff\xff\xf0\xff\xfb\x05\r\n\xff\xf0"  # all of it is one subnegotiation

STREAMS = {
    "at the start": (WILL_ECHO + DO_NAOCRD + b"hello\r\n", [b"hello"], DONT_ECHO + WONT_NAOCRD),
    "in the middle": (b"he" + WILL_ECHO + b"llo\r" + DO_NAOCRD + b"\n", [b"hello"], DONT_ECHO + WONT_NAOCRD),
    "before the end": (b"hello" + WILL_ECHO, [b"hello"], DONT_ECHO),
    "subnegotiation": (TERMINAL + b"a\n" + TERMINAL + b"b" + TERMINAL + b"\n", [b"a", b"b"], b""),
    "what needs no answer": (b"a\xff\xfc\x01\xff\xfe\x03\xff\xf1\xff\xf6b\n", [b"ab"], b""),
    "a data byte of 255": (b"a\xff\xffb\n\xff\xff", [b"a\xfeb", b"\xfe"], b""),
    "asked twice": (WILL_ECHO + b"a\n" + WILL_ECHO, [b"a"], DONT_ECHO * 2),
    "cut off": (b"a\n\xff\xfb", [b"a"], b""),
    "cut off behind text": (b"a\nb\xff\xfa\x18\nx", [b"a", b"b"], b""),
    "only IAC": (b"\xff", [], b""),
    "empty lines": (b"\n" + WILL_ECHO + b"\r\n\n", [b"", b"", b""], DONT_ECHO),
}


def talk(pieces: list[bytes], limit: int = 100) -> tuple[list[bytes], bytes, bool]:
    """Messages and answers of a stream that comes in ``pieces``, and whether it became too long."""
    kept: Kept = b""
    found: list[bytes] = []
    answer = b""
    try:
        for piece in pieces:
            answer += TELNET.answer(kept, piece)
            messages, kept = TELNET.split(kept, piece, limit)
            found += messages
        return found + TELNET.finish(kept, limit), answer, False
    except MessageTooLong as error:
        return found + error.complete, answer, True


@pytest.mark.parametrize("case", STREAMS)
def test_commands_are_taken_out_and_options_refused(case: str) -> None:
    """What is between the commands is text; WILL and DO are refused once each. No cut changes either."""
    stream, messages, answer = STREAMS[case]
    assert talk([stream]) == (messages, answer, False)
    assert talk([stream[place : place + 1] for place in range(len(stream))]) == (messages, answer, False)
    for a in range(len(stream)):
        for b in range(a, len(stream)):
            assert talk([stream[:a], stream[a:b], stream[b:]]) == (messages, answer, False), (a, b)


def expected(stream: bytes, limit: int) -> tuple[list[bytes], bool]:
    """What is in a stream that has ended."""
    *lines, rest = without_telnet(stream)[0].replace(b"\xff", b"\xfe").split(b"\n")
    lines = [line.removesuffix(b"\r") for line in lines] + [rest] * bool(rest)
    good = next((place for place, line in enumerate(lines) if len(line) > limit), len(lines))
    return lines[:good], good < len(lines)


def test_random_streams() -> None:
    """Any bytes that telnet cares for, cut anywhere, give what the model says."""
    chosen = random.Random(854)
    alphabet = [
        *(bytes((byte,)) for byte in (255, 255, 250, 240, 251, 252, 253, 254, 241, 1)),
        b"a",
        b"\r",
        b"\n",
    ]
    for _ in range(20_000):
        stream = b"".join(chosen.choices(alphabet, k=chosen.randrange(24)))
        limit = chosen.choice((3, 100))
        places = sorted(
            {0, len(stream), *(chosen.randrange(len(stream) + 1) for _ in range(chosen.randrange(6)))}
        )
        messages, answer, too_long = talk([stream[a:b] for a, b in pairwise(places)], limit)
        assert (messages, too_long) == expected(stream, limit), (stream, places, limit)
        if not too_long:
            assert answer == without_telnet(stream)[1], (stream, places)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_the_bound_counts_no_command(end: bytes) -> None:
    """A line of exactly the bound is taken however many commands are in it, complete or begun."""
    assert talk([b"x" * 4, WILL_ECHO * 9, b"x" * 4 + end], 8) == ([b"x" * 8], DONT_ECHO * 9, False)
    assert talk([b"x" * 8, b"\xff", b"\xfb", b"\1", end], 8) == ([b"x" * 8], DONT_ECHO, False)
    assert talk([b"x" * 8 + end[:-1], b"\xff", b"\xf1" + end[-1:]], 8) == ([b"x" * 8], b"", False)
    assert talk([b"x" * 8, b"\xff\xf1x"], 8)[2]


def test_nothing_is_kept_of_a_long_subnegotiation() -> None:
    """One without end takes no memory, and none of it is a line."""
    kept: Kept = b"text"
    for piece in (b"\xff", b"\xfa", b"\x18", *[b"\n" * 1000] * 3, b"\xff", b"\xff", b"\xff"):
        messages, kept = TELNET.split(kept, piece, 100)
        assert messages == []
        assert len(kept) <= len(b"text") + 3
    assert TELNET.split(kept, b"\xf0 goes on\n", 100) == ([b"text goes on"], b"")


def test_an_unfinished_line_grows_in_place() -> None:
    """A long line in many pieces costs time in proportion to its length: it is not copied for each."""
    kept: Kept = TELNET.split(TELNET.split(b"", b"x", 9000)[1], b"x", 9000)[1]
    for _ in range(100):
        assert TELNET.split(kept, b"x", 9000)[1] is kept
        assert TELNET.split(kept, WILL_ECHO + b"x", 9000)[1] is kept
    assert kept == b"x" * 202
