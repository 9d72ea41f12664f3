"""What is masked or made unique."""

from __future__ import annotations

from loadtest.framing import Resp
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


def test_line_ends_around_a_match_are_no_part_of_the_value() -> None:
    """``.`` matches the CR of a CR LF, but a message has none."""
    tape = tape_of(("C", b"PASS hunter2\r\nNICK bob\r\n"))
    values = find_values([tape], [r"PASS (.*)"], [r"NICK (.*)"])
    assert {(value.data, value.kind) for value in values} == {(b"hunter2", "mask"), (b"bob", "unique")}


def test_what_matches_nothing_is_no_value() -> None:
    """Nor is a group that took no part, or a line end alone."""
    tape = tape_of(("C", b"PASS hunter2\r\n"))
    assert find_values([tape], [r"z*", r"PASS()", r"PASS|(x)", r"\r\n"], []) == []


def test_commands_of_redis_are_searched_as_people_write_them() -> None:
    """A word with a blank is one value; several words are one each."""
    tape = tape_of(
        ("C", Resp.command(b"AUTH", b"hunter2")), ("S", b"+OK\r\n"),
        ("C", Resp.command(b"LOGIN", b"bob", b"correct horse")), ("S", b"+OK\r\n"),
        ("C", Resp.command(b"TOKEN", b"two words")),
    )  # fmt: skip
    assert [value.data for value in find_values([tape], [r"AUTH (\S+)"], [])] == [b"hunter2"]
    assert [value.data for value in find_values([tape], [r"TOKEN (.*)"], [])] == [b"two words"]
    words = {value.data for value in find_values([tape], [r"LOGIN (.*)"], [])}
    assert words == {b"bob", b"correct", b"horse"}


def test_a_masked_value_across_messages_is_masked_in_its_parts_too() -> None:
    """Where lines end within it, where the other side spoke, and where it paused."""
    values = find_values([tape_of(("C", b"LOGIN\r\nbobby\r\nhunter2\r\n"))], [r"(?s)LOGIN\r\n(.*)"], [])
    assert {value.data for value in values} == {b"bobby\r\nhunter2", b"bobby", b"hunter2"}
    values = find_values([tape_of(("C", b"hun"), ("S", b"***"), ("C", b"ter2\n"))], ["hunter2"], [])
    assert {value.data for value in values} == {b"hunter2", b"hun", b"ter2"}
    values = find_values([tape_of(("C", b"hun"), 0.5, ("C", b"ter2\n"))], ["hunter2"], [])
    assert {value.data for value in values} == {b"hunter2", b"hun", b"ter2"}


def test_a_masked_value_that_overlaps_another_value_leaves_nothing_of_itself() -> None:
    """Both together are masked; a unique value that contains a masked one stays unique."""
    tape = tape_of(("C", b"<abcd12wxyz> <xyhunter2>\n"))
    values = find_values([tape], ["abcd12", "12wxyz", "hunter2"], ["xyhun"])
    assert hidden(b"<abcd12wxyz> <xyhunter2>", values) == b"<***> <***>"
    values = find_values([tape_of(("C", b"NICK bobby\n"))], ["bob"], ["bobby"])
    assert {(value.data, value.kind) for value in values} == {(b"bob", "mask"), (b"bobby", "unique")}
