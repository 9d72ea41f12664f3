"""The parking lot: every client that waits, and the few greenlets that serve those who don't.

A gevent server usually keeps one greenlet blocked in ``recv`` for each client. Here a client owns a
greenlet while it has something to say, and none while it has not.

How it works:

* Every connection is registered once, edge-triggered, with one epoll descriptor of the lot's own.
  The hub watches only that descriptor, so a waiting client costs no watcher, and no ``epoll_ctl``
  between one message and the next.
* When the descriptor is readable, the hub takes a turn: it collects the ready connections (at most
  :data:`TURN_CONNECTIONS`) and switches into a **worker**, a greenlet from the free list, which is
  leased to one ready client after the other (``_work``).
* A worker that blocks (a handler that sleeps, a reader that is slow) keeps its client, and the hub
  sees that the turn is unfinished and puts the next worker on it. So handlers are written as for any
  gevent server, greenlets = clients that are busy right now, and a switch is paid for a turn, not
  for a message.
* A client whose lease must wait for input (``park_after`` > 0, a handshake) is **resident**: the
  turn notes it, and the hub switches into it once the turn is done.
* One coarse timer sweeps all connections for every limit in time, so that no message starts a timer.

Edge-triggered means that whoever serves a client reads until nothing is left, or has it wait for
its next turn (:meth:`ParkingLot.defer`). A read that returns less than it asked for has left nothing, unless
the event said more than "input" (end of stream, urgent data, any of a UNIX socket): then it reads to the end.

Source of the idea's figures, and of what else was tried: README.md in this folder.
"""

from __future__ import annotations

import logging
import time
from _socket import AF_UNIX
from collections import Counter, deque
from operator import length_hint
from select import EPOLLET, EPOLLIN, EPOLLPRI, EPOLLRDHUP, EPOLLRDNORM
from typing import TYPE_CHECKING, Any, Final

import gevent
from gevent import get_hub
from gevent.event import Event
from gevent.monkey import get_original
from greenlet import GreenletExit, getcurrent, greenlet

from chat_gevent.confirm import ErrorCode, Handler, confirm, confirm_lines
from chat_gevent.connection import READ_BYTES, REFUSALS, Connection, Phase
from chat_gevent.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# monkey.patch_all(), which a handler's module may have called, takes these names out of ``select``.
epoll = get_original("select", "epoll")

INTEREST: Final = EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET
"""RDHUP and PRI tell apart the events after which a short read does not mean "nothing left"."""

UNIX_INTEREST: Final = INTEREST | EPOLLRDNORM
"""Of a UNIX socket every event is such: its reads also stop short where a descriptor was passed (unix(7))."""

TURN_CONNECTIONS: Final = 512
"""Most connections served in one turn, before the hub looks at timers, listeners and others again."""

DEFERRED_AT_ONCE: Final = 8
"""Most deferred clients that are in line at a time: whoever has little to say waits for no more of them."""

SHORTEST_TICK: Final = 0.025
"""Seconds: each tick looks at every connection."""

DRAIN_PACE: Final = 0.01
"""Most seconds between two clients' dismissal, so that a few clients are no reason to wait."""

DRAIN_SHARE: Final = 0.8
"""Part of the time to drain in which clients are dismissed; the rest is theirs to read and close."""

log = logging.getLogger("chat_gevent")


class ParkingLot:
    """All connections of one process, whichever listener they came from.

    :param settings: limits and time-outs; fixed for the lot's life.
    :param handler: answers a message; :func:`chat_gevent.confirm.confirm` unless given.
    """

    def __init__(self, settings: Settings | None = None, handler: Handler = confirm) -> None:
        self.settings = settings = settings or Settings()
        self.handler = handler
        self.hub = get_hub()
        self.connections: list[Connection | None] = []  # by descriptor
        self.live = 0
        self.refusals = 0  # of the live ones, those that were refused and only read why
        self.accepted = 0
        self.closed: Counter[str] = Counter()  # by reason
        self.refused: Counter[str] = Counter()  # by error code
        self.errors: Counter[str] = Counter()  # error replies by code
        self.past_messages = self.past_received = self.past_sent = 0  # of connections that are closed
        self.addresses: Counter[Any] | None = Counter() if settings.max_connections_per_address else None
        self.on_close: Callable[[Connection], None] | None = None
        """Told of each connection that closes, before its descriptor does; to be set before the first."""
        self.draining = Event()
        self.empty = Event()
        self.empty.set()

        limits = (settings.idle_timeout, settings.handshake_timeout, settings.linger_timeout)
        shortest = min([1.0, *(each for each in (*limits, settings.park_after) if each)])
        self.tick_seconds = shortest if shortest == 1.0 else max(SHORTEST_TICK, shortest / 4)
        self.tick = 0

        self.confirms = handler is confirm and not settings.message_rate  # a read can be answered whole
        self.parks = settings.park_after == 0  # as soon as nothing is left to read
        self._quick_bytes = min(READ_BYTES, settings.max_message_bytes + 1)

        self._epoll = epoll()
        self._buffer = bytearray(READ_BYTES)  # all workers': nothing is kept in it
        self._turn: Iterator[tuple[int, int]] = iter(())
        self._free: list[greenlet] = []
        self._workers = 0
        self._resume: list[tuple[greenlet, int]] = []
        self._deferred: deque[Connection] = deque()
        self._resumer = self.hub.loop.timer(0)
        self._ready = self.hub.loop.io(self._epoll.fileno(), 1)
        self._sweeper = self.hub.loop.timer(self.tick_seconds, self.tick_seconds, ref=False)
        self._watches = False  # from the first connection on: a lot that never had one can just be forgotten

    # -- connections come and go ---------------------------------------------------------------

    def admit(self, connection: Connection, address: Any = None) -> None:
        """Park a new connection; it is served from its first byte on.

        ``address`` is kept only where the clients of an address are counted, or for :attr:`on_close`.
        """
        fd = connection.fd
        self._epoll.register(fd, _interest(connection))  # first: it may fail, by fs.epoll.max_user_watches
        if not self._watches:
            self._watches = True
            self._ready.start(self._take_turn)
            self._sweeper.start(self._sweep)
        if address and (self.addresses is not None or self.on_close is not None):
            self._know(connection, address)
        connections = self.connections
        while fd >= len(connections):
            connections.append(None)
        connections[fd] = connection
        self.live += 1
        self.empty.clear()

    def attribute(self, connection: Connection, address: Any) -> None:
        """Put an admitted connection down to the address that a proxy gave, if that may have another one."""
        if connection.leaving in REFUSALS:
            connection.peer = address
        elif self.address_is_full(address):
            connection.peer = address
            connection.leaving = ErrorCode.ADDRESS_FULL
            self.refused[ErrorCode.ADDRESS_FULL] += 1
            self.refusals += 1
        else:
            self._know(connection, address)

    def address_is_full(self, address: Any) -> bool:
        """Whether an address has all the connections it may have; UNIX clients have none to count."""
        return (
            self.addresses is not None
            and isinstance(address, tuple)
            and self.addresses[address[0]] >= self.settings.max_connections_per_address
        )

    def _know(self, connection: Connection, address: Any) -> None:
        connection.peer = address
        if self.addresses is not None and isinstance(address, tuple):
            self.addresses[address[0]] += 1

    def forget(self, connection: Connection, fd: int) -> None:
        """Take the books of a connection that closes; its descriptor is still open."""
        self.connections[fd] = None
        self.live -= 1
        self.closed[connection.reason] += 1
        self.past_messages += connection.messages
        self.past_received += connection.received
        self.past_sent += connection.sent
        if connection.leaving in REFUSALS:
            self.refusals -= 1
        elif self.addresses is not None and isinstance(connection.peer, tuple):
            self.addresses[connection.peer[0]] -= 1
            if not self.addresses[connection.peer[0]]:
                del self.addresses[connection.peer[0]]
        if self.on_close is not None:
            self.on_close(connection)
        if not self.live:
            self.empty.set()

    def defer(self, connection: Connection) -> None:
        """Have a client wait that has sent more than its share; it has an event once it is its turn.

        A few of these clients are in line at a time, however many there are. Until then what comes in
        makes no event, or each of them would be in line again with the next packet. Not for TLS: epoll
        does not know of what is decrypted.
        """
        self._epoll.modify(connection.fd, EPOLLET)
        self._deferred.append(connection)
        if len(self._deferred) == 1:  # else it runs already
            self._resumer.start(self._resume_deferred)

    def _resume_deferred(self) -> None:
        """Put the next of the deferred clients in line. Runs in the hub once a loop, between turns."""
        for _ in range(min(DEFERRED_AT_ONCE, len(self._deferred))):
            connection = self._deferred.popleft()
            if connection.fd >= 0:
                self._epoll.modify(connection.fd, _interest(connection))
        if self._deferred:
            self._resumer.start(self._resume_deferred)

    def drain(self, seconds: float) -> int:
        """Dismiss every client within ``seconds``; returns how many were cut off, with replies still due.

        All that was read is answered, then the client is told ``shutting-down``. Many clients are
        dismissed one after the other, so that they don't come back as one herd.
        """
        deadline = time.monotonic() + seconds
        self.draining.set()
        leaving = [each for each in self.connections if each is not None]
        pace = min(DRAIN_PACE, DRAIN_SHARE * seconds / max(1, len(leaving)))
        for done, connection in enumerate(leaving):
            connection.dismiss()
            ahead = deadline - seconds + (done + 1) * pace - time.monotonic()
            if ahead > 0.01:
                gevent.sleep(ahead)
        self.empty.wait(max(0.0, deadline - time.monotonic()))
        cut_off = 0
        for rest in [each for each in self.connections if each is not None]:
            cut_off += rest.phase is Phase.SERVING  # not who has not said anything whole
            rest.abort()
        return cut_off

    def close(self) -> None:
        """Give back the lot's own descriptor, timer and greenlets; all connections must be gone."""
        self._ready.stop()
        self._ready.close()
        for timer in (self._sweeper, self._resumer):
            timer.stop()
            timer.close()
        self._epoll.close()
        self.hub.loop.run_callback(self._retire, len(self._free))

    # -- turns ---------------------------------------------------------------------------------

    def _take_turn(self) -> None:
        """Serve the connections that are ready. Runs in the hub, so it must not block."""
        self._turn = turn = iter(self._epoll.poll(0, TURN_CONNECTIONS))
        while length_hint(turn):  # again, where a worker has blocked before the end
            (self._free.pop() if self._free else self._hire()).switch()
        while self._resume:
            resume, self._resume = self._resume, []
            for resident, event in resume:
                resident.switch(event)

    def _hire(self) -> greenlet:
        self._workers += 1
        return greenlet(self._work, self.hub)

    def _work(self) -> None:
        """What a worker does: serve whoever is left of the turn, wait on the free list, and again."""
        connections = self.connections
        quick_bytes = self._quick_bytes
        me = getcurrent()
        buffer = self._buffer
        free, wait = self._free, self.hub.switch
        custom = self.handler is not confirm
        resident = not self.parks
        data: bytearray | None
        unsent: bytes | memoryview
        try:
            while True:
                for fd, event in self._turn:
                    connection = connections[fd]
                    if connection is None:  # closed since the turn began
                        continue
                    data, unsent = None, b""
                    if connection.quick and event == EPOLLIN:
                        # The common case, written out: whole lines that need no closer look, one
                        # read, one send. Everything else is Connection.serve's.
                        try:
                            size = connection.socket.recv_into(buffer)  # type: ignore[union-attr]  # not TLS
                            data = buffer[:size]
                            if size < quick_bytes and data[-1:] == b"\n" and (reply := confirm_lines(data)):
                                connection.messages += data.count(b"\n")
                                connection.received += size
                                connection.tick = self.tick
                                data, unsent = None, reply
                                sent = connection.socket.send(reply)
                                connection.sent += sent
                                if sent == len(reply):
                                    continue
                                unsent = memoryview(reply)[sent:]
                        except BlockingIOError:  # nothing there, or no room for the reply
                            if not unsent:
                                continue
                        except OSError as error:
                            connection.lost(error)
                            continue
                    connection.serve(event, data, unsent, resident)
                    if custom:
                        # What the handler left in this greenlet must not be leased to the next client:
                        # gevent.local keeps its values by greenlet, and context variables live in it.
                        if me.__dict__:
                            return
                        me.gr_context = None
                free.append(me)
                if wait() is False:
                    return
        except GreenletExit:
            pass
        except BaseException as error:  # noqa: BLE001 - nothing may escape into the hub; it decides
            self.hub.handle_error(self, type(error), error, error.__traceback__)
        finally:
            self._workers -= 1

    def _retire(self, count: int) -> None:
        """End ``count`` free workers. Runs in the hub, which is where an ended worker returns to."""
        for _ in range(min(count, len(self._free))):
            self._free.pop(0).switch(False)

    @property
    def greenlets_free(self) -> int:
        """Workers that wait for a client to serve."""
        return len(self._free)

    @property
    def greenlets_leased(self) -> int:
        """Workers that serve a client: busy in a handler or a send, or resident."""
        return self._workers - len(self._free)

    # -- time ----------------------------------------------------------------------------------

    def resume(self, resident: greenlet, event: int) -> None:
        """Have the hub switch into a greenlet that waits for input, at the end of this turn.

        Only for who is served in a turn; :meth:`Stream.release` is for all others.
        """
        self._resume.append((resident, event))

    def _sweep(self) -> None:
        """Look after every limit in time. Runs in the hub, so it must not block.

        A tick that the loop has missed is not made up for: the time in which the process stood still is not
        held against its clients.
        """
        self.tick += 1
        ticks = self.tick_seconds
        settings = self.settings
        tick = self.tick
        # Rounded up and one more: a tick that had begun must not shorten a limit.
        idle = _ticks(settings.idle_timeout, ticks)
        opening = _ticks(settings.handshake_timeout, ticks)
        lingering = _ticks(settings.linger_timeout, ticks)
        park = _ticks(settings.park_after, ticks) if settings.park_after else 0
        for deferred in self._deferred:  # they wait for us, not we for them
            if deferred.phase is Phase.SERVING:
                deferred.tick = tick
        oldest = tick - min(idle, opening, lingering, park or idle)
        for connection in self.connections:
            if connection is None or connection.tick > oldest:
                continue
            age = tick - connection.tick
            phase = connection.phase
            if phase is Phase.CLOSING:
                if age >= lingering:
                    connection.drop("linger")
            elif phase is Phase.OPENING:
                if age >= opening:
                    connection.expire(ErrorCode.IDLE_TIMEOUT, "handshake-timeout")
            elif age >= idle:
                connection.expire(ErrorCode.IDLE_TIMEOUT, "idle-timeout")
            elif park and age >= park and connection.waiting:
                connection.release()
        spare = len(self._free) - settings.spare_greenlets
        # In bulk, and only when nearly all are free: greenlets that end one by one among living ones
        # leave holes in the address space, and each hole counts against vm.max_map_count.
        if spare > 0 and self.greenlets_leased <= settings.spare_greenlets:
            self._retire(spare)


def _interest(connection: Connection) -> int:
    return UNIX_INTEREST if connection.socket.family == AF_UNIX else INTEREST


def _ticks(seconds: float, tick_seconds: float) -> int:
    return int(-(-seconds // tick_seconds)) + 1 if seconds else 2**62
