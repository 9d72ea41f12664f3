"""The budget of all unfinished messages: what clients have begun to send and not ended takes memory.

One client may have a message of ``max_message_bytes`` under way, and many of them together more than the
machine has. So their sum is counted, only where a client has something unfinished, and beyond the budget the
clients with the largest are told ``server-busy`` and closed. That takes a look at every client, so it makes
some room at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from chat_gevent.confirm import ErrorCode
from chat_gevent.state import BUSY, CLOSING, QUEUED

ROOM: Final = 16
"""One part in so many of the budget is free after clients had to go."""


class InputBudget:
    """The bytes of unfinished messages of all clients.

    :param most: the budget in bytes; 0: none.
    :param everybody: returns all connections.
    """

    def __init__(self, most: int, everybody: Callable[[], Iterable[Any]]) -> None:
        self.held = 0
        self._most = most
        self._everybody = everybody

    def has_room(self, more: int) -> bool:
        """Whether nobody has to go for ``more`` bytes."""
        return more <= 0 or not self._most or self.held + more <= self._most

    def hold(self, more: int, holder: Any = None) -> None:
        """Count ``more`` bytes, which may be below 0; ``holder`` is the connection that is being served."""
        self.held += more
        if self.held > self._most > 0 and more > 0:
            self._make_room(holder)

    def _make_room(self, holder: Any) -> None:
        room = self._most - self._most // ROOM
        expected = self.held
        for each in sorted(self._everybody(), key=lambda one: len(one.kept), reverse=True):
            if expected <= room or not each.kept:
                return
            expected -= len(each.kept)
            if each.state >= CLOSING or each.leaving:
                continue  # it goes already, and what it holds will be free
            if each is holder or each.state is BUSY or each.input is not None:
                each.leaving = ErrorCode.SERVER_BUSY  # it leaves once its greenlet has answered what is whole
            elif each.state is QUEUED:
                each.ask_to_leave(ErrorCode.SERVER_BUSY)
            else:
                each.expire(ErrorCode.SERVER_BUSY)
