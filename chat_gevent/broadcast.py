"""One message to many clients, and groups of clients to send it to.

A broadcast is framed once, and all outboxes share its bytes. To few clients it is put into their outboxes at
once, and leaves with the turn. To many it is done in slices between turns, so that the loop stays responsive;
the order of what one client gets is still that of the calls, because whoever sends to a client first lets it
catch up with the broadcasts that are under way (:meth:`Broadcasts.catch_up`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from chat_gevent.engine import SLICE_PUSHES, SLICE_SECONDS
from chat_gevent.framing import Framing
from chat_gevent.service import NO_GROUPS, Client

AT_ONCE: Final = 256
"""Most clients that are sent to without slicing: a message is in an outbox in less than a microsecond."""

MOST_RUNNING: Final = 16
"""Most broadcasts under way. With one more the oldest is put into outboxes, which have limits: clients that
are told faster than can be sent are slow ones, and no list of what they are to get grows without bound."""


class Group:
    """A set of clients with a name. A client that leaves drops out by itself.

    :param watch: told of the group when it gets its first client, and when it has lost its last one.
    """

    __slots__ = ("__weakref__", "_clients", "_watch", "name")

    def __init__(self, name: str, watch: Callable[[Group], None] | None = None) -> None:
        self.name = name
        self._watch = watch
        self._clients: dict[Client[Any], None] = {}

    def add(self, client: Client[Any]) -> None:
        """Take ``client`` in, unless it is gone."""
        if not client.closed:
            is_first = not self._clients
            self._clients[client] = None
            client._groups = {*client._groups, self}
            if is_first and self._watch is not None:
                self._watch(self)

    def discard(self, client: Client[Any]) -> None:
        """Let ``client`` go, if it is in."""
        if self._clients.pop(client, self) is None:
            client._groups = client._groups - {self} or NO_GROUPS
            if not self._clients and self._watch is not None:
                self._watch(self)

    def __contains__(self, client: object) -> bool:
        return client in self._clients

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[Client[Any]]:
        """Each client once, as the group is now: it may change meanwhile."""
        return iter(tuple(self._clients))

    def __repr__(self) -> str:
        return f"<Group {self.name!r} of {len(self)}>"


class _Broadcast:
    """A message, and the connections that are still to get it."""

    __slots__ = ("_message", "framed", "framing", "remaining")

    def __init__(self, message: bytes, remaining: dict[Any, None]) -> None:
        self._message = message
        self.framing: Framing | None = None
        self.framed = b""
        self.remaining = remaining

    def frame(self, framing: Framing) -> None:
        """Frame the message for the clients that follow. Raises what ``framing.encode`` does."""
        self.framed = framing.encode(self._message)
        self.framing = framing

    def push(self, connection: Any) -> None:
        """Put the message into an outbox. Clients share the framed bytes."""
        if connection.framing is not self.framing:
            self.frame(connection.framing)
        connection.push_framed(self.framed)


class Broadcasts:
    """The broadcasts of one server."""

    __slots__ = ("_clock", "_core", "_timer", "running", "seconds", "started")

    def __init__(self, core: Any) -> None:
        self._core = core
        self.running: list[_Broadcast] = []
        """Those under way, the oldest first; always the same list."""
        self._timer = core.system.hub.loop.timer(0)
        self._clock = core.system.perf_counter
        self.started = 0
        """How many there have been."""
        self.seconds = 0.0
        """Time spent on putting messages into outboxes and sending them in slices."""

    def start(self, message: bytes, connections: Iterable[Any]) -> int:
        """Send a message to each of ``connections``; returns how many these are."""
        self.started += 1
        targets = dict.fromkeys(connections)
        broadcast = _Broadcast(message, targets)
        for first in targets:
            broadcast.frame(first.framing)  # what can't be framed is the caller's mistake, and raises here
            break
        if len(targets) <= AT_ONCE:
            running = self.running
            for connection in targets:
                if running:
                    self.catch_up(connection)
                if connection.framing is not broadcast.framing:  # as push(), without its call
                    broadcast.frame(connection.framing)
                connection.push_framed(broadcast.framed)
            return len(targets)
        if len(self.running) >= MOST_RUNNING:
            self._put_into_outboxes()
        self.running.append(broadcast)
        if len(self.running) == 1:
            self._timer.start(self._slice)
        return len(targets)

    def fit(self, size: int, count: int = 1) -> bool:
        """Whether ``count`` messages of ``size`` bytes fit into as many outboxes that are empty."""
        core = self._core
        limits = core.settings
        return bool(size <= limits.outbox_bytes and core.queued + size * count <= limits.outbox_total_bytes)

    def _put_into_outboxes(self) -> None:
        """Complete the oldest broadcast without sending: the limits of outboxes hold for it then."""
        began = self._clock()
        oldest = self.running.pop(0)
        while oldest.remaining:
            oldest.push(oldest.remaining.popitem()[0])
        self.seconds += self._clock() - began

    def catch_up(self, connection: Any) -> None:
        """Give ``connection`` what it has not got yet of the broadcasts under way."""
        for each in self.running:
            if each.remaining.pop(connection, self) is None:
                each.push(connection)

    def _slice(self) -> None:
        """Go on for a slice of time. In the hub."""
        clock = self._clock
        began = clock()
        end = began + SLICE_SECONDS
        while self.running and clock() < end:
            oldest = self.running[0]
            # What may not fit into outboxes goes through them, where it is refused.
            alone = len(self.running) == 1 and self.fit(len(oldest.framed), SLICE_PUSHES)
            for _ in range(min(SLICE_PUSHES, len(oldest.remaining))):
                connection, _ = oldest.remaining.popitem()
                if connection.framing is not oldest.framing:
                    oldest.frame(connection.framing)
                if alone:
                    connection.push_at_once(oldest.framed)
                else:
                    connection.push_framed(oldest.framed)
                    self.catch_up(connection)
            while self.running and not self.running[0].remaining:
                del self.running[0]
        self.seconds += clock() - began
        if self.running:
            self._timer.stop()
            self._timer.start(self._slice)
