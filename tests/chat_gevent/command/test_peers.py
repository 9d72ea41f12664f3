"""Workers that ask each other: answers of any length, and a bound in time whatever the other one does."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event

from chat_gevent.command.peers import Mailboxes, Peers
from chat_gevent.files import open_files


@pytest.fixture
def peers() -> Iterator[Callable[..., Peers]]:
    """Makes peers of three workers, in this process."""
    mailboxes = Mailboxes(3)
    made: list[Peers] = []

    def make(slot: int, answer: Callable[[Any], Any] = lambda question: question) -> Peers:
        made.append(Peers(mailboxes, slot, answer))
        return made[-1]

    yield make
    for each in made:
        each.stop()
    mailboxes.close()


def test_questions_are_answered_by_those_who_were_asked(peers: Callable[..., Peers]) -> None:
    """Several at a time, each with its own answer, of a megabyte as well as of nothing."""
    asks = peers(0)
    peers(1, lambda question: [1, question]).start()
    peers(2, lambda question: "x" * 2**20).start()
    assert asks.ask({"a": None}, [1, 2], 30) == {1: [1, {"a": None}], 2: "x" * 2**20}
    assert asks.ask(None, [1], 30) == {1: [1, None]}
    assert asks.ask(None, []) == {}


def test_answers_do_not_get_mixed_up(peers: Callable[..., Peers]) -> None:
    """Two who ask the same one at the same time get their own answers, whichever is ready first."""
    go = Event()

    def answer(question: str) -> str:
        if question == "first":
            go.wait()
        return question

    first, second = peers(0), peers(1)
    peers(2, answer).start()
    waits = gevent.spawn(first.ask, "first", [2], 30)
    assert second.ask("second", [2], 30) == {2: "second"}
    go.set()
    assert waits.get() == {2: "first"}


def test_one_that_does_not_answer_costs_the_bound_and_no_more(peers: Callable[..., Peers]) -> None:
    """One at which nobody listens, and one that takes too long; the answers of the others are there."""
    asks = peers(0)
    peers(1).start()
    peers(2, lambda question: gevent.sleep(60)).start()
    for _ in range(2):
        began = time.monotonic()
        assert asks.ask("here", [0, 1, 2], 1) == {1: "here"}
        assert 0.9 < time.monotonic() - began < 30


def test_a_full_mailbox_is_no_answer_and_leaves_nothing_open(peers: Callable[..., Peers]) -> None:
    """Hundreds of questions to one that is gone wait for nobody, and leave no descriptor of the asker."""
    asks = peers(0)
    before = open_files()
    for _ in range(300):
        assert asks.ask("anybody?", [2], 0.001) == {}
    assert open_files() == before
    peers(2).start()  # a successor does not answer what its predecessor was asked
    assert asks.ask("anybody?", [2], 30) == {2: "anybody?"}


def test_an_answer_that_fails_is_no_answer(peers: Callable[..., Peers], capsys: Any) -> None:
    """Whoever asks is not kept waiting by an error over there, and the next question is answered."""
    asks = peers(0)

    def answer(question: str) -> str:
        return {"good": "yes"}[question]

    peers(1, answer).start()
    began = time.monotonic()
    assert asks.ask("bad", [1], 100) == {}
    assert time.monotonic() - began < 30
    assert asks.ask("good", [1], 30) == {1: "yes"}
    assert "KeyError: 'bad'" in capsys.readouterr().err


def test_one_that_dies_while_it_answers_is_told_from_a_slow_one(peers: Callable[..., Peers]) -> None:
    """The end of its stream is seen at once; nobody waits until the time is over."""
    mailboxes = Mailboxes(2)
    pid = os.fork()
    if not pid:
        os.set_blocking(mailboxes.pairs[1][0].fileno(), True)
        mailboxes.pairs[1][0].recv(100)  # without the descriptor for the answer, which is closed by this
        os._exit(0)
    try:
        began = time.monotonic()
        assert Peers(mailboxes, 0, str).ask("anybody?", [1], 100) == {}
        assert time.monotonic() - began < 30
    finally:
        os.waitpid(pid, 0)
        mailboxes.close()


def test_mailboxes_that_can_not_be_made_leave_nothing_open() -> None:
    """Files run out in the middle: what was made is closed again."""
    before = open_files()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 50, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            Mailboxes(100)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert open_files() == before
