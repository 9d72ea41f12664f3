"""What is constant in replies."""

from __future__ import annotations

import re

import pytest

from loadtest.record.expectation import escape, expectation_of, last_line_pattern
from loadtest.record.secrets import Value


def test_a_reply_without_anything_that_changes_is_expected_as_it_is() -> None:
    """A status is no number that changes."""
    assert expectation_of([b"OK"], []).literal == b"OK"
    assert expectation_of([b"250 OK (done)"], []).literal == b"250 OK (done)"


@pytest.mark.parametrize(
    ("seen", "later", "other"),
    [
        (b":7\r\n", b":12\r\n", b"+7\r\n"),
        (b"250 queued as 4BxYz19Q", b"250 queued as 77aaBBcc", b"550 queued as 4BxYz19Q"),
        (b"created Wed Nov 25 2026 at 12:01:59", b"created Thu Jan 7 2027 at 09:00:00", b"created never"),
        (b"run 18dc7a6b-5ecd-51ff", b"run ffffffff-0000-51f0", b"ran 18dc7a6b-5ecd-51ff"),
        (b"+OK <1896.697170952@host>", b"+OK <1.2@host>", b"+OK <1.2@other>"),
    ],
)
def test_numbers_times_and_identifiers_may_change(seen: bytes, later: bytes, other: bytes) -> None:
    """The rest may not."""
    pattern = expectation_of([seen], []).pattern
    assert re.fullmatch(pattern, seen)
    assert re.fullmatch(pattern, later)
    assert not re.fullmatch(pattern, other)


def test_a_word_that_differed_between_two_occurrences_is_marked() -> None:
    """In the expression, and in a comment with both values."""
    found = expectation_of([b"hello red world", b"hello blue world"], [])
    assert found.pattern == rb"hello \S+ world"
    assert found.comment == "differed: 'red', 'blue'"
    assert found.literal is None


def test_of_a_long_reply_the_first_line_is_expected() -> None:
    """Its rest may be anything."""
    found = expectation_of([b"*3\r\n$1\r\na\r\n$1\r\nb\r\n"], [])
    assert (found.pattern, found.whole) == (rb"\*\d+", False)


def test_a_masked_value_is_in_no_expression_and_no_comment() -> None:
    """Not even where it differed."""
    values = [Value("mask", b"hunter2", "SECRET_1")]
    found = expectation_of([b"hello hunter2", b"hello nobody"], values)
    assert b"hunter2" not in found.pattern
    assert "hunter2" not in found.comment
    assert b"hunter" not in expectation_of([b"pass=hunter2;"], values).pattern


def test_a_masked_value_with_a_blank_is_one_word() -> None:
    """It is cut out before the reply is split at white space, and any other value may stand for it."""
    values = [Value("mask", b"correct horse", "SECRET_1")]
    found = expectation_of([b"250 hello correct horse, welcome"], values)
    assert b"correct" not in found.pattern
    assert b"horse" not in found.pattern
    assert re.fullmatch(found.pattern, b"250 hello battery staple, welcome")
    found = expectation_of([b"hello correct horse", b"hello nobody"], values)
    assert (b"horse" in found.pattern, "horse" in found.comment) == (False, False)
    assert re.fullmatch(found.pattern, b"hello correct horse")
    assert last_line_pattern([b"correct horse"], values) == rb"(?s:.+)(?:\s|$)"


@pytest.mark.parametrize("reply", [b"555-1234-abcd", b"token 555-1234-abcd", b"250-555-1234-abcd ok"])
def test_a_masked_value_that_begins_like_a_status_is_no_status(reply: bytes) -> None:
    """Nor is what stands behind a real status kept with it."""
    found = expectation_of([reply], [Value("mask", b"555-1234-abcd", "SECRET_1")])
    assert found.literal is None
    assert b"1234" not in found.pattern
    assert b"abcd" not in found.pattern
    assert re.fullmatch(found.pattern, reply)
    assert found.pattern.startswith(b"250-") == reply.startswith(b"250-")


def test_a_masked_value_at_the_end_of_what_is_looked_at_is_not_cut() -> None:
    """Half of it would be a part of it that nothing hides."""
    reply = b"x" * 195 + b"hunter2 and more"
    found = expectation_of([reply], [Value("mask", b"hunter2", "SECRET_1")])
    assert not found.whole
    assert b"hun" not in found.pattern
    assert re.match(found.pattern, reply)


def test_white_space_that_differed_is_still_white_space() -> None:
    """Not a word."""
    assert expectation_of([b"a b", b"a  b"], []).pattern == rb"a\s+b"


def test_the_last_line_of_a_reply_is_told_from_the_others() -> None:
    """With as few words as that takes; None where it can't be."""
    pattern = last_line_pattern([b":irc 353 me :a", b":irc 366 me :End"], [])
    assert pattern == rb":irc 366(?:\s|$)"
    assert last_line_pattern([b"item 1", b"item 2"], []) is None
    assert last_line_pattern([b"a", b"END"], []) == rb"END(?:\s|$)"


def test_an_escaped_byte_matches_itself_only() -> None:
    """All 256 of them, in printable ASCII."""
    for byte in range(256):
        data = bytes([byte])
        assert escape(data).decode("ascii").isprintable()
        assert [other for other in range(256) if re.fullmatch(escape(data), bytes([other]), re.DOTALL)] == [
            byte
        ]
