"""The rules of a conversation: random ones against the protocol as it is written down (tests/protocol.py)."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_gevent.conversation import Control, Ending, Rules, join, one_line, read, time_is_up
from chat_gevent.framing import (
    AUTO,
    CHUNK,
    LINE,
    Delimiter,
    Framing,
    Kept,
    LengthPrefix,
    MessageTooLong,
)
from chat_gevent.telnet import TELNET
from tests.faults.fuzz.targets.conversation import converse
from tests.protocol import Refused, expect, without_telnet

CONVERSATIONS = {"long": 2_100_000, "short": 10_500}.get(os.environ.get("HYPOTHESIS_PROFILE", ""), 210_000)
"""How many random conversations are held: ten seconds; a minute or two; half a second."""

WORDS = [
    *(b"a", b"hello", b" ", b"\r", b"\n", b"\r\n", b"\n", "é".encode(), "🐍".encode(), b"\xc3", b"\xf0\x9f"),
    *(b"\xff", b"\xed\xa0", b"/exit", b"/EXIT\n", b"\n /Exit\r\n", b"\n/exit", "\nstraßE\n".encode(), b"/"),
]
TELNET_WORDS = [b"\xff\xfb\x01", b"\xff\xfd\n", b"\xff\xfa\x18\nx\xff\xff\xf0\xff\xf0", b"\xff\xf1", b"\xff"]
EXIT_WORDS = ["/exit", "/exit", None, "A", "straße", "Σας"]

# What the protocol calls each framing, how this library does, and what comes in its streams beside the words.
KINDS: dict[str, tuple[str | bytes | int, Framing, list[bytes]]] = {
    "line": ("line", LINE, []),
    "chunk": ("chunk", CHUNK, [b"x" * 1023, "é".encode() * 600]),
    "auto": ("auto", AUTO, [b"x" * 1000]),
    "telnet": ("auto", AUTO, TELNET_WORDS),
    "delimiter": (b"abab", Delimiter(b"abab"), [b"ab", b"aba", b"abab", b"abab/exitabab", b"b"]),
    "length 1": (1, LengthPrefix(1), [b"\0", b"\1a", b"\5/Exit", b"\3", b"\x09"]),
    "length 4": (4, LengthPrefix(4), [b"\0\0\0\0", b"\0\0\0\1a", b"\0\0\0\5/exit", b"\0\0\0", b"\0\0\0\x28"]),
}


def pieces(chosen: random.Random, stream: bytes) -> list[bytes]:
    """``stream`` in reads: whole, a byte at a time, or cut anywhere."""
    way = chosen.random()
    if way < 0.1:
        return [stream] if stream else []
    if way < 0.2 and len(stream) < 100:
        return [stream[place : place + 1] for place in range(len(stream))]
    places = {0, len(stream), *(chosen.randrange(len(stream) + 1) for _ in range(chosen.randrange(6)))}
    return [stream[a:b] for a, b in pairwise(sorted(places))]


def conversations(kind: str, chosen: random.Random, count: int) -> Iterator[tuple[list[bytes | None], Rules]]:
    """So many random streams, in reads, each with the rules of its server."""
    special = KINDS[kind][2]
    for _ in range(count):
        words = chosen.choices(WORDS, k=chosen.randrange(8))
        if isinstance(KINDS[kind][1], LengthPrefix):
            words = [KINDS[kind][1].encode(word) for word in words]
        if special and chosen.random() < (0.1 if kind in ("chunk", "auto") else 0.7):  # long words are rare
            words += chosen.choices(special, k=chosen.randrange(8))
            chosen.shuffle(words)
        if kind == "telnet":
            words.insert(0, chosen.choice(TELNET_WORDS))
        stream = b"".join(words)
        reads: list[bytes | None] = [*pieces(chosen, stream)]
        if kind == "auto" and len(reads) > 1 and chosen.random() < 0.7:
            reads.insert(chosen.randrange(1, len(reads)), None)
        # Telnet is for text: a service of bytes would see a data byte of 255 as 254.
        text = chosen.random() < 0.7 or (kind in ("auto", "telnet") and stream.startswith(b"\xff"))
        yield reads, Rules(chosen.choice((4, 8, 40, 65_536)), text, chosen.choice(EXIT_WORDS))


@pytest.mark.parametrize("kind", KINDS)
def test_random_conversations(kind: str) -> None:
    """However a stream is read, it gives the messages, refusals and ending that the protocol wants."""
    name, framing, _ = KINDS[kind]
    seed = 1 if os.environ.get("CI") else random.randrange(2**32)
    endings = set()
    for reads, rules in conversations(kind, random.Random(seed), CONVERSATIONS // len(KINDS)):
        found, sent, taken = converse(framing, reads, rules)
        expected = expect(name, reads, rules.limit, rules.text, rules.exit_word)
        known = b"".join(each or b"" for each in reads[:taken])
        refusals = without_telnet(known)[1] if name == "auto" and known.startswith(b"\xff") else b""
        if found != expected or sent != refusals:
            case = f"{reads}, {rules.limit}, {rules.text}, {rules.exit_word!r}"
            pytest.fail(f"seed {seed}: {case}:\n{found}, {sent!r}\nis not\n{expected}, {refusals!r}")
        endings.add(found[1])
    assert endings == ({None, "exit"} if kind == "chunk" else {None, "exit", "message-too-long"})


texts = st.text(alphabet="aé🐍/\r", max_size=6)


@given(st.lists(texts | st.binary(max_size=5), max_size=8))
@pytest.mark.parametrize("framing", [LINE, CHUNK, AUTO, TELNET, Delimiter(b"<>"), LengthPrefix(2)], ids=repr)
def test_join_is_one_after_the_other(framing: Framing, due: list[str | bytes]) -> None:
    """Replies that go out together are the same bytes as replies that go out one by one, none for none."""
    one_by_one = [framing.encode(each.encode()) if isinstance(each, str) else each for each in due]
    assert join(framing, due) == b"".join(one_by_one)


@pytest.mark.parametrize("due", [["a", "\udcff"], ["a", b"b", "\udcff"]])
def test_join_refuses_what_utf8_has_no_form_for(due: list[str | bytes]) -> None:
    """A text with a lone surrogate is an error, alone or among bytes."""
    with pytest.raises(UnicodeEncodeError):
        join(LINE, due)


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("framing", [LINE, Delimiter(b"\n")], ids=repr)
def test_no_cut_changes_what_is_sent(framing: Framing, text: bool) -> None:
    """A stream that comes in two or three reads is answered with the same bytes as one that comes in one."""
    stream = b"one\r\n\n\r\r\nzw\xc3\xb6lf\n\xc3\nlong\nlast\r"
    rules = Rules(8, text)

    def sent(*reads: bytes) -> bytes:
        (said, ending), _, _ = converse(framing, [*reads], rules)
        due = [each.explanation if isinstance(each, Refused) else each for each in said]
        return join(framing, due) + repr(ending).encode()

    whole = sent(stream)
    for a in range(1, len(stream)):
        assert sent(stream[:a], stream[a:]) == whole, a
        for b in range(a + 1, len(stream)):
            assert sent(stream[:a], stream[a:b], stream[b:]) == whole, (a, b)


@pytest.mark.parametrize(
    "message", ["/exit", "/EXIT", "/eXiT", "  /exit", "/exit \t", "\t/Exit\r", "\u2003/exit\x1c"]
)
def test_exit_in_any_case_with_space_around(message: str) -> None:
    """Case and white space around it don't matter; what follows it is not looked at, and it is no message."""
    for before in (b"", b"a\n", b"\xff\n"):
        _, events, ending, _ = read(LINE, b"", before + message.encode() + b"\nb\n", Rules(100))
        assert ending is Ending.EXIT
        assert len(events) == before.count(b"\n")


@pytest.mark.parametrize(
    "message", ["", "exit", "/exit now", "/ exit", "say /exit", "//exit", "/exit/", "/exıt"]
)
def test_other_words_are_no_exit(message: str) -> None:
    """Only the one word, alone, ends the connection."""
    assert read(LINE, b"", message.encode() + b"\n", Rules(100))[1:3] == ([message], None)


@pytest.mark.parametrize("said", ["bye", "BYE", "  Bye\r"])
@pytest.mark.parametrize("word", ["bye", "Bye", "BYE"])
@pytest.mark.parametrize("text", [True, False])
def test_an_exit_word_of_ones_own(word: str, said: str, text: bool) -> None:
    """Case matters neither in the word that a service names nor in what its client sends."""
    assert read(LINE, b"", said.encode() + b"\n", Rules(100, text, word))[1:3] == ([], Ending.EXIT)


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("framing", [LINE, AUTO, TELNET, Delimiter(b";"), LengthPrefix(1)], ids=repr)
def test_a_message_that_is_too_long_is_refused_before_more_is_kept(framing: Framing, text: bool) -> None:
    """Its end is not waited for; what was complete before it is answered."""
    _, events, ending, kept = read(framing, b"", b"\t" + b"x" * 8, Rules(8, text))
    assert (events, ending, kept) == ([], Ending.TOO_LONG, b"")


@pytest.mark.parametrize("word", [None, ""])
def test_without_an_exit_word_each_message_is_one(word: str | None) -> None:
    """A service may have no such word."""
    assert read(LINE, b"", b"/exit\n\n", Rules(100, exit_word=word))[1:3] == (["/exit", ""], None)


def test_what_telnet_offers_is_refused_before_its_lines_are_answered() -> None:
    """The refusals that a read is due come first, in one piece, wherever in it the commands were."""
    _, events, ending, _ = read(TELNET, b"", b"a\n\xff\xfb\x01b\n\xff\xfd\x03c", Rules(100))
    control, *messages = events
    assert isinstance(control, Control)
    assert control.data == b"\xff\xfe\x01\xff\xfc\x03"
    assert (messages, ending) == (["a", "b"], None)


def test_each_framing_settles_once() -> None:
    """Under ``auto`` who sends no LF is answered in chunks until a read ends with LF, and then in lines."""
    rules = Rules(100)
    framing, events, _, kept = read(AUTO, b"", b"hel", rules)
    assert (framing, events, kept) == (AUTO, [], b"hel")
    framing, events, _, kept = time_is_up(kept, rules)
    assert (framing.name, events, kept) == ("chunk", ["hel"], b"")
    framing, events, _, kept = read(framing, kept, b"a\nb\xc3", rules)
    assert (framing.name, events, kept) == ("chunk", ["a\nb"], b"\xc3")
    framing, events, _, kept = read(framing, kept, b"\xa9\nlo\n", rules)
    assert (framing, events, kept) == (LINE, ["é", "lo"], b"")


class Own:
    """A framing that somebody else has written: each byte is a message, and 9 is not allowed."""

    name = "own"

    def split(self, kept: Kept, data: Kept, limit: int) -> tuple[list[bytes], Kept]:
        """As the protocol of framings wants."""
        before, nine, _ = bytes(data).partition(b"9")
        if nine:
            raise MessageTooLong(limit, [bytes((each,)) for each in before])
        return [bytes((each,)) for each in data], b""

    def finish(self, kept: Kept, limit: int) -> list[bytes]:
        """The same."""
        return []

    def encode(self, message: bytes) -> bytes:
        """The same."""
        return b"<" + message + b">"


def test_a_framing_of_ones_own() -> None:
    """Anything with the three methods and a name is a framing."""
    assert converse(Own(), [b"12", b"3"], Rules(1))[0] == (["1", "2", "3"], None)
    assert converse(Own(), [b"12", b"394"], Rules(1))[0] == (["1", "2", "3"], "message-too-long")
    assert join(Own(), ["1", b"raw", "é"]) == "<1>raw<é>".encode()


@given(st.binary(max_size=24) | st.text("a/EXITexit\r\n \u00a0ä", max_size=12).map(str.encode), st.booleans())
def test_one_line_is_what_a_read_says(data: bytes, words: bool) -> None:
    """Of every read: the message alone, or that it takes a closer look."""
    rules = Rules(20, exit_word="/exit" if words else None)
    found = one_line(bytearray(data), rules)
    framing, events, ending, kept = read(LINE, b"", data, rules)
    if found is None:
        plain = data.isascii() and b"/" not in data and len(data) <= rules.limit
        assert not (plain and data.count(b"\n") == 1 and data.endswith(b"\n"))
    else:
        assert (framing, events, ending, kept) == (LINE, [found], None, b"")
