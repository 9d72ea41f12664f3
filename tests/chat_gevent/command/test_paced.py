"""Making something for whoever asks: one for those who wait together, never an old one, with pauses."""

from __future__ import annotations

from types import SimpleNamespace

import gevent
import pytest
from gevent.event import Event

from chat_gevent.command.paced import LONGEST_PAUSE, PAUSE_FACTOR, Paced


def test_those_who_wait_together_share_what_is_made_then() -> None:
    """The first has one of its own; those who came meanwhile share the next, begun after they came."""
    made: list[str] = []
    go = Event()
    paced: Paced[str, int] = Paced(lambda key: made.append(key) or len(made), go.wait)  # type: ignore[func-returns-value, arg-type]
    first = gevent.spawn(paced.get, "a")
    gevent.idle()
    others = [gevent.spawn(paced.get, "a") for _ in range(5)]
    gevent.idle()
    go.set()
    gevent.joinall([first, *others])
    assert first.value == 1
    assert [each.value for each in others] == [2] * 5
    assert made == ["a", "a"]
    assert paced.get("b") == 3


@pytest.mark.parametrize("fails", [False, True])
def test_the_next_waits_for_many_times_what_the_last_took(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """However many ask, making takes a twentieth of the time, also where it fails; the wait for others does
    not count, and no pause is longer than a second."""
    clock = 100.0
    pauses: list[float] = []

    def take(seconds: float) -> None:
        nonlocal clock
        clock += seconds

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        take(seconds)

    def make(_: None) -> str:
        take(next(makings))
        if fails:
            raise ValueError("no")
        return "made"

    monkeypatch.setattr("chat_gevent.command.paced.time", SimpleNamespace(monotonic=lambda: clock))
    monkeypatch.setattr("chat_gevent.command.paced.gevent", SimpleNamespace(sleep=sleep))
    makings = iter([0.01, 0.02, 0.3, 0.0])
    paced = Paced(make, lambda: take(0.5))
    for _ in range(4):
        assert isinstance(_raised(paced), ValueError) is fails
    assert [round(each, 6) for each in pauses] == [PAUSE_FACTOR * 0.01, PAUSE_FACTOR * 0.02, LONGEST_PAUSE]


def test_one_that_failed_leaves_the_turn_to_the_next() -> None:
    """What a making raises is its asker's; the next asks anew."""
    results = [ValueError("no"), None]

    def make(_: None) -> str:
        if (error := results.pop(0)) is not None:
            raise error
        return "made"

    paced = Paced(make)
    failed = gevent.spawn(lambda: isinstance(_raised(paced), ValueError))
    waits = gevent.spawn(paced.get, None)
    failed.join(30)
    waits.join(30)
    assert (failed.value, waits.value) == (True, "made")


def _raised(paced: Paced[None, str]) -> Exception | None:
    try:
        paced.get(None)
    except ValueError as error:
        return error
    return None
