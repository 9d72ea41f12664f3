"""One world: a whole server on a kernel and a loop in memory, its clients, and what can happen to them.

The server is the real one: :class:`~chat_gevent.server.ChatServer`, its core, engine, connections, registry
and broadcasts. Only the machine under it is ours. An operation is a tuple, its name first; a world does one
after the other, and makes no choice of its own, so a list of operations says all that happens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.hub import Hub

from chat_gevent.core import Core
from chat_gevent.framing import AUTO, CHUNK, LINE, Framing
from chat_gevent.server import ChatServer
from chat_gevent.settings import Settings
from chat_gevent.state import CLOSED
from tests.faults.simulation.kernel import Epoll, Kernel, Listener
from tests.faults.simulation.loop import Loop
from tests.faults.simulation.model import LAST_WORDS
from tests.faults.simulation.service import Hooks, Known, Words
from tests.faults.simulation.sockets import Peer, Socket

SLOTS = 5
"""Most clients at a time."""

FRAMINGS: dict[str, Framing] = {
    "confirm": LINE,
    "auto": AUTO,
    "chunk": CHUNK,
    "handler": LINE,
    "service": LINE,
}

Operation = tuple[Any, ...]


@dataclass(frozen=True)
class Plan:
    """A world and all that happens in it."""

    kind: str
    """What answers: ``confirm``, ``auto`` and ``chunk`` are the built-in confirmation under a framing;
    ``handler`` and ``service`` are our own."""
    spawn: bool
    """Whether each client has a greenlet of gevent's for its whole connection."""
    settings: dict[str, Any]
    operations: list[Operation]
    most: int = 1000
    """Most clients that are admitted."""


class VirtualSystem:
    """The machine that the server is given in the place of :class:`chat_gevent.system.System`."""

    epoll = Epoll
    socket = Socket

    def __init__(self, loop: Loop, kernel: Kernel) -> None:
        self.hub: Hub = gevent.get_hub()
        self._loop, self._kernel = loop, kernel
        self.monotonic = loop.now
        self.sleep = gevent.sleep
        self._ticks = 0

    def perf_counter(self) -> float:
        """A clock by which every look takes 0.7 ms, so that slices of work end."""
        self._ticks += 1
        return self._ticks * 0.0007

    def readable(self, listener: Listener) -> bool:
        """Whether somebody waits to be accepted."""
        return bool(listener.poll())

    def untaken(self, fd: int) -> int:
        """Bytes that the peer has not taken. Raises OSError."""
        socket = self._kernel.files.get(fd)
        if socket is None:
            raise OSError(9, "closed")
        return int(socket.untaken())


class World(Hooks):
    """A server and its clients.

    :param loop: whose hub is the current one.
    """

    def __init__(self, plan: Plan, loop: Loop) -> None:
        self.plan, self.loop = plan, loop
        self.kernel = Kernel.current = Kernel()
        loop.reset(self.kernel)
        self.system = VirtualSystem(loop, self.kernel)
        self.slots: list[Known | None] = [None] * SLOTS
        self.all: list[Known] = []
        self.by_socket: dict[Socket, Known] = {}
        self.blocked: dict[Any, Known] = {}  # greenlets that a hook or handler blocks
        self.raised: list[str] = []
        self.numbers = 0
        self.groups: dict[str, set[Known]] = {"a": set(), "b": set()}
        self.opened = False  # whether nobody waits at a gate any more
        self.draining = self.drained = self.hurried = False
        self.drain_ends = float("inf")
        self.words = plan.kind in ("handler", "service")
        answers: Any = {"handler": self.message, "service": Words(self)}.get(plan.kind)
        # No hint of when to come back: it is drawn by chance, and a seed is to decide everything.
        self.settings = Settings(framing=FRAMINGS[plan.kind], retry_spread=0, **plan.settings)
        self.core = Core(self.settings, answers, self.system)  # type: ignore[arg-type]
        self.core.registry.on_close = self._closed
        self.listener = Listener()
        self.server = ChatServer(
            self.listener, core=self.core, spawn=gevent.spawn if plan.spawn else "default"
        )
        self.server.max_connections = plan.most
        self.server._owns_core = True  # which it would have made itself, on the real machine
        self.server.start()
        self._do: dict[str, Callable[..., None]] = {
            name[3:]: getattr(self, name) for name in dir(self) if name.startswith("do_")
        }

    @property
    def problems(self) -> list[str]:
        """What was wrong so far."""
        return self.raised + self.kernel.violations

    def handle_error(self, where: Any, kind: Any, value: Any, trace: Any) -> None:
        """Something has raised in the hub."""
        if not issubclass(kind, gevent.GreenletExit):
            self.raised.append(f"raised in the hub: {kind.__name__}: {value}")

    def perform(self, operation: Operation) -> None:
        """Do one operation. In the hub."""
        self._do[operation[0]](*operation[1:])

    # -- what connections tell -----------------------------------------------------------------------

    def moved(self, connection: Any, state: Any) -> None:
        """A connection's state has changed."""
        known = self.by_socket.get(connection.socket)
        if known is not None and known.read_at_end < 0:
            known.read_at_end = len(known.peer.socket.taken)
            known.had_ended = known.peer.socket.end_was_read

    def _closed(self, connection: Any) -> None:
        known = self.by_socket[connection.socket]
        if known.reason:
            self.kernel.violations.append("a connection was closed twice")
        known.reason = connection.reason
        known.connection = connection
        for members in self.groups.values():
            members.discard(known)

    def living(self) -> list[tuple[Known, Any]]:
        """Those who are connected, with their connections."""
        return [
            (self.by_socket[each.socket], each) for each in self.core.engine.connections if each is not None
        ]

    def connection_of(self, slot: int) -> tuple[Known, Any] | None:
        """Who is in a slot, with its connection, while it has one."""
        known = self.slots[slot]
        if known is not None:
            fd = known.peer.socket.fileno()
            connections = self.core.engine.connections
            if 0 <= fd < len(connections) and connections[fd] is not None:
                return known, connections[fd]
        return None

    # -- operations: what clients do -----------------------------------------------------------------

    def do_connect(self, slot: int, host: str, room: int, window: int, greeting: str) -> None:
        """A client connects, if its slot is free, and the service is to greet it so."""
        known = self.slots[slot]
        if known is not None:
            if not (known.reason or known.peer.socket.closed):
                return
            known.peer.read(1 << 20)
        peer = Peer(self.kernel, slot, host, room, window)
        known = self.slots[slot] = Known(peer, self.loop.time, greeting=greeting)
        self.by_socket[peer.socket] = known
        self.all.append(known)
        if self.server.closed:
            peer.was_reset = peer.socket.closed = True
        else:
            self.listener.connect(peer)

    def do_send(self, slot: int, data: bytes) -> None:
        """A client sends."""
        known = self.slots[slot]
        if known is not None:
            known.peer.send(data)

    def do_read(self, slot: int, most: int) -> None:
        """A client takes what was sent to it."""
        known = self.slots[slot]
        if known is not None:
            before = len(known.peer.got)
            known.peer.read(most)
            if len(known.peer.got) != before and not known.peer.socket.closed:
                known.took = self.loop.time

    def do_fault(self, slot: int, fault: Any) -> None:
        """Something happens to a connection: its end, a reset, an urgent byte."""
        known = self.slots[slot]
        if known is not None:
            known.peer.do(fault)

    def do_arm(self, slot: int, call: str, fault: Any) -> None:
        """Something will happen at the server's next call of a kind."""
        known = self.slots[slot]
        if known is not None and not known.peer.socket.closed:
            known.peer.socket.armed.setdefault(call, []).append(fault)

    def do_room(self, slot: int, more: int) -> None:
        """The kernel gives a socket more room for output."""
        known = self.slots[slot]
        if known is not None:
            known.peer.socket.room += more
            known.peer.socket.make_room()

    # -- operations: what the server's side does -----------------------------------------------------

    def do_run(self, choice: int) -> None:
        """One thing of all that could happen next in the loop."""
        self.loop.step(choice)

    def do_turn(self) -> None:
        """An iteration of the loop, as a real one makes it."""
        self.loop.turn()

    def do_pass(self, seconds: float) -> None:
        """Time passes."""
        self.loop.time += seconds

    def do_gate(self, slot: int) -> None:
        """Let a handler go on that waits."""
        known = self.slots[slot]
        if known is not None:
            known.gate.release()

    def do_kill(self, slot: int) -> None:
        """End the greenlet that serves a client, from outside."""
        found = self.connection_of(slot)
        if found is not None:
            self.loop.run_callback(self._kill, *found)

    @staticmethod
    def _kill(known: Known, connection: Any) -> None:
        if connection.greenlet is not None and connection.state is not CLOSED:
            known.killed = True
            connection.greenlet.throw()

    def do_push(self, slot: int) -> None:
        """Push to one client, from somewhere."""
        found = self.connection_of(slot)
        if found is not None:
            self.push(*found)

    def do_broadcast(self, group: str | None, but: int | None) -> None:
        """Push to many."""
        found = None if but is None else self.connection_of(but)
        self.broadcast(group, found and found[0])

    def do_join(self, slot: int, group: str) -> None:
        """A client joins a group."""
        found = self.connection_of(slot)
        if found is not None:
            self.join(*found, group)

    def do_leave(self, slot: int, group: str) -> None:
        """A client leaves a group."""
        found = self.connection_of(slot)
        if found is not None:
            self.groups[group].discard(found[0])
            self.core.group(group).discard(found[1].known_client())

    def do_close(self, slot: int, last: bool) -> None:
        """The service closes a client, from somewhere."""
        found = self.connection_of(slot)
        if found is not None:
            known, connection = found
            if not connection.is_leaving:
                known.closed_from_outside = True
            connection.known_client().close(LAST_WORDS.decode() if last else None)

    def do_short_of(self, what: str, count: int) -> None:
        """The machine is short of epoll watches or descriptors, for so many tries."""
        setattr(self.kernel, f"refuses_{what}", count)

    def do_drain(self, seconds: float) -> None:
        """The server stops."""
        if not self.draining:
            self.draining = True
            self.drain_ends = self.loop.time + seconds
            gevent.spawn(self._drain, seconds)

    def _drain(self, seconds: float) -> None:
        self.server.stop(seconds)
        self.drained = True

    def do_hurry(self) -> None:
        """A second signal ends the drain at once."""
        if self.draining:
            self.hurried = True
            self.core.hurry()
