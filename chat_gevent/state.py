"""The states of a connection, and the table of the moves between them.

A connection has one state; :meth:`chat_gevent.connection.Connection.move` changes it, and nothing else does.

==============  ================================================================================
OPENING         a TLS handshake, a PROXY header or the service's greeting is due
PARKED          it waits for input and has no greenlet
PARKED_SHORT    the same, and whole lines may be confirmed without one (``chat_gevent.confirm.whole``)
QUEUED          it has sent more than its share, and waits for its turn
BUSY            a greenlet serves it
WAITING         it waits for input, and keeps its greenlet
CLOSING         its last reply is on the way; what it still sends is dropped
CLOSED          its socket is closed
==============  ================================================================================
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class State(IntEnum):
    """Where a connection is in its life."""

    OPENING = 0
    PARKED = 1
    PARKED_SHORT = 2
    QUEUED = 3
    BUSY = 4
    WAITING = 5
    CLOSING = 6
    CLOSED = 7

    @property
    def label(self) -> str:
        """The word for it on the admin page."""
        return "parked" if self is State.PARKED_SHORT else self.name.lower()


# For who looks at them with each message: an attribute of an enumeration costs 60 ns, a name of a module 6.
OPENING, PARKED, PARKED_SHORT, QUEUED, BUSY, WAITING, CLOSING, CLOSED = State

_ENDS: Final = frozenset((State.CLOSING, State.CLOSED))

MOVES: Final[dict[State, frozenset[State]]] = {
    State.OPENING: _ENDS | {State.BUSY},
    State.PARKED: _ENDS | {State.BUSY, State.PARKED_SHORT},
    State.PARKED_SHORT: _ENDS | {State.BUSY, State.PARKED},
    State.QUEUED: frozenset((State.BUSY, State.CLOSED)),
    State.BUSY: _ENDS | {State.PARKED, State.PARKED_SHORT, State.QUEUED, State.WAITING},
    State.WAITING: _ENDS | {State.BUSY},
    State.CLOSING: frozenset((State.CLOSED,)),
    State.CLOSED: frozenset(),
}
"""From each state, the states that may follow it."""
