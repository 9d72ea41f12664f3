"""What is masked or made unique."""

from __future__ import annotations

from loadtest.record.secrets import Value, bytes_of, find_values, hidden, last_word, parts_of, words_of
from tests.loadtest.record.tapes import tape_of


def test_a_group_or_the_whole_match_is_what_is_meant() -> None:
    """Also where it came in several reads, and on either side."""
    tape = tape_of(("C", b"PASS hunter2\n"), ("S", b"token=abc\n"), seed=3)
    values = find_values([tape], [r"PASS (\S+)", "token=abc"], [])
    assert {(value.data, value.kind) for value in values} == {(b"hunter2", "mask"), (b"token=abc", "mask")}


def test_the_longest_value_is_replaced_first() -> None:
    """So that one which contains another leaves nothing of itself."""
    tape = tape_of(("C", b"a=abc b=abcdef\n"))
    values = find_values([tape], [r"=(\w+)"], [])
    assert hidden(b"<abcdef> <abc>", values) == b"<***> <***>"


def test_what_is_masked_is_not_unique() -> None:
    """A password that both find stays hidden."""
    tape = tape_of(("C", b"PASS x1y2\n"))
    (value,) = find_values([tape], [r"PASS (\S+)"], [r"x1y2"])
    assert value.kind == "mask"


def test_parts_are_bytes_and_values() -> None:
    """In order; nothing is lost."""
    value = Value("unique", b"bob", "self.unique_1")
    assert parts_of(b"NICK bob!", [value]) == [b"NICK ", value, b"!"]
    assert parts_of(b"", [value]) == []
    assert parts_of(b"x", []) == [b"x"]


def test_words_are_split_outside_of_values_only() -> None:
    """A value with a blank stays whole, and joins what touches it."""
    value = Value("mask", b"correct horse", "SECRET_1")
    words = words_of(parts_of(b" say <correct horse>  now", [value]))
    assert words == [(), (b" ",), (b"say",), (b" ",), (b"<", value, b">"), (b"  ",), (b"now",)]
    assert b"".join(map(bytes_of, words)) == b" say <correct horse>  now"


def test_the_last_word_begins_in_no_value() -> None:
    """Its blanks don't count."""
    value = Value("mask", b"correct horse", "SECRET_1")
    assert last_word(b"TOKEN correct horse", [value]) == (b"TOKEN ", b"correct horse")
    assert last_word(b"TOKEN correct horse", []) == (b"TOKEN correct ", b"horse")
    assert last_word(b"PING ", [value]) == (b"PING ", b"")
    assert last_word(b"PING", [value]) == (b"", b"PING")
