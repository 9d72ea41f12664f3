"""What the server of a world answers with: a service whose clients say what it is to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gevent
from gevent.lock import Semaphore

from chat_gevent import Client, Refuse, Service
from chat_gevent.core import Core
from chat_gevent.framing import LINE
from chat_gevent.server import ChatServer
from chat_gevent.state import OPENING
from tests.faults.simulation.kernel import Kernel
from tests.faults.simulation.model import LAST_WORDS
from tests.faults.simulation.sockets import Peer, Socket


@dataclass(eq=False)
class Known:
    """What a world knows of one client beside its end of the connection."""

    peer: Peer
    born: float
    took: float = 0.0
    """When it last took something of what was sent to it."""
    greeting: str = ""
    gate: Semaphore = field(default_factory=lambda: Semaphore(0))
    offered: list[int] = field(default_factory=list)
    """The pushes that it is to get, by their numbers."""
    greeted: int = 0
    told: int = 0
    """How often its ``connected`` and ``disconnected`` hooks were called with success."""
    killed: bool = False
    closed_from_outside: bool = False
    refused: bool = False
    connection: Any = None
    reason: str = ""
    read_at_end: int = -1
    """How much had been read of it when its conversation ended."""
    had_ended: bool = False
    """Whether the end of its stream had been read by then."""


class Hooks:
    """The part of a world that its service, and whoever pushes from elsewhere, uses."""

    core: Core
    server: ChatServer
    kernel: Kernel
    by_socket: dict[Socket, Known]
    blocked: dict[Any, Known]
    groups: dict[str, set[Known]]
    numbers: int
    opened: bool

    def living(self) -> list[tuple[Known, Any]]:
        """Those who are connected, with their connections."""
        return [(self.by_socket[each.socket], each) for each in self.core.engine.all()]

    # -- what the service does -----------------------------------------------------------------------

    def block(self, known: Known, wait: Callable[[], object]) -> None:
        """Block the current greenlet within a hook."""
        me = gevent.getcurrent()
        self.blocked[me] = known
        try:
            wait()
        finally:
            del self.blocked[me]

    def wait_at_gate(self, known: Known) -> None:
        """Wait until the gate is opened."""
        if not self.opened:
            self.block(known, known.gate.acquire)

    def message(self, message: str, client: Client[Any]) -> str | None:
        """The handler: some words make it do what handlers do."""
        known = client.state
        if known is None:
            known = client.state = self.by_socket[client._connection.socket]
        if message == "wait":
            self.wait_at_gate(known)
        elif message == "nap":
            self.block(known, lambda: gevent.sleep(0))
        elif message == "doze":
            self.block(known, lambda: gevent.sleep(0.3))
        elif message == "fail":
            raise ValueError("as told")
        elif message == "die":
            raise gevent.GreenletExit
        elif message == "close":
            client.close()
        elif message == "last":
            client.close(LAST_WORDS.decode())
        elif message == "push":
            self.push(known, client._connection)
        elif message == "cast":
            self.broadcast(None, known)
        elif message == "join":
            self.join(known, client._connection, "a")
        elif message == "group":
            self.broadcast("a", None)
        return None if message == "none" else "Received: " + message

    def push(self, known: Known, connection: Any) -> None:
        """Push to one client."""
        self.numbers += 1
        takes = not connection.is_leaving
        text = f"<p{self.numbers}>"
        if connection.known_client().send(text):
            known.offered.append(self.numbers)
            if not takes:
                self.kernel.violations.append("a client that leaves was sent something, as it was said")

    def broadcast(self, group: str | None, but: Known | None) -> None:
        """Push to all, or to those in a group."""
        self.numbers += 1
        for known, connection in self.living():
            if (
                (connection.state is not OPENING if group is None else known in self.groups[group])
                and not connection.is_leaving
                and known is not but
            ):
                known.offered.append(self.numbers)
        target = None if group is None else self.core.group(group)
        self.server.broadcast(f"<p{self.numbers}>", target, self._client_of(but))

    def _client_of(self, known: Known | None) -> Any:
        if known is not None:
            for each, connection in self.living():
                if each is known:
                    return connection.known_client()
        return None

    def join(self, known: Known, connection: Any, group: str) -> None:
        """Have a client join a group."""
        if not connection.is_leaving:
            self.groups[group].add(known)
        self.core.group(group).add(connection.known_client())


class Words(Service):
    """The service: it greets as the world says, and answers as the handler does."""

    framing = LINE

    def __init__(self, world: Hooks) -> None:
        self.world = world
        self.message = world.message  # type: ignore[method-assign]

    def connected(self, client: Client[Any]) -> str | None:
        """Greet, or not."""
        world = self.world
        known = client.state = world.by_socket[client._connection.socket]
        known.greeted += 1
        if known.greeting == "wait":
            world.wait_at_gate(known)
        elif known.greeting == "nap":
            world.block(known, lambda: gevent.sleep(0.01))
        elif known.greeting == "refuse":
            known.greeted -= 1
            raise Refuse("not you")
        elif known.greeting == "fail":
            raise ValueError("as told")
        if known.greeting == "hello":
            world.numbers += 1
            known.offered.append(world.numbers)
            return f"<p{world.numbers}>"
        return None

    def disconnected(self, client: Client[Any], reason: str) -> None:
        """Note it; it may block, and it may fail."""
        world = self.world
        client.state.told += 1
        if reason != client.state.reason:
            world.kernel.violations.append(f"a hook was told {reason!r} of {client.state.reason!r}")
        if client.state.greeting == "nap":
            gevent.sleep(0.2)
        if client.state.greeting == "hello":
            raise ValueError("as told")
