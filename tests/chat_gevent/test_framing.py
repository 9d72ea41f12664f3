"""Bytes to messages: whatever way a stream is cut, the same messages come out of it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_gevent.framing import (
    ChunkDecoder,
    Framing,
    LineDecoder,
    MessageTooLong,
    split_chunk,
    split_lines,
    unfinished_character,
)

STREAM = b"plain\r\n\n/exit\nzw\xc3\xb6lf \xf0\x9f\x90\x8d\r\nr\ra\r\r\nlast"
MESSAGES = [b"plain", b"", b"/exit", b"zw\xc3\xb6lf \xf0\x9f\x90\x8d", b"r\ra\r", b"last"]

interesting = st.binary(max_size=40) | st.text(alphabet="aé🐍/\r\n", max_size=30).map(str.encode)


def lines_of(pieces: list[bytes], limit: int = 64) -> list[bytes]:
    """What a stream that comes in ``pieces`` contains; a last item of None where it became too long."""
    decoder = LineDecoder(limit)
    return [message for piece in pieces for message in decoder.feed(piece)] + decoder.finish()


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut ``data`` at ``places``."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


# -- line --------------------------------------------------------------------------------------------


def test_lines_of_a_whole_stream() -> None:
    """LF ends a message, one CR before it is dropped, and the end of the stream ends the last."""
    assert lines_of([STREAM]) == MESSAGES


def test_lines_byte_by_byte() -> None:
    """A stream that comes one byte at a time gives the same messages."""
    assert lines_of([STREAM[i : i + 1] for i in range(len(STREAM))]) == MESSAGES


@pytest.mark.parametrize("place", range(len(STREAM) + 1))
def test_lines_of_two_pieces(place: int) -> None:
    """No place to cut a stream in two changes its messages: not inside CR LF, not inside a character."""
    assert lines_of([STREAM[:place], STREAM[place:]]) == MESSAGES


@given(interesting, st.lists(st.integers(0, 200), max_size=8))
def test_lines_of_any_pieces(data: bytes, places: list[int]) -> None:
    """Any stream cut anywhere gives what cutting it at LF in one go gives."""
    *lines, rest = data.split(b"\n")
    expected = [line[:-1] if line.endswith(b"\r") else line for line in lines] + ([rest] if rest else [])
    assert lines_of(cut(data, places)) == expected


def test_messages_come_as_soon_as_they_are_whole() -> None:
    """A message waits for its LF and for nothing else."""
    decoder = LineDecoder()
    assert decoder.feed(b"on") == []
    assert decoder.feed(b"e\ntwo\nth") == [b"one", b"two"]
    assert decoder.finish() == [b"th"]
    assert decoder.finish() == []


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_the_bound_does_not_count_the_terminator(end: bytes) -> None:
    """A message of exactly the bound is taken, with either terminator; one byte more is refused."""
    assert split_lines(b"", b"x" * 8 + end, 8) == ([b"x" * 8], b"")
    with pytest.raises(MessageTooLong, match="limited to 8 bytes") as caught:
        split_lines(b"", b"x" * 9 + end, 8)
    assert caught.value.complete == []
    assert caught.value.limit == 8


def test_an_unfinished_line_is_bounded() -> None:
    """More than the bound without LF is refused before the LF comes; a CR at its end may belong to it."""
    assert split_lines(b"x" * 4, b"x" * 4, 8) == ([], b"x" * 8)
    assert split_lines(b"x" * 4, b"x" * 4 + b"\r", 8) == ([], b"x" * 8 + b"\r")
    with pytest.raises(MessageTooLong):
        split_lines(b"x" * 4, b"x" * 5, 8)
    with pytest.raises(MessageTooLong):
        split_lines(b"x" * 8 + b"\r", b"x", 8)
    with pytest.raises(MessageTooLong):
        split_lines(b"x" * 8 + b"\r", b"\r\n", 8)


@given(st.lists(st.binary(max_size=8).map(lambda b: b.replace(b"\n", b" ").rstrip(b"\r")), max_size=6))
def test_too_long_carries_what_was_complete(before: list[bytes]) -> None:
    """All messages that were whole before the one that is too long are handed over, in order."""
    data = b"".join(message + b"\n" for message in before)
    for tail in (b"y" * 9, b"y" * 9 + b"\n", b"y" * 9 + b"\nz\n"):
        with pytest.raises(MessageTooLong) as caught:
            split_lines(b"", data + tail, 8)
        assert caught.value.complete == before


# -- chunk -------------------------------------------------------------------------------------------


def test_a_chunk_is_one_read() -> None:
    """Whatever one read returned is a message, LF included: nothing is looked for in it."""
    assert split_chunk(b"", b"hello") == ([b"hello"], b"")
    assert split_chunk(b"", b"two\nlines\n") == ([b"two\nlines\n"], b"")
    assert split_chunk(b"", b"") == ([], b"")


def test_a_chunk_is_read_from_1024_bytes_at_most() -> None:
    """Longer input makes several messages, cut where ``recv(1024)`` would have."""
    assert split_chunk(b"", b"x" * 2050) == ([b"x" * 1024, b"x" * 1024, b"xx"], b"")


@pytest.mark.parametrize("character", ["é", "€", "🐍"])
def test_an_unfinished_character_waits_for_the_next_chunk(character: str) -> None:
    """A character that is cut at any of its bytes stays whole, and text around it is not held back."""
    encoded = character.encode()
    for place in range(1, len(encoded)):
        decoder = ChunkDecoder()
        assert decoder.feed(b"ab" + encoded[:place]) == [b"ab"]
        assert decoder.feed(encoded[place:] + b"c") == [encoded + b"c"]
        assert decoder.finish() == []


def test_an_unfinished_character_alone_is_no_message_until_the_end() -> None:
    """It waits without a message of its own; at the end of the stream it is one."""
    decoder = ChunkDecoder()
    assert decoder.feed(b"\xf0\x9f") == []
    assert decoder.feed(b"\x90") == []
    assert decoder.finish() == [b"\xf0\x9f\x90"]


@given(st.text(max_size=60), st.lists(st.integers(0, 300), max_size=8), st.integers(4, 16))
def test_chunks_of_text_are_text(text: str, places: list[int], size: int) -> None:
    """However UTF-8 text is cut into reads, each message of it is text by itself, and none is lost."""
    decoder = ChunkDecoder(size)
    messages = [message for piece in cut(text.encode(), places) for message in decoder.feed(piece)]
    assert decoder.finish() == []
    assert "".join(message.decode() for message in messages) == text
    assert all(0 < len(message) <= size + 3 for message in messages)


@given(interesting, st.lists(st.integers(0, 200), max_size=8))
def test_chunks_lose_no_byte(data: bytes, places: list[int]) -> None:
    """Bytes that are not UTF-8 come through as well, for the answer to say so."""
    decoder = ChunkDecoder()
    messages = [message for piece in cut(data, places) for message in decoder.feed(piece)]
    assert b"".join(messages + decoder.finish()) == data


# Every proper beginning of an encoded character: one code point of each 61 meets each prefix of 64.
BEGINNINGS = {
    encoded[:size]
    for point in (*range(0x80, 0x800, 7), 0x7FF, *range(0x800, 0x110000, 61))
    if not 0xD800 <= point < 0xE000
    for encoded in [chr(point).encode()]
    for size in range(1, len(encoded))
}
tricky = st.sampled_from(b"a\x80\x8d\x90\x9f\xa0\xa9\xac\xc0\xc3\xe0\xe2\xed\xf0\xf4\xf5\xff")


@given(st.lists(tricky, max_size=6).map(bytes))
def test_unfinished_character_is_what_more_bytes_could_finish(data: bytes) -> None:
    """What is held back is a proper beginning of one character, and nothing else is held back."""
    endings = [back for back in range(1, min(3, len(data)) + 1) if data[-back:] in BEGINNINGS]
    assert unfinished_character(data) == max(endings, default=0)


def test_replies_end_as_the_framing_says() -> None:
    """Only ``line`` ends its replies with LF."""
    assert {framing: framing.terminator for framing in Framing} == {
        Framing.LINE: b"\n",
        Framing.CHUNK: b"",
        Framing.AUTO: b"",
    }
