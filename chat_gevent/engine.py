"""The engine: it wakes connections that have input, and leases a greenlet to those that need one.

It knows no protocol. A connection is registered once, edge-triggered, with one epoll descriptor of the
engine's own. The hub watches only that descriptor, so a client that waits costs no watcher and no greenlet.

* When the descriptor is readable, the hub takes a **turn**: it collects the ready connections (at most
  :data:`TURN_CONNECTIONS`) and wakes each. What can be done without blocking is done there and then.
* The others are served by a **worker**, a greenlet that is leased to one connection after the other and may
  block (:mod:`chat_gevent.leases`), so handlers are written as for any gevent server.
* Connections that send more than their share are **queued**: their events are off until it is their turn.
* Pushes are sent at the end of the turn in which they were made, and in slices of :data:`SLICE_SECONDS` where
  they are many, so that the loop stays responsive.
* One coarse timer sweeps all connections for every limit in time, so that no message starts a timer.

Edge-triggered means that whoever serves a connection reads until nothing is left, or has it queued. A read
that returns less than it asked for has left nothing, unless the event said more than "input" (end of stream,
urgent data, any of a UNIX socket): then it reads to the end.

Figures, and what else was tried: README.md in this folder."""

from __future__ import annotations

from _socket import AF_UNIX
from collections import deque
from collections.abc import Callable
from select import EPOLLET, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, EPOLLRDNORM
from typing import Any, Final

from chat_gevent.leases import Leases
from chat_gevent.system import System

INTEREST: Final = EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET
"""RDHUP and PRI tell apart the events after which a short read does not mean "nothing left"."""

UNIX_INTEREST: Final = INTEREST | EPOLLRDNORM
"""Of a UNIX socket every event is such: its reads also stop short where a descriptor was passed (unix(7))."""

TURN_CONNECTIONS: Final = 512
"""Most connections served in one turn, before the hub looks at timers, listeners and others again."""

FEW_CONNECTIONS: Final = 42
"""How many are asked for first: room for so many events is had from a free list of Python's, for more it is
allocated, which costs a sixth of the call where one client is ready."""

QUEUED_AT_ONCE: Final = 8
"""Most queued connections that have their turn at a time: all others wait for no more of them."""

SLICE_SECONDS: Final = 0.002
"""How long pushes are sent before the hub looks at others again."""
SLICE_PUSHES: Final = 16
"""How many connections are pushed to between two looks at the clock."""


class Engine:
    """Wakes and serves what is registered with it.

    A connection has ``fd``, ``socket``, ``state``, ``tick``, ``waiter``, ``encrypted``, and the methods
    ``wake(event)``, ``serve(event, resident)``, ``flush_in_hub()``, ``overdue(age)``, ``look_for_room(ticks,
    untaken)`` and ``cut(reason)``, as in :mod:`chat_gevent.connection`.

    :param system: the machine.
    :param tick_seconds: how often all connections are swept.
    :param youngest: ``overdue`` is called for connections without activity for at least so many ticks.
    :param spare_greenlets: free workers kept for the next burst.
    :param wakes: whether connections are woken in the hub first; else each one is served by a greenlet.
    :param resident: whether a connection keeps its greenlet.
    :param shares: whether workers are used up by what a handler leaves in them.
    """

    def __init__(
        self,
        system: System,
        *,
        tick_seconds: float,
        youngest: int,
        spare_greenlets: int,
        wakes: bool,
        resident: bool = False,
        shares: bool = False,
    ) -> None:
        self.system = system
        self.hub = hub = system.hub
        self.now = hub.loop.now
        self.connections: list[Any] = []  # by descriptor; None where there is none
        self.tick = 0
        self.tick_seconds = tick_seconds
        self._youngest = youngest
        self._wakes = wakes and not resident
        self.leases = Leases(hub, spare_greenlets, resident=resident, shares=shares)
        self._epoll = system.epoll()
        self._queue: deque[Any] = deque()
        self._called: list[Any] = []
        self._pushed: dict[Any, None] = {}  # a set
        self._without_room: dict[Any, tuple[int, int]] = {}  # tick and bytes, when it last took something
        self._queue_timer = hub.loop.timer(0)
        self._push_timer = hub.loop.timer(0)
        self._ready = hub.loop.io(self._epoll.fileno(), 1)
        self._sweeper = hub.loop.timer(tick_seconds, tick_seconds, ref=False)
        # From the first connection on: an engine that never had one can just be forgotten.
        self._watches = False

    # -- connections come and go ---------------------------------------------------------------

    def register(self, connection: Any) -> None:
        """Wake ``connection`` from its first byte on. Raises OSError: no epoll watches left."""
        fd = connection.fd
        self._epoll.register(fd, _interest(connection))
        if not self._watches:
            self._watches = True
            self._ready.start(self._take_turn)
            self._sweeper.start(self._sweep)
        self.connections += [None] * (fd + 1 - len(self.connections))
        self.connections[fd] = connection

    def unregister(self, connection: Any, fd: int) -> None:
        """Forget ``connection``, whose descriptor ``fd`` is about to be closed."""
        self.connections[fd] = None
        self._without_room.pop(connection, None)
        self._pushed.pop(connection, None)

    def all(self) -> list[Any]:
        """All connections there are."""
        return [each for each in self.connections if each is not None]

    # -- what connections ask for --------------------------------------------------------------

    def queue(self, connection: Any) -> None:
        """Have a connection wait that has sent more than its share; it has an event once it is its turn.

        A few of these have their turn at a time, however many there are. Until then what comes in
        makes no event, or each of them would be served again with the next packet.
        """
        self._queue.append(connection)
        self._epoll.modify(connection.fd, EPOLLET | (connection in self._without_room and EPOLLOUT))
        if len(self._queue) == 1:  # else it runs already
            self._queue_timer.start(self._resume_queued)

    def call(self, connection: Any) -> None:
        """Serve ``connection`` soon, although it had no event."""
        self._called.append(connection)
        if len(self._called) == 1:
            self.hub.loop.run_callback(self._serve_called)

    def flush_soon(self, connection: Any) -> None:
        """Send what is due to ``connection`` at the end of this turn."""
        if connection in self._without_room:
            return
        if not self._pushed:
            self._push_timer.start(self._flush)
        self._pushed[connection] = None

    def wait_for_room(self, connection: Any, taken: bool = False) -> None:
        """Flush ``connection`` again once its client has taken something of what is due.

        ``taken`` is whether it has: more fitted in than when it was waited for before.
        """
        waits = connection in self._without_room
        if taken or not waits:
            self._without_room[connection] = self.tick, self.system.untaken(connection.fd)
        if not waits:
            self._epoll.modify(connection.fd, self._mask(connection) | EPOLLOUT)

    def room_is_made(self, connection: Any, untaken: int) -> None:
        """The client of ``connection``, for which room is waited for, has taken some of it."""
        self._without_room[connection] = self.tick, untaken

    def room_found(self, connection: Any) -> None:
        """Nothing is due to ``connection`` any more."""
        if self._without_room.pop(connection, None) is not None:
            self._epoll.modify(connection.fd, self._mask(connection))

    def _mask(self, connection: Any) -> int:
        return EPOLLET if connection in self._queue else _interest(connection)

    # -- turns ---------------------------------------------------------------------------------

    def _take_turn(self) -> None:
        """Serve the connections that are ready. Runs in the hub, so it must not block."""
        connections, wakes, due = self.connections, self._wakes, []
        poll = self._epoll.poll
        ready = poll(0, FEW_CONNECTIONS)
        if len(ready) == FEW_CONNECTIONS:
            ready += poll(0, TURN_CONNECTIONS - FEW_CONNECTIONS)
        for fd, event in ready:
            connection = connections[fd]
            if connection is None:  # closed since the turn began
                continue
            try:
                if event & EPOLLOUT:
                    connection.flush_in_hub()
                    event &= ~EPOLLOUT
                    if not event:
                        continue
                if not wakes or connection.wake(event):
                    due.append((connection, event))
            except BaseException as error:  # noqa: BLE001 - the others would lose their events
                self._failed(connection, error)
        if due:
            self.leases.lease(due)
        if self._pushed:
            self._flush()

    def _guard(self, connection: Any, call: Callable[..., object], *arguments: Any) -> None:
        """Call what concerns one connection. Where it raises, that one ends, and all others go on."""
        try:
            call(*arguments)
        except BaseException as error:  # noqa: BLE001 - as it says
            self._failed(connection, error)

    def _failed(self, connection: Any, error: BaseException) -> None:
        connection.cut("killed")
        self.hub.handle_error(self, type(error), error, error.__traceback__)

    def _serve_called(self) -> None:
        called, self._called = self._called, []
        self.leases.lease([(each, 0) for each in called])

    def _resume_queued(self) -> None:
        """Give the next of the queued connections their turn. Runs in the hub once a loop, between turns."""
        due = []
        for _ in range(min(QUEUED_AT_ONCE, len(self._queue))):
            connection = self._queue.popleft()
            if connection.fd >= 0:
                room = connection in self._without_room and EPOLLOUT
                self._epoll.modify(connection.fd, _interest(connection) | room)
                # Also where there is no event: it may have nothing more to say, or hold what is decrypted.
                due.append((connection, EPOLLIN))
        if due:
            self.leases.lease(due)
        if self._queue:
            self._queue_timer.start(self._resume_queued)

    def _flush(self) -> None:
        """Send what was pushed, for a slice of time. In the hub."""
        pushed = self._pushed
        clock = self.system.perf_counter
        end = clock() + SLICE_SECONDS
        while pushed and clock() < end:
            for _ in range(min(SLICE_PUSHES, len(pushed))):
                connection, _ = pushed.popitem()
                try:  # not by _guard, whose call would be paid for each push
                    connection.flush_in_hub()
                except BaseException as error:  # noqa: BLE001 - the others would get nothing
                    self._failed(connection, error)
        if pushed:
            self._push_timer.stop()
            self._push_timer.start(self._flush)

    # -- time ----------------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Look after every limit in time. Runs in the hub, so it must not block.

        No missed tick is made up for: time in which the process stood still is not held against its clients.
        """
        self._sweeper.again(self._sweep)  # or one of the ticks that were missed would be made up for
        if not self._ready.active:  # the loop gives a watcher up where the kernel has no watches left for it
            self._ready.start(self._take_turn)
        self.tick = tick = self.tick + 1
        oldest = tick - self._youngest
        for connection in self.connections:
            if connection is not None and connection.tick <= oldest:
                self._guard(connection, connection.overdue, tick - connection.tick)
        for connection, (since, untaken) in list(self._without_room.items()):
            self._guard(connection, connection.look_for_room, tick - since, untaken)
        self.leases.end_spare()

    # -- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Give back the engine's own descriptor, timers and greenlets; all connections must be gone."""
        self._ready.stop()
        self._ready.close()
        for timer in (self._sweeper, self._queue_timer, self._push_timer):
            timer.stop()
            timer.close()
        self._epoll.close()
        self.hub.loop.run_callback(self.leases.end, self.leases.free)


def _interest(connection: Any) -> int:
    return UNIX_INTEREST if connection.socket.family == AF_UNIX else INTEREST
