"""The engine: what one connection or handler does wrong does not concern the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest

from chat_gevent.answering import READ_BYTES
from chat_gevent.engine import Engine
from chat_gevent.framing import LINE
from chat_gevent.system import System
from tests.conftest import wait_until
from tests.peers import Peer

Serve = Callable[..., Any]


class Stub:
    """A connection as the engine knows it; a ``bad`` one raises where it can."""

    def __init__(self, bad: bool) -> None:
        self.bad = bad
        self.tick = 0
        self.done: list[str] = []

    def flush_in_hub(self) -> None:
        """Note it."""
        self._do("flushed")

    def overdue(self, age: int) -> None:
        """Note it."""
        self._do("overdue")

    def cut(self, reason: str) -> None:
        """Note it."""
        self.done.append(reason)

    def _do(self, what: str) -> None:
        if self.bad:
            raise gevent.GreenletExit
        self.done.append(what)


def test_one_that_raises_in_the_hub_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a flush or a sweep raises, that connection is cut off, and the others have their turn."""
    raised: list[Any] = []
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda _, kind, *rest: raised.append(kind))
    engine = Engine(System(), tick_seconds=60, youngest=1, spare_greenlets=1, wakes=False)
    good, bad = Stub(False), Stub(True)
    for each in (good, bad):  # the last one comes first
        engine.flush_soon(each)
    wait_until(lambda: good.done == ["flushed"])
    assert bad.done == ["killed"]
    engine.flush_soon(good)
    wait_until(lambda: good.done == ["flushed", "flushed"])
    engine.connections += [bad, good]
    engine._sweep()
    assert good.done[-1] == "overdue"
    assert bad.done == ["killed", "killed"]
    assert raised == [gevent.GreenletExit] * 2
    engine.close()


def test_a_worker_that_ends_while_it_is_free_is_none(serve: Serve) -> None:
    """A timer that a handler left running ends the greenlet, which is not counted or leased any more."""

    def handler(message: str, client: Any) -> str:
        if message == "leave":
            gevent.Timeout(0.01).start()
        return message

    server = serve(handler, framing=LINE)
    engine = server.core.engine
    with Peer(server.address) as peer:
        peer.send(b"leave\n")
        peer.expect(b"leave\n")
        wait_until(lambda: server.raised)
        assert "Timeout" in server.raised.pop()
        assert (engine.leases.free, engine.leases.leased) == (0, 0)
        peer.send(b"hello\n")
        peer.expect(b"hello\n")
        assert (engine.leases.free, engine.leases.leased) == (1, 0)


def test_one_that_had_its_turn_and_says_no_more_is_idle(serve: Serve, park_after: float | None) -> None:
    """A client that waited for its turn, and has sent nothing more, is told after ``idle_timeout``."""
    server = serve(framing=LINE, park_after=park_after, idle_timeout=0.2)
    with Peer(server.address) as peer:
        peer.ask(b"x")
        peer.send(b"y\n" * (READ_BYTES // 2))
        peer.expect(b"Received: y\n" * (READ_BYTES // 2))
        assert peer.rest().startswith(b"Error: idle-timeout: ")


def test_one_whose_greenlet_has_not_begun_leaves_too(serve: Serve) -> None:
    """A stop without any time to drain leaves nobody to an engine that is closed, and nothing raises."""
    server = serve(spawn=gevent.spawn, framing=LINE)
    with Peer(server.address) as peer:
        peer.send(b"hello\n")
        server.stop(0)  # which accepts the client; its greenlet comes next
        peer.rest()
    assert server.core.registry.live == 0
    assert sum(server.core.registry.closed.values()) == 1
