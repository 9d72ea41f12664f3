"""The budget of unfinished messages: who has to go is answered first, and the books balance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest

from chat_gevent.answering import READ_BYTES
from chat_gevent.framing import LINE
from chat_gevent.outgoing import Outgoing
from chat_gevent.state import MOVES, State
from tests.conftest import wait_until
from tests.peers import Peer
from tests.protocol import without_hint

Serve = Callable[..., Any]

TOLD = b"Error: server-busy: too many messages are unfinished, and yours is among the longest\n"


def test_the_line_that_is_whole_is_answered_first(serve: Serve, park_after: float | None) -> None:
    """A read that ends one line and begins one beyond the budget: a confirmation, then the error."""
    server = serve(framing=LINE, park_after=park_after, input_total_bytes=1000)
    with Peer(server.address) as peer:
        peer.send(b"a" * 600)
        wait_until(lambda: server.core.input.held == 600)
        peer.send(b"\n" + b"b" * 1100)
        assert without_hint(peer.rest()) == b"Received: " + b"a" * 600 + b"\n" + TOLD
    wait_until(lambda: server.core.registry.live == 0)
    assert server.core.input.held == 0
    assert server.core.registry.past_messages == 1


def test_one_that_is_queued_may_have_to_go(
    serve: Serve, park_after: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a client that floods was read is answered, then it is told, by moves of the table only."""
    wrong: list[tuple[State, State]] = []
    move = Outgoing.move

    def watched(self: Outgoing, state: State) -> None:
        if state not in MOVES[self.state]:
            wrong.append((self.state, state))
        move(self, state)
        if state is State.QUEUED:  # which soon passes
            gevent.get_hub().loop.run_callback(somebody_else, self)

    def somebody_else(queued: Outgoing) -> None:
        assert queued.state is State.QUEUED
        held.append(server.core.input.held)
        server.core.input.hold(3000)
        server.core.input.hold(-3000)

    held: list[int] = []

    monkeypatch.setattr(Outgoing, "move", watched)
    server = serve(framing=LINE, park_after=park_after, input_total_bytes=3000)
    with Peer(server.address) as flood:
        flood.ask(b"x")
        lines = b"y\n" * (READ_BYTES // 2 - 200)
        flood.send(lines + b"z" * (READ_BYTES - len(lines)))
        assert without_hint(flood.rest()) == b"Received: y\n" * (len(lines) // 2) + TOLD
    wait_until(lambda: server.core.registry.live == 0)
    assert server.core.input.held == 0
    assert held == [400]
    assert wrong == []
