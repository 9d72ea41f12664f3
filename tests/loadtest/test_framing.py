"""A client's framings: whole, byte by byte, at every split, and beyond their bounds."""

from __future__ import annotations

from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import chat_gevent.framing
from chat_gevent.framing import FramingError, MessageTooLong
from loadtest import framing as framings
from loadtest.framing import (
    Auto,
    Chunk,
    Counted,
    Delimiter,
    Dot,
    LengthPrefix,
    Line,
    Lines,
    Raw,
    ReplyFraming,
    Resp,
    Several,
    TextLength,
    UntilClose,
    Varint,
    parse_framing,
)
from loadtest.messages import confirm_exchange

BOUNDED: list[ReplyFraming] = [
    Line(),
    Delimiter(b"\r\n"),
    Delimiter(b"\0"),
    LengthPrefix(4),
    LengthPrefix(2, "little"),
    LengthPrefix(4, inclusive=True),
    Lines(),
    Varint(),
    TextLength(rb"never (\d+)"),
    Counted(head=0, inclusive=True),
]
MESSAGES = st.lists(st.binary(max_size=50).map(lambda data: data.translate(None, b"\r\n\0")), max_size=5)
SMTP = Lines(rb"\d{3}( |$)")
MEMCACHED = TextLength(rb"VALUE \S+ \d+ (\d+)", more=True)
POSTGRES = Several(Counted(head=1, inclusive=True), b"Z")

REPLIES: list[tuple[ReplyFraming, bytes, list[bytes]]] = [
    (SMTP, b"250-one\r\n250-two\r\n250 end\r\n220 \r\n", [b"250-one\r\n250-two\r\n250 end", b"220 "]),
    (Lines(), b"a\nb\r\n", [b"a", b"b"]),
    (Dot(), b"+OK 2\r\n..x\r\ny.\r\n.\r\n-ERR no\r\n", [b"+OK 2\r\n.x\r\ny.", b"-ERR no"]),
    (Dot(), b".\r\n", [b""]),
    (Varint(head=1), b"\x30\x82\x01" + b"x" * 130 + b"\xd0\x00", [b"\x30" + b"x" * 130, b"\xd0"]),
    (MEMCACHED, b"STORED\r\nEND\r\n", [b"STORED", b"END"]),
    (
        MEMCACHED,
        b"VALUE a 0 5\r\nE\r\nND\r\nVALUE b 0 0\r\n\r\nEND\r\n",
        [b"VALUE a 0 5\r\nE\r\nND\r\nVALUE b 0 0\r\n\r\nEND"],
    ),
    (
        TextLength(rb"MSG (?:\S+ ){2,3}(\d+)"),
        b"PING\r\nMSG a 1 2\r\nhi\r\n",
        [b"PING", b"MSG a 1 2\r\nhi"],
    ),
    (POSTGRES, b"T\0\0\0\x05tD\0\0\0\x05dZ\0\0\0\x05I" * 2, [b"TtDdZI"] * 2),
    (
        Resp(),
        b"+OK\r\n$4\r\nbl\r\n\r\n$-1\r\n*2\r\n*1\r\n:1\r\n$0\r\n\r\n%1\r\n+a\r\n#t\r\n*0\r\n*-1\r\n",
        [
            b"+OK",
            b"$4\r\nbl\r\n",
            b"$-1",
            b"*2\r\n*1\r\n:1\r\n$0\r\n",
            b"%1\r\n+a\r\n#t",
            b"*0",
            b"*-1",
        ],
    ),
]


@pytest.mark.parametrize(("framing", "stream", "replies"), REPLIES, ids=lambda each: type(each).__name__)
def test_replies_of_real_protocols_end_where_they_end_at_every_cut(
    framing: ReplyFraming, stream: bytes, replies: list[bytes]
) -> None:
    """In one read, byte by byte, and cut at every place."""
    assert feed(framing, [stream]) == (replies, False)
    assert feed(framing, [stream[i : i + 1] for i in range(len(stream))]) == (replies, False)
    for cut in range(len(stream)):
        assert feed(framing, [stream[:cut], stream[cut:]]) == (replies, False)


@pytest.mark.parametrize("framing", [SMTP, Dot(), Varint(), MEMCACHED, Resp(), UntilClose(), POSTGRES])
def test_no_reply_grows_beyond_its_limit(framing: ReplyFraming) -> None:
    """A server that never ends a reply is an error at 1,000 bytes."""
    endless = {
        "lines": b"250-x\r\n",
        "dot": b"x\r\n",
        "varint": b"\xff" * 4 + b"\x01",
        "text-length": b"VALUE a 0 1\r\nx\r\n",
        "resp": b"*1\r\n",
        "until-close": b"x",
        "several": b"D\0\0\0\x05d",
    }[framing.name]
    kept: Any = b""

    def feed_all() -> None:
        nonlocal kept
        for _ in range(1001):
            _, kept = framing.split(kept, endless, 1000)

    with pytest.raises(MessageTooLong):
        feed_all()


@pytest.mark.parametrize(
    ("framing", "stream"),
    [
        (Resp(), b"?\r\n"),
        (Resp(), b"$x\r\n"),
        (Varint(), b"\xff" * 11),
        (Counted(inclusive=True), b"a\0\0\0\x03"),
        (TextLength(rb"N (\S+)"), b"N x\r\n"),
    ],
)
def test_what_breaks_the_rules_is_an_error_with_the_whole_replies_before_it(
    framing: ReplyFraming, stream: bytes
) -> None:
    """It can't be known where the next reply begins."""
    with pytest.raises(FramingError):
        framing.split(b"", stream, 1000)


@pytest.mark.parametrize(
    ("framing", "begin", "piece", "end"),
    [
        (Lines(b"end"), b"", b"line\r\n" * 100, b"end\r\n"),
        (Lines(), b"", b"x" * 700, b"\r\n"),
        (Dot(), b"", b"x" * 698 + b"\r\n", b".\r\n"),
        (Varint(), Varint()._prefix(700 * 2000), b"x" * 700, b""),
        (MEMCACHED, b"VALUE a 0 1400000\r\n", b"x" * 700, b"\r\nEND\r\n"),
        (Resp(), b"$1400000\r\n", b"x" * 700, b"\r\n"),
        (Resp(), b"*200000\r\n", b":123\r\n" * 100, b""),
        (UntilClose(), b"", b"x" * 700, b""),
    ],
)
def test_a_reply_in_many_pieces_takes_time_in_proportion_to_its_length(
    framing: ReplyFraming, begin: bytes, piece: bytes, end: bytes
) -> None:
    """1.4 MB in 2,000 pieces take less than a second, not minutes."""
    started = process_time()
    _, kept = framing.split(b"", begin, 2**30) if begin else ([], b"")
    replies: list[bytes] = []
    for _ in range(2000):
        found, kept = framing.split(kept, piece, 2**30)
        replies += found
    found, kept = framing.split(kept, end, 2**30)
    replies = (replies + found) or framing.finish(kept, 2**30)
    assert len(replies) == 1
    assert len(replies[0]) > 1_000_000
    assert process_time() - started < 5  # of CPU: the machine may be busy with other things


def test_one_protocol_of_framings() -> None:
    """The server's framings are the client's, and every one of the client's has the server's methods."""
    for name in ("Line", "Chunk", "Auto", "Delimiter", "LengthPrefix"):
        assert getattr(framings, name) is getattr(chat_gevent.framing, name)
    for framing in (*BOUNDED, Chunk(), Raw(), Auto(), UntilClose(), Dot(), Resp(), POSTGRES):
        assert framing.name
        assert framing.finish(b"", 10) in ([], [b""])


def test_commands_of_redis_are_arrays_of_words() -> None:
    """Words of a text, or any words."""
    assert Resp().encode(b"GET a") == b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n"
    wire = Resp.command("SET", b"a b", 1)
    assert Resp().encode(wire) == wire == b"*3\r\n$3\r\nSET\r\n$3\r\na b\r\n$1\r\n1\r\n"


def test_dots_of_a_text_that_is_sent_are_doubled() -> None:
    """Or a line of it that is a dot would end it."""
    assert Dot().encode(b"a\n.\nb") == b"a\r\n..\r\nb\r\n.\r\n"


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
    assert Line().split(b"", b"a\r\nb\r\r\nc\rd\nrest", 1000) == ([b"a", b"b\r", b"c\rd"], b"rest")


@pytest.mark.parametrize(
    ("framing", "pieces"),
    [
        (Line(), [b"one\n" + b"x" * 11]),
        (Line(), [b"one\n", b"x" * 11 + b"\n"]),
        (Line(), [b"one\n" + b"x" * 6, b"x" * 5]),
        (Delimiter(b"||"), [b"one||" + b"x" * 12]),
        (Delimiter(b"||"), [b"one||" + b"x" * 6, b"x" * 6]),
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


def test_replies_before_a_broken_message_are_given_however_they_came() -> None:
    """A reply of several messages that was whole is told with the error, as it is where it came alone."""
    reply = b"D\0\0\0\5xZ\0\0\0\5I"
    with pytest.raises(FramingError) as together:
        POSTGRES.split(b"", reply + b"D\0\0\0\1", 1000)
    assert together.value.complete == POSTGRES.split(b"", reply, 1000)[0] == [b"DxZI"]
    with pytest.raises(FramingError) as unfinished:
        POSTGRES.split(b"", reply[:6] + b"D\0\0\0\1", 1000)
    assert unfinished.value.complete == []  # not the message that was only a part of a reply


def test_a_count_below_its_own_size_breaks_the_framing() -> None:
    """What an inclusive prefix can't say."""
    with pytest.raises(FramingError, match="below its own size"):
        LengthPrefix(4, inclusive=True).split(b"", b"\0\0\0\x03", 1000)


@pytest.mark.parametrize("framing", [Line(), Delimiter(b"\r\n"), LengthPrefix(4)])
def test_what_the_end_of_the_stream_makes_of_an_unfinished_reply(framing: ReplyFraming) -> None:
    """Bytes that no delimiter closed are a message; of a count that is not reached nothing comes."""
    _, kept = framing.split(b"", framing.encode(b"hello")[:-2], 1000)
    assert framing.finish(kept, 1000) == ([] if isinstance(framing, LengthPrefix) else [kept])
    assert framing.finish(b"", 1000) == []


@pytest.mark.parametrize("framing", [Line(), Delimiter(b"\r\n"), LengthPrefix(4)])
def test_an_unfinished_reply_is_not_copied_with_each_piece(framing: ReplyFraming) -> None:
    """What is kept grows in place: a reply in many pieces takes time in proportion to its length."""
    wire = framing.encode(b"x" * 100_000)
    _, kept = framing.split(b"", wire[:10], 2**20)
    _, kept = framing.split(kept, wire[10:1000], 2**20)
    for start in range(1000, 99_000, 1000):
        before = kept
        replies, kept = framing.split(kept, wire[start : start + 1000], 2**20)
        assert (replies, kept is before) == ([], True)


@pytest.mark.parametrize(
    ("framing", "message"),
    [(Line(), b"a\nb"), (Delimiter(b"||"), b"a||b"), (LengthPrefix(1), b"x" * 256), (Chunk(), b"")],
)
def test_a_message_that_the_framing_cannot_carry_is_refused(framing: ReplyFraming, message: bytes) -> None:
    """It would be taken for two messages, or for none."""
    with pytest.raises((ValueError, OverflowError), match=r"delimiter|big|empty"):
        confirm_exchange(framing, message)


def test_framings_are_read_as_people_write_them() -> None:
    """The option's four forms, and one line about anything else."""
    assert isinstance(parse_framing("line"), Line)
    assert isinstance(parse_framing("chunk"), Chunk)
    delimiter = parse_framing(r"delimiter:\x1f\0")
    assert isinstance(delimiter, Delimiter)
    assert delimiter.end == b"\x1f\0"
    prefix = parse_framing("length:2le")
    assert isinstance(prefix, LengthPrefix)
    assert (prefix.size, prefix.order) == (2, "little")
    for text in ("lines", "length:", "length:x", "delimiter:", "line:x", "length:9"):
        with pytest.raises(ValueError, match=r"framing|prefix"):
            parse_framing(text)
