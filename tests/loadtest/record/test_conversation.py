"""Greeting, requests, one-way messages and pushes are told apart."""

from __future__ import annotations

import pytest

from loadtest.record.conversation import Answer, Conversation, Reader
from loadtest.record.framings import guess_framings
from loadtest.record.tape import Side
from loadtest.record.turns import turns_of
from tests.loadtest.record.tapes import tape_of

C, S = "C", "S"


def read(
    *script: tuple[str, bytes] | float, seed: int | None = None, ended_by: Side = "client"
) -> Conversation:
    """The conversation of a script."""
    tape = tape_of(*script, seed=seed, ended_by=ended_by)
    turns = turns_of(tape)
    return Reader(guess_framings([turns]), []).read(tape, turns)


def steps(conversation: Conversation) -> list[tuple[str, bytes, str]]:
    """Kind, message and end of each step."""
    return [(step.kind, step.wire, step.until.text if step.until else "") for step in conversation.steps]


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_a_greeting_and_replies_of_several_lines(seed: int | None) -> None:
    """Wherever the bytes were split."""
    found = read(
        (S, b"220 hi\r\n"),
        (C, b"EHLO me\r\n"),
        (S, b"250-a\r\n250 b\r\n"),
        (C, b"QUIT\r\n"),
        (S, b"221 bye\r\n"),
        seed=seed,
    )
    assert [step.reply for step in found.greeting] == [b"220 hi\r\n"]
    assert steps(found) == [("request", b"EHLO me\r\n", ""), ("request", b"QUIT\r\n", "")]
    assert [step.reply for step in found.steps] == [b"250-a\r\n250 b\r\n", b"221 bye\r\n"]
    assert not found.chatty


def test_a_text_of_several_lines_with_one_reply_is_one_request() -> None:
    """As SMTP's data is."""
    found = read((C, b"DATA\r\n"), (S, b"354 go\r\n"), (C, b"a\r\nb\r\n.\r\n"), (S, b"250 ok\r\n"))
    assert [step.wire for step in found.steps] == [b"DATA\r\n", b"a\r\nb\r\n.\r\n"]


def test_requests_in_one_write_with_as_many_replies_are_taken_apart() -> None:
    """Each with its own reply."""
    found = read((C, b"a\nb\nc\n"), (S, b"A\nB\nC\n"))
    assert [(step.wire, step.reply) for step in found.steps] == [
        (b"a\n", b"A\n"),
        (b"b\n", b"B\n"),
        (b"c\n", b"C\n"),
    ]


def test_a_reply_that_the_framing_does_not_end_says_how_it_ends() -> None:
    """By its dot, by its last line, or by the end of the stream."""
    found = read(
        (C, b"LIST\r\n"),
        (S, b"+OK\r\na\r\n.\r\n"),
        (C, b"get k\r\n"),
        (S, b"VALUE k\r\nEND\r\n"),
        (C, b"NOOP\r\n"),
        (S, b"+OK\r\n"),
    )
    assert [until for _, _, until in steps(found)] == ["Dot()", r'Lines(last=rb"END(?:\s|$)")', ""]
    found = read((C, b"whois x\r\n"), (S, b"name: x\r\n\r\nname: y\r\nname: x\r\n"), ended_by="server")
    assert [until for _, _, until in steps(found)] == ["UntilClose()"]


def test_what_has_no_reply_is_sent_one_way() -> None:
    """Before a pause, before a request in the same write, and at the end."""
    found = read(
        (C, b"NICK a\r\nUSER a\r\n"),
        (S, b":s 001 a\r\n:s 376 a\r\n"),
        (C, b"SAY x\r\n"),
        0.5,
        (C, b"NAMES\r\n"),
        (S, b":s 353 a\r\n:s 366 a\r\n"),
        (C, b"BYE\r\n"),
    )
    assert [(kind, wire) for kind, wire, _ in steps(found)] == [
        ("send", b"NICK a\r\n"),
        ("request", b"USER a\r\n"),
        ("send", b"SAY x\r\n"),
        ("request", b"NAMES\r\n"),
        ("send", b"BYE\r\n"),
    ]
    assert found.chatty


def test_what_comes_after_a_pause_is_a_push() -> None:
    """And what the client says to it at once, with the same word, is its answer and no request."""
    found = read(
        (C, b"a\n"), (S, b"A\n"), 2, (S, b"PING :17\n"), (C, b"PONG :17\n"), 0.5, (C, b"b\n"), (S, b"B\n")
    )
    assert found.pushes == [b"PING :17"]
    assert found.answers == [Answer(b"PING :", b"PONG :", True)]
    assert [step.wire for step in found.steps] == [b"a\n", b"b\n"]


def test_a_push_that_follows_a_one_way_message_is_not_its_reply() -> None:
    """The client answers it as it answers pushes."""
    found = read(
        (C, b"LIST\n"),
        (S, b"a\nb\nend\n"),
        (C, b"SAY x\n"),
        3,
        (S, b"PING 17\n"),
        (C, b"PONG 17\n"),
        0.5,
        (C, b"LIST\n"),
        (S, b"a\nb\nend\n"),
    )
    assert found.pushes == [b"PING 17"]
    assert [(kind, wire) for kind, wire, _ in steps(found)] == [
        ("request", b"LIST\n"),
        ("send", b"SAY x\n"),
        ("request", b"LIST\n"),
    ]


def test_a_reply_that_comes_seconds_late_is_still_a_reply() -> None:
    """Servers slow clients down."""
    found = read((C, b"LIST\n"), (S, b"a\nend\n"), (C, b"JOIN\n"), 3, (S, b"b\nend\n"))
    assert [step.kind for step in found.steps] == ["request", "request"]
    assert found.pushes == []


def test_a_pause_within_a_message_separates_nothing() -> None:
    """Neither in a request nor in a reply."""
    found = read((C, b"hel"), 0.5, (C, b"lo\n"), (S, b"HEL"), 0.5, (S, b"LO\n"), (C, b"x\n"), (S, b"X\n"))
    assert [(step.wire, step.reply) for step in found.steps] == [(b"hello\n", b"HELLO\n"), (b"x\n", b"X\n")]
