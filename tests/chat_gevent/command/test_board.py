"""What master and workers tell each other in shared memory."""

from __future__ import annotations

import os

from chat_gevent.command.board import Board, Order, State


def test_what_a_child_writes_the_parent_reads() -> None:
    """Each slot has numbers of its own, and what is of all is the same for all."""
    board = Board(3)
    board.workers = 2
    child = os.fork()
    if not child:
        board.set(1, "state", State.SERVING)
        board.set(1, "messages", board.workers + 2**40)
        board.draining = True
        os._exit(0)
    os.waitpid(child, 0)
    assert board.draining
    assert State(board.get(1, "state")) is State.SERVING
    assert board.get(1, "messages") == 2**40 + 2
    assert [board.get(slot, "state") for slot in (0, 2)] == [State.STARTING] * 2
    board.clear(1)
    assert Order(board.get(1, "order")) is Order.NONE
    assert board.get(1, "messages") == 0
