"""The demo's chat room: all that is said is heard by all, and what is not heard is told."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from benchmarks.measure.chat_room import Talk, talk
from tests.operate import ServerProcess


def test_everybody_hears_every_line(operate: Callable[..., ServerProcess]) -> None:
    """Each line reaches each member once, the one that says it too; names and arrivals are seen."""
    server = operate("--port", "0", "--handler", "chat_gevent.rooms:Rooms")
    began = perf_counter()
    heard = talk(server.host, server.port, members=12, speakers=4, seconds=0.5)
    took = perf_counter() - began
    assert heard.said == 8
    assert len(heard.late) == 8 * 12
    assert heard.missing == 0
    assert 0 < heard.lateness(0.5) <= heard.lateness(0.99) < took
    assert "* you are ann" in heard.seen
    assert "#demo * bob has joined" in heard.seen
    assert [line for line in heard.seen if "line 1" in line] == ["#demo bob: line 1"]


def test_what_is_not_heard_is_missing() -> None:
    """Two lines to three members make six deliveries."""
    assert Talk(members=3, speakers=1, said=2, late=[0.1, 0.2]).missing == 4
