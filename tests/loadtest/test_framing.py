"""A client's framings: whole, byte by byte, at every split, and beyond their bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.errors import FramingBroken
from loadtest.framing import Chunk, Delimiter, Framing, LengthPrefix, Line, parse_framing

BOUNDED: list[Framing] = [
    Line(),
    Delimiter(b"\r\n"),
    Delimiter(b"\0"),
    LengthPrefix(4),
    LengthPrefix(2, "little"),
    LengthPrefix(4, inclusive=True),
]
MESSAGES = st.lists(st.binary(max_size=50).map(lambda data: data.translate(None, b"\r\n\0")), max_size=5)


def feed(framing: Framing, pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    """All replies in a stream that arrives in pieces, and what is left over."""
    replies: list[bytes] = []
    rest = b""
    for piece in pieces:
        found, rest = framing.split(rest + piece)
        replies += found
    return replies, rest


@pytest.mark.parametrize("framing", BOUNDED, ids=lambda framing: type(framing).__name__)
@given(messages=MESSAGES, data=st.data())
def test_replies_are_the_same_however_the_reads_cut_the_stream(
    framing: Framing, messages: list[bytes], data: st.DataObject
) -> None:
    """What was encoded comes back whole: in one read, byte by byte, and cut at any two places."""
    stream = b"".join(framing.encode(message) for message in messages)
    cuts = sorted(data.draw(st.tuples(*[st.integers(0, len(stream))] * 2)))
    pieces = [stream[: cuts[0]], stream[cuts[0] : cuts[1]], stream[cuts[1] :]]
    assert feed(framing, [stream]) == (messages, b"")
    assert feed(framing, pieces) == (messages, b"")
    assert feed(framing, [stream[i : i + 1] for i in range(len(stream))]) == (messages, b"")


def test_a_line_loses_one_carriage_return_only() -> None:
    """CR LF ends a line as LF does; a CR elsewhere is content."""
    assert Line().split(b"a\r\nb\r\r\nc\rd\nrest") == ([b"a", b"b\r", b"c\rd"], b"rest")


@pytest.mark.parametrize(
    ("framing", "data"),
    [
        (Line(limit=10), b"x" * 11),
        (Delimiter(b"||", limit=10), b"x" * 11),
        (LengthPrefix(4, limit=10), b"\0\0\0\x0b"),
        (LengthPrefix(4, inclusive=True), b"\0\0\0\x03"),
    ],
)
def test_a_reply_beyond_the_bound_breaks_the_framing(framing: Framing, data: bytes) -> None:
    """A server that never ends a reply, or announces nonsense, is an error and no endless buffer."""
    with pytest.raises(FramingBroken):
        framing.split(data)


@pytest.mark.parametrize(
    ("framing", "message"),
    [(Line(), b"a\nb"), (Delimiter(b"||"), b"a||b"), (LengthPrefix(1), b"x" * 256), (Chunk(), b"")],
)
def test_a_message_that_the_framing_cannot_carry_is_refused(framing: Framing, message: bytes) -> None:
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
