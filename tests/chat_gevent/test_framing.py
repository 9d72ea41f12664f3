"""Bytes to messages: whatever way a stream is cut, the same messages come out of it."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chat_gevent.framing import (
    AUTO,
    AUTO_SECONDS,
    BY_NAME,
    CHUNK,
    LINE,
    SEGMENT_SECONDS,
    UNDECIDED,
    Auto,
    BadCount,
    Chunk,
    Delimiter,
    Framing,
    Kept,
    LengthPrefix,
    Line,
    MessageTooLong,
)

STREAM = b"plain\r\n\n/exit\nzw\xc3\xb6lf \xf0\x9f\x90\x8d\r\nr\ra\r\r\nlast"
MESSAGES = [b"plain", b"", b"/exit", b"zw\xc3\xb6lf \xf0\x9f\x90\x8d", b"r\ra\r", b"last"]

EXAMPLES: list[tuple[Framing, bytes, list[bytes]]] = [
    (LINE, STREAM, MESSAGES),
    (AUTO, STREAM, MESSAGES),
    (LINE, b"\r\n\r", [b"", b"\r"]),
    (Delimiter(b"\0"), b"a\0\0b\n\0c", [b"a", b"", b"b\n", b"c"]),
    (Delimiter(b"<end>"), b"a<end><end><en><end>b<end", [b"a", b"", b"<en>", b"b<end"]),
    (Delimiter(b"aa"), b"aaaaabaa", [b"", b"", b"ab"]),
    (Delimiter(b"aa"), b"baaa", [b"b", b"a"]),
    (Delimiter(b"abab"), b"ababab-aabab", [b"", b"ab-a"]),
    (Delimiter(b"aab"), b"aaab", [b"a"]),
    (LengthPrefix(1), b"\3abc\0\1\0\2x", [b"abc", b"", b"\0"]),
    (LengthPrefix(2), b"\0\3abc\0\0\0\1\n\0", [b"abc", b"", b"\n"]),
    (LengthPrefix(4), b"\0\0\0\2\r\n\0\0\0\0\0\0\0", [b"\r\n", b""]),
    (LengthPrefix(2, "little"), b"\3\0abc\0\0\1\0\n\0", [b"abc", b"", b"\n"]),
    (LengthPrefix(2, inclusive=True), b"\0\5abc\0\2\0\3\n\0", [b"abc", b"", b"\n"]),
    (LengthPrefix(1, "little", inclusive=True), b"\4abc\1\2x\5y", [b"abc", b"", b"x"]),
    (LengthPrefix(8), b"\0\0\0\0\0\0\0\1x\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1", [b"x", b""]),
]
BOUNDED = [
    LINE,
    AUTO,
    Delimiter(b";"),
    Delimiter(b"aa"),
    Delimiter(b"abab"),
    LengthPrefix(1),
    LengthPrefix(2),
]

COUNTS = [
    LengthPrefix(2, "little"),
    LengthPrefix(4, inclusive=True),
    LengthPrefix(8, "little", inclusive=True),
]

interesting = st.binary(max_size=40) | st.text(alphabet="aé🐍/\r\n", max_size=30).map(str.encode)


def outcome(framing: Framing, pieces: list[bytes], limit: int = 64) -> tuple[list[bytes], bool]:
    """The messages of a stream that comes in ``pieces`` and ends, and whether one of them was too long."""
    kept: Kept = b""
    found: list[bytes] = []
    try:
        for piece in pieces:
            messages, kept = framing.split(kept, piece, limit)
            found += messages
        return found + framing.finish(kept, limit), False
    except MessageTooLong as error:
        return found + error.complete, True


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut ``data`` at ``places``."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def expected(framing: Framing, stream: bytes, limit: int) -> tuple[list[bytes], bool]:
    """What is in a stream, found in one go."""
    messages: list[bytes] = []
    if isinstance(framing, LengthPrefix):
        while len(stream) >= framing.size:
            length = int.from_bytes(stream[: framing.size], "big")
            if length > limit:
                return messages, True
            message, stream = stream[framing.size :][:length], stream[framing.size :][length:]
            if len(message) == length:
                messages.append(message)
        return messages, False
    if isinstance(framing, Delimiter):
        *messages, last = stream.split(framing.end)
    else:
        *messages, last = stream.split(b"\n")
        messages = [message.removesuffix(b"\r") for message in messages]
    messages += [last] * bool(last)
    good = next((place for place, message in enumerate(messages) if len(message) > limit), len(messages))
    return messages[:good], good < len(messages)


# -- all framings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("framing", "stream", "messages"), EXAMPLES)
def test_no_cut_changes_the_messages(framing: Framing, stream: bytes, messages: list[bytes]) -> None:
    """A stream gives its messages whole, byte by byte, and in any two or three pieces."""
    assert outcome(framing, [stream]) == (messages, False)
    assert outcome(framing, [stream[i : i + 1] for i in range(len(stream))]) == (messages, False)
    for a in range(len(stream) + 1):
        for b in range(a, len(stream) + 1):
            assert outcome(framing, [stream[:a], stream[a:b], stream[b:]]) == (messages, False), (a, b)


letters = st.lists(st.sampled_from(b"aaabb\r\n;\0\0\1\2\x05\xff"), max_size=30).map(bytes)


@given(letters | interesting, st.lists(st.integers(0, 200), max_size=8), st.sampled_from([0, 1, 4, 64]))
@example(b"aaaa\r", [4], 4)  # the CR might yet belong to a terminator, but the stream ends
@example(b"aaaa\r\r\n", [5], 4)
@pytest.mark.parametrize("framing", BOUNDED, ids=repr)
def test_any_stream_in_any_pieces(framing: Framing, stream: bytes, places: list[int], limit: int) -> None:
    """Any stream cut anywhere gives the messages, and the refusal, that it gives in one go."""
    assert outcome(framing, cut(stream, places), limit) == expected(framing, stream, limit)


@given(st.lists(st.binary(max_size=12), max_size=6), st.lists(st.integers(0, 200), max_size=8))
@pytest.mark.parametrize("framing", [LINE, *BOUNDED[2:], LengthPrefix(4), LengthPrefix(8), *COUNTS], ids=repr)
def test_what_is_encoded_comes_out_again(framing: Framing, messages: list[bytes], places: list[int]) -> None:
    """Messages that are encoded one after the other are the messages that the other end reads."""
    if not isinstance(framing, LengthPrefix):  # a message that has the terminator in it would be two
        messages = [message.translate(None, b"\r\n;ab") for message in messages]
    stream = b"".join(map(framing.encode, messages))
    assert outcome(framing, cut(stream, places)) == (messages, False)


@given(st.lists(st.sampled_from(b"ab\r\n\0\5"), min_size=1, max_size=40).map(bytes))
@pytest.mark.parametrize("framing", BOUNDED, ids=repr)
def test_what_is_kept_is_bounded(framing: Framing, stream: bytes) -> None:
    """No more is kept than the longest message and what belongs to its framing, whatever comes."""
    extra = {"delimiter": 3, "length": 2}.get(framing.name, 1)
    kept: Kept = b""
    for place in range(len(stream)):
        try:
            _, kept = framing.split(kept, stream[place : place + 1], 5)
        except MessageTooLong:
            return
        assert len(kept) <= 5 + extra


@pytest.mark.parametrize("framing", [LINE, Delimiter(b"\n"), Delimiter(b"\r\n")], ids=repr)
@pytest.mark.parametrize("tail", [b"y" * 11, b"y" * 9 + b"\r\n", b"y" * 9 + b"\r\nz\r\n"])
def test_too_long_carries_what_was_complete(framing: Framing, tail: bytes) -> None:
    """All messages that were whole before the one that is too long are handed over, in order."""
    with pytest.raises(MessageTooLong, match="limited to 8 bytes") as caught:
        framing.split(b"o", b"ne\r\n\r\ntwo\r\n" + tail, 8)
    assert [message.strip() for message in caught.value.complete] == [b"one", b"", b"two"]
    assert caught.value.limit == 8


@pytest.mark.parametrize(
    "framing", [LINE, AUTO, Delimiter(b";"), Delimiter(b"<end>"), LengthPrefix(4)], ids=repr
)
def test_an_unfinished_message_grows_in_place(framing: Framing) -> None:
    """A message in many pieces costs time in proportion to its length: what was kept is not copied again."""
    kept: Kept = b""
    for piece in (b"\0\0\x0f\xff", b"x"):
        kept = framing.split(kept, piece, 10_000)[1]
    for _ in range(1000):
        messages, grown = framing.split(kept, b"x", 10_000)
        assert grown is kept
        assert messages == []
    assert kept == b"\0\0\x0f\xff" + b"x" * 1001


@pytest.mark.parametrize("framing", [LINE, Delimiter(b"\n"), Delimiter(b"\n\n")], ids=repr)
def test_only_new_bytes_are_searched(framing: Framing) -> None:
    """What was kept has no terminator in it, and is not searched for one again."""
    kept = bytearray(b"not searched:\n\n or this would be found")
    assert framing.split(kept, b"x", 100) == ([], kept)


@pytest.mark.parametrize("kept", [b"", b"x", bytearray(b"x")])
@pytest.mark.parametrize("framing", [*BOUNDED, CHUNK], ids=repr)
def test_input_is_never_changed(framing: Framing, kept: Kept) -> None:
    """What was read stays as it was, and what comes back does not follow the buffer that it was read into."""
    data = bytearray(b"\1y\ny")
    messages, rest = framing.split(kept, data, 65_536)
    before = messages, bytes(rest)
    assert data == b"\1y\ny"
    data[:] = b"1234"
    assert (messages, bytes(rest)) == before
    assert all(type(message) is bytes for message in messages)


# -- line --------------------------------------------------------------------------------------------


def test_messages_come_as_soon_as_they_are_whole() -> None:
    """A message waits for its LF and for nothing else."""
    assert LINE.split(b"", b"on") == ([], b"on")
    assert LINE.split(b"on", b"e\ntwo\nth") == ([b"one", b"two"], b"th")
    assert LINE.finish(b"th") == [b"th"]
    assert LINE.finish(b"") == []


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_the_bound_does_not_count_the_terminator(end: bytes) -> None:
    """A message of exactly the bound is taken, with either terminator; one byte more is refused."""
    assert LINE.split(b"", b"x" * 8 + end, 8) == ([b"x" * 8], b"")
    with pytest.raises(MessageTooLong, match="limited to 8 bytes") as caught:
        LINE.split(b"", b"x" * 9 + end, 8)
    assert caught.value.complete == []


def test_an_unfinished_line_is_bounded() -> None:
    """More than the bound without LF is refused before the LF comes; a CR at its end may belong to it."""
    assert LINE.split(b"x" * 4, b"x" * 4, 8) == ([], b"x" * 8)
    assert LINE.split(b"x" * 4, b"x" * 4 + b"\r", 8) == ([], b"x" * 8 + b"\r")
    assert LINE.split(b"x" * 8 + b"\r", b"", 8) == ([], b"x" * 8 + b"\r")
    assert LINE.split(b"", b"a\n" + b"x" * 8 + b"\r", 8) == ([b"a"], b"x" * 8 + b"\r")
    for kept, data in (
        (b"xxxx", b"xxxxx"),
        (b"x" * 8 + b"\r", b"x"),
        (b"x" * 8 + b"\r", b"\r\n"),
        (b"", b"x" * 9),
    ):
        with pytest.raises(MessageTooLong, match="limited to 8 bytes"):
            LINE.split(kept, data, 8)
    with pytest.raises(MessageTooLong, match="limited to 8 bytes"):
        LINE.finish(b"x" * 8 + b"\r", 8)


# -- chunk -------------------------------------------------------------------------------------------


def test_a_chunk_is_one_read() -> None:
    """Whatever one read returned is a message, LF included: nothing is looked for in it."""
    assert CHUNK.split(b"", b"hello") == ([b"hello"], b"")
    assert CHUNK.split(b"", b"two\nlines\n") == ([b"two\nlines\n"], b"")
    assert CHUNK.split(b"", b"") == ([], b"")
    assert CHUNK.settle(b"two\nlines\n") is CHUNK


def test_a_chunk_is_read_from_1024_bytes_at_most() -> None:
    """Longer input makes several messages, cut where ``recv(1024)`` would have; a lower bound holds too."""
    assert CHUNK.split(b"", b"x" * 2050) == ([b"x" * 1024, b"x" * 1024, b"xx"], b"")
    assert CHUNK.split(b"", b"x" * 20, 8) == ([b"x" * 8, b"x" * 8, b"xxxx"], b"")
    assert Chunk(3).split(b"", b"x" * 8) == ([b"xxx", b"xxx", b"xx"], b"")


@pytest.mark.parametrize("character", ["é", "€", "🐍"])
def test_an_unfinished_character_waits_for_the_next_chunk(character: str) -> None:
    """A character that is cut at any of its bytes stays whole, and text around it is not held back."""
    encoded = character.encode()
    for place in range(1, len(encoded)):
        messages, kept = CHUNK.split(b"", b"ab" + encoded[:place])
        assert messages == [b"ab"]
        assert CHUNK.split(kept, encoded[place:] + b"c") == ([encoded + b"c"], b"")


def test_an_unfinished_character_alone_is_no_message_until_the_end() -> None:
    """It waits without a message of its own; at the end of the stream it is one."""
    assert CHUNK.split(b"", b"\xf0\x9f") == ([], b"\xf0\x9f")
    assert CHUNK.split(b"\xf0\x9f", b"\x90") == ([], b"\xf0\x9f\x90")
    assert CHUNK.finish(b"\xf0\x9f\x90") == [b"\xf0\x9f\x90"]
    assert CHUNK.finish(b"") == []


@given(st.text(max_size=60), st.lists(st.integers(0, 300), max_size=8), st.integers(4, 16))
def test_chunks_of_text_are_text(text: str, places: list[int], size: int) -> None:
    """However UTF-8 text is cut into reads, each message of it is text by itself, and none is lost."""
    messages, _ = outcome(Chunk(size), cut(text.encode(), places))
    assert "".join(message.decode() for message in messages) == text
    assert all(0 < len(message) <= size + 3 for message in messages)


@given(interesting, st.lists(st.integers(0, 200), max_size=8))
def test_chunks_lose_no_byte(data: bytes, places: list[int]) -> None:
    """Bytes that are not UTF-8 come through as well, for the answer to say so."""
    assert b"".join(outcome(CHUNK, cut(data, places))[0]) == data


# -- auto --------------------------------------------------------------------------------------------


def test_auto_is_decided_by_the_first_bytes() -> None:
    """An LF anywhere in them, or more than a message may have, is a line; only time can tell of the rest."""
    assert AUTO.decide(b"hello\n", 100) is LINE
    assert AUTO.decide(b"hello\nwor", 100) is LINE
    assert AUTO.decide(b"x" * 101, 100) is LINE
    assert AUTO.decide(b"x" * 100, 100) is None
    assert AUTO.decide(b"hello\r", 100) is None


def test_auto_waits_longer_for_the_rest_of_a_segment() -> None:
    """100 ms, but a second where the first bytes fill a segment: the rest may have been lost on the way."""
    assert AUTO.seconds(b"x" * 999) == AUTO_SECONDS == 0.1
    assert AUTO.seconds(b"x" * 1000) == SEGMENT_SECONDS == 1.0


def test_undecided_becomes_line_with_the_first_lf_at_the_end_of_a_read() -> None:
    """An LF elsewhere proves nothing: a client of chunks may send one in a text."""
    assert UNDECIDED.settle(b"a\nb") is UNDECIDED
    assert UNDECIDED.settle(b"ab\n") is LINE
    assert UNDECIDED.split(b"", b"a\nb") == ([b"a\nb"], b"")


# -- delimiter ---------------------------------------------------------------------------------------


def test_an_unfinished_message_is_bounded_without_a_part_of_its_delimiter() -> None:
    """It may have as many bytes as a message, and of the delimiter all but one; more is refused at once."""
    framing = Delimiter(b"<>")
    assert framing.split(b"xxxx", b"xxxx<", 8) == ([], b"xxxxxxxx<")
    assert framing.split(b"", b"a<>xxxxxxxx<", 8) == ([b"a"], b"xxxxxxxx<")
    for kept, data, complete in ((b"xxxx", b"xxxxxx", []), (b"a<", b">xxxxxxxxxx", [b"a"])):
        with pytest.raises(MessageTooLong, match="limited to 8 bytes") as caught:
            framing.split(kept, data, 8)
        assert caught.value.complete == complete


# -- length ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_count_above_the_bound_is_refused_as_soon_as_it_is_known(size: int) -> None:
    """No byte of the message is waited for, and the messages before it are handed over."""
    framing = LengthPrefix(size)
    good, bad = framing.encode(b"x" * 8), (9).to_bytes(size, "big")
    kept = framing.split(b"", good + bad[:-1], 8)[1]
    assert kept == bad[:-1]
    with pytest.raises(MessageTooLong, match="limited to 8 bytes"):
        framing.split(kept, bad[-1:], 8)
    with pytest.raises(MessageTooLong, match="limited to 8 bytes") as caught:
        framing.split(b"", good + good + bad, 8)
    assert caught.value.complete == [b"x" * 8] * 2


def test_a_count_that_is_not_complete_says_nothing() -> None:
    """Its bytes are kept, even where they alone would be more than a message may have."""
    assert LengthPrefix(2).split(b"", b"\0\1x\x09", 8) == ([b"x"], b"\x09")
    assert LengthPrefix(2, "little").split(b"", b"\1\0x\x09", 8) == ([b"x"], b"\x09")


def test_the_order_of_a_count() -> None:
    """The most significant byte first, or last; encoded as it is read."""
    assert LengthPrefix(2).encode(b"abc") == b"\0\3abc"
    assert LengthPrefix(2, "little").encode(b"abc") == b"\3\0abc"
    assert LengthPrefix(2, "little").split(b"\2\0", b"a", 100) == ([], b"\2\0a")
    assert LengthPrefix(2, "little").split(b"\2\0a", b"bc", 100) == ([b"ab"], b"c")


def test_a_count_that_includes_itself() -> None:
    """It is larger by its own size, and the bound holds for the message alone."""
    framing = LengthPrefix(2, inclusive=True)
    assert framing.encode(b"abc") == b"\0\5abc"
    assert framing.split(b"", b"\0\5abc", 3) == ([b"abc"], b"")
    assert framing.split(b"\0\5ab", b"c", 3) == ([b"abc"], b"")
    with pytest.raises(MessageTooLong, match=r"^a message is limited to 3 bytes$") as caught:
        framing.split(b"", b"\0\6", 3)
    assert not isinstance(caught.value, BadCount)


def test_a_count_that_includes_itself_is_not_below_its_own_size() -> None:
    """Such a count is refused at once; the messages before it are handed over."""
    framing = LengthPrefix(2, inclusive=True)
    assert framing.split(b"", b"\0\2", 8) == ([b""], b"")
    with pytest.raises(BadCount, match=r"^a count that includes itself is below its own size$") as caught:
        framing.split(b"", b"\0\3x\0\1", 8)
    assert caught.value.complete == [b"x"]
    assert caught.value.limit == 8


def test_a_message_of_no_bytes_is_one() -> None:
    """A count of 0 is complete by itself."""
    assert LengthPrefix(2).split(b"\0", b"\0\0", 0) == ([b""], b"\0")
    assert LengthPrefix(2).encode(b"") == b"\0\0"


def test_a_message_that_was_cut_off_is_none() -> None:
    """At the end of the stream a count without all of its bytes gives nothing."""
    assert LengthPrefix(2).finish(b"\0") == LengthPrefix(2).finish(b"\0\3ab") == []


def test_a_message_longer_than_its_count_can_say() -> None:
    """It can't be encoded; the largest can."""
    assert LengthPrefix(1).encode(b"x" * 255) == b"\xff" + b"x" * 255
    with pytest.raises(OverflowError):
        LengthPrefix(1).encode(b"x" * 256)


# -- framings as values ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 3, 5, 16, -1])
def test_a_length_prefix_of_another_size_is_refused(size: int) -> None:
    """Only the sizes that formats have."""
    with pytest.raises(ValueError, match=r"^a length prefix has 1, 2, 4 or 8 bytes$"):
        LengthPrefix(size)


@pytest.mark.parametrize("order", ["middle", "", None])
def test_a_length_prefix_of_another_order_is_refused(order: Literal["big"]) -> None:
    """Only the two orders that there are."""
    with pytest.raises(ValueError, match=r"^the order of a length prefix is big or little$"):
        LengthPrefix(2, order)


@pytest.mark.parametrize("end", [b"", "text", None])
def test_a_delimiter_that_is_none_is_refused(end: bytes) -> None:
    """One or more bytes."""
    with pytest.raises(ValueError, match=r"^a delimiter must be one or more bytes$"):
        Delimiter(end)


def test_framings_are_equal_where_kind_and_parameters_are() -> None:
    """So a framing may be compared and may be a key; another kind or another parameter is another framing."""
    different: list[Framing] = [
        *(Line(), Auto(), Chunk(), Chunk(16), Chunk(16, until_lf=True)),
        *(Delimiter(b"a"), Delimiter(b"b"), LengthPrefix(1), LengthPrefix(4)),
        *(LengthPrefix(4, "little"), LengthPrefix(4, inclusive=True)),
    ]
    again: list[Framing] = [
        *(Line(), Auto(), Chunk(1024, False), Chunk(16), Chunk(16, until_lf=True)),
        *(Delimiter(b"a"), Delimiter(b"b"), LengthPrefix(1), LengthPrefix()),
        *(LengthPrefix(order="little"), LengthPrefix(inclusive=True)),
    ]
    assert different == again
    assert len({*different, *again}) == len(different)
    assert len({hash(each) for each in different}) == len(different)  # or a table of many would be slow
    assert Line() != "line"


def test_a_framing_shows_how_it_was_made() -> None:
    """Its repr is the expression that makes it."""
    for framing in (Line(), Auto(), Chunk(), UNDECIDED, Delimiter(b"\r\n"), *COUNTS):
        assert eval(repr(framing)) == framing
    assert repr(Delimiter(b"\0")) == r"Delimiter(b'\x00')"


def test_the_names_that_a_setting_may_have() -> None:
    """Each is a framing without parameters of its own."""
    assert BY_NAME == {"line": LINE, "chunk": CHUNK, "auto": AUTO}
    assert [each.name for each in (Delimiter(b"a"), LengthPrefix(2))] == ["delimiter", "length"]


def test_only_some_framings_end_what_is_sent() -> None:
    """``chunk`` sends a message as it is, and so does ``auto`` before anything is known of the reader."""
    assert [each.encode(b"a") for each in (LINE, CHUNK, AUTO, Delimiter(b"<>"))] == [
        b"a\n",
        b"a",
        b"a",
        b"a<>",
    ]
