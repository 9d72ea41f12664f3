"""Each framing is guessed from what passed, however the bytes were split into reads."""

from __future__ import annotations

import pytest

from loadtest.framing import Delimiter
from loadtest.record.framings import candidate, guess_framings, raw, resp_words
from loadtest.record.turns import turns_of
from tests.loadtest.record.tapes import tape_of

C, S = "C", "S"


def counted(size: int, order: str, *messages: bytes, extra: int = 0) -> bytes:
    """Messages with their length before them."""
    return b"".join((len(each) + extra).to_bytes(size, order) + each for each in messages)  # type: ignore[arg-type]


SESSIONS = {
    "lines": (
        [(C, b"one\n"), (S, b"ok 1\n"), (C, b"two\n"), (S, b"ok 2\n")],
        ("Line()", "Line()", True),
    ),
    "lines with CR LF": (
        [(C, b"one\r\n"), (S, b"ok 1\r\n"), (C, b"two\r\n"), (S, b"ok 2\r\n")],
        (r'Delimiter(b"\r\n")', r'Delimiter(b"\r\n")', True),
    ),
    "replies of several lines, each with a status": (
        [
            (S, b"220 hi\r\n"),
            (C, b"EHLO me\r\n"),
            (S, b"250-a\r\n250-b\r\n250 c\r\n"),
            (C, b"NOOP\r\n"),
            (S, b"250 ok\r\n"),
        ],
        (r'Delimiter(b"\r\n")', r'Lines(last=rb"\d{3}( |\r|$)")', True),
    ),
    "lines of which several may be a reply": (
        [(C, b"LIST\r\n"), (S, b"+OK\r\na\r\nb\r\n.\r\n"), (C, b"NOOP\r\n"), (S, b"+OK\r\n")],
        (r'Delimiter(b"\r\n")', r'Delimiter(b"\r\n")', False),
    ),
    "Redis": (
        [
            (C, b"*1\r\n$4\r\nPING\r\n"),
            (S, b"+PONG\r\n"),
            (C, b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n"),
            (S, b"$3\r\na\r\n\r\n"),
        ],
        ("Resp()", "Resp()", True),
    ),
    "a length of four bytes": (
        [
            (C, counted(4, "big", b"hello")),
            (S, counted(4, "big", b"HELLO")),
            (C, counted(4, "big", b"x" * 300)),
            (S, counted(4, "big", b"y")),
        ],
        ('LengthPrefix(4, "big")', 'LengthPrefix(4, "big")', True),
    ),
    "a length of two bytes, little-endian": (
        [
            (C, counted(2, "little", b"hello")),
            (S, counted(2, "little", b"HELLO" * 100)),
            (C, counted(2, "little", b"x")),
        ],
        ('LengthPrefix(2, "little")', 'LengthPrefix(2, "little")', True),
    ),
    "a length that counts itself": (
        [(C, counted(4, "big", b"hello", extra=4)), (S, counted(4, "big", b"HELLO", extra=4))],
        ('LengthPrefix(4, "big", inclusive=True)', 'LengthPrefix(4, "big", inclusive=True)', True),
    ),
    "lines that say how many bytes follow": (
        [(C, b"get a\r\n"), (S, b"VALUE a 0 4\r\nx\r\ny\r\nEND\r\n"), (C, b"get b\r\n"), (S, b"END\r\n")],
        (r'Delimiter(b"\r\n")', r'TextLength(rb"VALUE \S+ \d+ (\d+)", more=True)', True),
    ),
    "a letter and a length that counts itself": (
        [(C, b"Q" + counted(4, "big", b"select", extra=4)), (S, b"C" + counted(4, "big", b"1", extra=4))],
        ("Counted(head=1, inclusive=True)", "Counted(head=1, inclusive=True)", True),
    ),
    "MQTT": (
        [(C, b"\x10\x0d\0\4MQTT\4\2\0<\0\1a"), (S, b" \2\0\0"), (C, b"\xc0\0"), (S, b"\xd0\0")],
        ("Varint(head=1)", "Varint(head=1)", True),
    ),
    "a zero byte": (
        [(C, b"hello\0"), (S, b"HELLO\0"), (C, b"x\0y\0"), (S, b"X\0Y\0")],
        (r'Delimiter(b"\x00")', r'Delimiter(b"\x00")', True),
    ),
    "nothing that is known": (
        [(C, b"\xff\xfehello"), (S, b"\xff\xfeworld\xff"), (C, b"\xff\x01"), (S, b"\xee")],
        ("Raw()", "Raw()", False),
    ),
}


@pytest.mark.parametrize("seed", [None, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", SESSIONS)
def test_a_framing_is_guessed_wherever_the_bytes_were_split(name: str, seed: int | None) -> None:
    """Requests, replies, and whether each request has one reply."""
    script, expected = SESSIONS[name]
    guess = guess_framings([turns_of(tape_of(*script, seed=seed))])
    assert (guess.requests.text, guess.replies.text, guess.strict) == expected


def test_all_conversations_of_a_server_are_one_protocol() -> None:
    """What only one of them shows counts for all."""
    simple = turns_of(tape_of((C, b"NOOP\r\n"), (S, b"250 ok\r\n")))
    longer = turns_of(tape_of((C, b"LIST\r\n"), (S, b"200 ok\r\na\r\n.\r\n")))
    assert guess_framings([simple]).replies.text == r'Lines(last=rb"\d{3}( |\r|$)")'
    assert guess_framings([simple, longer]).replies.text == r'Delimiter(b"\r\n")'


def test_a_push_after_a_pause_does_not_hide_that_each_request_has_one_reply() -> None:
    """What comes later was not asked for."""
    turns = turns_of(tape_of((C, b"a\n"), (S, b"A\n"), 0.5, (S, b"news\n"), (C, b"b\n"), (S, b"B\n")))
    assert guess_framings([turns]).strict


def test_a_candidate_tells_which_message_becomes_given_bytes() -> None:
    """And that there is none where the framing could not have sent them."""
    crlf = candidate(Delimiter, b"\r\n")
    assert crlf.message_of(b"hello\r\n") == b"hello"
    assert crlf.message_of(b"hello\n") is None
    assert crlf.message_of(b"two\r\nlines\r\n") is None
    assert crlf.cut(b"two\r\nlines\r\n") == [b"two\r\n", b"lines\r\n"]
    assert candidate(Delimiter, b"\0").cut(b"a\nb\0c\0") == [b"a\nb\0", b"c\0"]


@pytest.mark.parametrize(
    "value", [b"a\\d", b'a"b', b"\x00\xff", b"it's", b"\\", 'a"b', "plain", b"\"'", b"\\\n"]
)
def test_text_of_a_value_is_python_for_it(value: bytes | str) -> None:
    """Whatever stands in it."""
    assert eval(raw(value)) == value


def test_the_words_of_a_redis_command() -> None:
    """Whatever is in them; None for anything else."""
    assert resp_words(b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n") == [b"GET", b"a\r\nb"]
    assert resp_words(b"*1\r\n:1\r\n") is None
    assert resp_words(b"PING\r\n") is None
