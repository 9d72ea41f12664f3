"""A client's framings: whole, byte by byte, at every split, and beyond their bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_gevent.framing import MessageTooLong
from loadtest.errors import FramingBroken
from loadtest.framing import Chunk, Delimiter, LengthPrefix, Line, ReplyFraming, parse_framing

BOUNDED: list[ReplyFraming] = [
    Line(),
    Delimiter(b"\r\n"),
    Delimiter(b"\0"),
    LengthPrefix(4),
    LengthPrefix(2, "little"),
    LengthPrefix(4, inclusive=True),
]
MESSAGES = st.lists(st.binary(max_size=50).map(lambda data: data.translate(None, b"\r\n\0")), max_size=5)


def feed(framing: ReplyFraming, pieces: list[bytes]) -> tuple[list[bytes], bool]:
    """All replies in a stream that arrives in pieces, and whether one is unfinished at its end."""
    replies: list[bytes] = []
    kept: Any = b""
    for piece in pieces:
        found, kept = framing.split(kept, piece, 1000)
        replies += found
    return replies, bool(kept)


@pytest.mark.parametrize("framing", BOUNDED, ids=lambda framing: type(framing).__name__)
@given(messages=MESSAGES, data=st.data())
def test_replies_are_the_same_however_the_reads_cut_the_stream(
    framing: ReplyFraming, messages: list[bytes], data: st.DataObject
) -> None:
    """What was encoded comes back whole: in one read, byte by byte, and cut at any two places."""
    stream = b"".join(framing.encode(message) for message in messages)
    cuts = sorted(data.draw(st.tuples(*[st.integers(0, len(stream))] * 2)))
    pieces = [stream[: cuts[0]], stream[cuts[0] : cuts[1]], stream[cuts[1] :]]
    assert feed(framing, [stream]) == (messages, False)
    assert feed(framing, pieces) == (messages, False)
    assert feed(framing, [stream[i : i + 1] for i in range(len(stream))]) == (messages, False)


def test_a_line_loses_one_carriage_return_only() -> None:
    """CR LF ends a line as LF does; a CR elsewhere is content."""
    assert Line().split(b"", b"a\r\nb\r\r\nc\rd\nrest") == ([b"a", b"b\r", b"c\rd"], b"rest")


@pytest.mark.parametrize(
    ("framing", "pieces"),
    [
        (Line(), [b"one\n" + b"x" * 11]),
        (Line(), [b"one\n", b"x" * 11 + b"\n"]),
        (Line(), [b"one\n" + b"x" * 6, b"x" * 5]),
        (Delimiter(b"||"), [b"one||" + b"x" * 11]),
        (Delimiter(b"||"), [b"one||" + b"x" * 6, b"x" * 5]),
        (LengthPrefix(4), [b"\0\0\0\x03one\0\0\0\x0b"]),
    ],
)
def test_a_reply_beyond_the_limit_is_refused_and_the_whole_ones_before_it_are_there(
    framing: ReplyFraming, pieces: list[bytes]
) -> None:
    """A server that never ends a reply is an error, as soon as it is seen, and no endless buffer."""
    found: list[bytes] = []
    kept: Any = b""
    for piece in pieces[:-1]:
        replies, kept = framing.split(kept, piece, 10)
        found += replies
    with pytest.raises(MessageTooLong) as caught:
        framing.split(kept, pieces[-1], 10)
    assert found + caught.value.complete == [b"one"]


def test_a_count_below_its_own_size_breaks_the_framing() -> None:
    """What an inclusive prefix can't say."""
    with pytest.raises(FramingBroken):
        LengthPrefix(4, inclusive=True).split(b"", b"\0\0\0\x03")


@pytest.mark.parametrize("framing", [Line(), Delimiter(b"\r\n"), LengthPrefix(4)])
def test_what_the_end_of_the_stream_makes_of_an_unfinished_reply(framing: ReplyFraming) -> None:
    """Bytes that no delimiter closed are a message; of a count that is not reached nothing comes."""
    _, kept = framing.split(b"", framing.encode(b"hello")[:-2], 1000)
    assert framing.finish(kept) == ([] if isinstance(framing, LengthPrefix) else [kept])
    assert framing.finish(b"") == []


@pytest.mark.parametrize("framing", [Line(), Delimiter(b"\r\n"), LengthPrefix(4)])
def test_an_unfinished_reply_is_not_copied_with_each_piece(framing: ReplyFraming) -> None:
    """What is kept grows in place: a reply in many pieces takes time in proportion to its length."""
    wire = framing.encode(b"x" * 100_000)
    _, kept = framing.split(b"", wire[:10], 2**20)
    for start in range(10, 99_000, 1000):
        before = kept
        replies, kept = framing.split(kept, wire[start : start + 1000], 2**20)
        assert (replies, kept is before) == ([], True)


@pytest.mark.parametrize(
    ("framing", "message"),
    [(Line(), b"a\nb"), (Delimiter(b"||"), b"a||b"), (LengthPrefix(1), b"x" * 256), (Chunk(), b"")],
)
def test_a_message_that_the_framing_cannot_carry_is_refused(framing: ReplyFraming, message: bytes) -> None:
    """It would be taken for two messages, or for none."""
    with pytest.raises(ValueError, match=r"delimiter|fit|empty"):
        framing.encode(message)


def test_framings_are_read_as_people_write_them() -> None:
    """The option's four forms, and one line about anything else."""
    assert isinstance(parse_framing("line"), Line)
    assert isinstance(parse_framing("chunk"), Chunk)
    delimiter = parse_framing(r"delimiter:\x1f\0")
    assert isinstance(delimiter, Delimiter)
    assert delimiter.delimiter == b"\x1f\0"
    prefix = parse_framing("length:2le")
    assert isinstance(prefix, LengthPrefix)
    assert (prefix.size, prefix.order) == (2, "little")
    for text in ("lines", "length:", "length:x", "delimiter:", "line:x", "length:9"):
        with pytest.raises(ValueError, match=r"framing|prefix"):
            parse_framing(text)
