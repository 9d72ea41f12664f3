"""What is kept of a connection."""

from __future__ import annotations

from loadtest.record.tape import MOST_PIECES, Tape
from loadtest.record.turns import turns_of
from tests.loadtest.record.tapes import tape_of


def test_reads_that_follow_at_once_are_one_piece() -> None:
    """And a pause, or the other side, begins a new one."""
    tape = Tape()
    for side, data, now in (
        ("client", b"a", 1.0),
        ("client", b"b", 1.001),
        ("client", b"c", 1.5),
        ("server", b"d", 1.5),
    ):
        tape.add(side, data, now)  # type: ignore[arg-type]
    assert [bytes(piece.data) for piece in tape.pieces] == [b"ab", b"c", b"d"]
    assert tape.stream("client") == b"abc"


def test_neither_bytes_nor_pieces_grow_without_bound() -> None:
    """A million single bytes, each on its own, keep as many pieces as are allowed."""
    tape = Tape()
    for number in range(MOST_PIECES + 10):
        tape.add("client", b"x", float(number))
    assert (len(tape.pieces), tape.cut) == (MOST_PIECES, True)
    small = Tape(limit=10)
    small.add("client", bytes(8), 1.0)
    small.add("server", bytes(8), 1.0)
    small.add("client", bytes(8), 1.0)
    assert (small.kept, small.stream("server"), small.cut) == (10, bytes(2), True)


def test_the_side_that_ended_first_is_remembered() -> None:
    """The second end is only the answer to it."""
    tape = Tape()
    tape.end("server")
    tape.end("client")
    assert tape.ended_by == "server"


def test_turns_change_with_the_side_and_parts_with_a_pause() -> None:
    """What is sent before the other side speaks is one turn."""
    turns = turns_of(tape_of(("C", b"a"), 0.5, ("C", b"b"), ("S", b"c"), ("C", b"d")))
    assert [(turn.side, [part.data for part in turn.parts]) for turn in turns] == [
        ("client", [b"a", b"b"]),
        ("server", [b"c"]),
        ("client", [b"d"]),
    ]


def test_the_last_turn_of_a_tape_that_was_cut_is_left_out() -> None:
    """Nobody knows whether it was complete."""
    tape = tape_of(("C", b"a"), ("S", b"b"), ("C", b"c"))
    tape.cut = True
    assert [turn.data for turn in turns_of(tape)] == [b"a", b"b"]
