"""Positions of workers: their sockets, and when a dead worker is started again."""

from __future__ import annotations

import socket
import time

import pytest

from chat_gevent.command.config import ServeSettings
from chat_gevent.command.positions import LONGEST_DELAY, QUICK_SECONDS, Position
from chat_gevent.listeners import Listener, listen


@pytest.fixture
def reserved() -> Listener:
    """A TCP address that is kept from others."""
    [found] = listen("tcp://127.0.0.1:0", ServeSettings(), reserve=True)
    return found


def test_positions_have_sockets_of_their_own_on_one_address(reserved: Listener) -> None:
    """Each listens on the same port; a UNIX socket is the same for all; closed ones are opened again."""
    path = "@chat-gevent-test-positions"
    [unix] = listen(f"unix://{path}", ServeSettings())
    unix.inherited = True
    positions = [Position(index, [reserved, unix]) for index in range(2)]
    with reserved.socket, unix.socket:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(reserved.socket.getsockname())
        for each in positions:
            each.open(ServeSettings())
            each.open(ServeSettings())
        [first, shared], [second, shared_too] = (each.listeners() for each in positions)
        assert first.url == second.url == reserved.url
        assert first.socket is not second.socket
        assert shared is shared_too is unix
        positions[0].close()
        for _ in range(20):
            socket.create_connection(reserved.socket.getsockname()).close()
        positions[0].open(ServeSettings())
        assert positions[0].listeners()[0].url == reserved.url
        for each in positions:
            each.close()
        assert unix.socket.fileno() >= 0


def test_only_quick_deaths_are_waited_after(reserved: Listener) -> None:
    """The first is followed at once, those after it later and later, up to a bound; a longer life is a new
    beginning."""
    with reserved.socket:
        position = Position(0, [reserved])
        assert position.died(time.monotonic() - QUICK_SECONDS) == 0
        began = time.monotonic()
        delays = [position.died(time.monotonic()) for _ in range(9)]
        assert delays == [0, 0.5, 1, 2, 4, 8, 16, LONGEST_DELAY, LONGEST_DELAY]
        assert position.due >= began + LONGEST_DELAY
        assert position.died(time.monotonic() - QUICK_SECONDS) == 0
        assert position.due <= time.monotonic()
