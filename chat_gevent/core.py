"""What the listeners and connections of one server share: settings, service, engine and books.

Several :class:`~chat_gevent.server.ChatServer` objects with one core are several listeners of one server.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable
from typing import Any, Final
from weakref import WeakValueDictionary

from gevent import Greenlet, getcurrent, spawn, spawn_raw, wait
from gevent.event import Event

from chat_gevent.answering import READ_BYTES
from chat_gevent.broadcast import Broadcasts, Group
from chat_gevent.budget import InputBudget
from chat_gevent.confirm import ErrorCode, confirm
from chat_gevent.connection import Connection
from chat_gevent.conversation import Rules
from chat_gevent.engine import Engine
from chat_gevent.errors import WriteTimeout
from chat_gevent.framing import AUTO, LINE, Framing
from chat_gevent.lifecycle import Lifecycle
from chat_gevent.registry import Registry
from chat_gevent.service import Answers, Client, HandlerService, Reply, as_service, overrides
from chat_gevent.settings import Settings
from chat_gevent.state import CLOSING, OPENING
from chat_gevent.system import System

SHORTEST_TICK: Final = 0.025
"""Seconds: each tick looks at every connection."""

DRAIN_PACE: Final = 0.01
"""Most seconds between telling two clients to leave, so that a few clients are no reason to wait."""

DRAIN_SHARE: Final = 0.8
"""Part of the time to drain in which clients are told to leave; the rest is theirs to read and close."""

LAST_HOOKS_SECONDS: Final = 5.0
"""How long a drain waits at least for the last ``disconnected`` hooks to return."""

log = logging.getLogger("chat_gevent")


class Core:
    """Everything that is there once, however many listeners and connections there are.

    :param settings: limits and time-outs; fixed for its life.
    :param answers: a handler or a service; :func:`chat_gevent.confirm.confirm` unless given.
    :param system: the machine; a simulation gives its own.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        answers: Answers | None = None,
        system: System | None = None,
    ) -> None:
        self.settings = settings = settings or Settings()
        self.service = service = as_service(answers)
        self.system = system or System()
        confirms = isinstance(service, HandlerService) and service.message is confirm
        self.framing: Framing = settings.framing or service.framing or (AUTO if confirms else LINE)
        self.rules = Rules(settings.max_message_bytes, service.text, service.exit_word)
        self.limit = settings.max_message_bytes
        self.message = service.message
        self.kind: type[str] | type[bytes] = str if service.text else bytes
        self.greets = overrides(service, "connected") or overrides(service, "disconnected")
        self.confirms = confirms and not settings.message_rate
        """Whether a read can be confirmed whole, by the short way."""
        self.parks = settings.park_after is not None
        self.write_timeout = settings.write_timeout
        idle = settings.idle or ("input" if isinstance(service, HandlerService) else "any")
        self.idle_any = idle == "any"
        self.buffer = bytearray(READ_BYTES)  # of all reads in the hub: nothing is kept in it
        self.encrypts = False  # whether there has been a client with TLS
        self.draining = Event()
        self._hurry = Event()
        self.telling: set[Any] = set()  # greenlets of disconnected hooks under way
        self._told = Event()
        self.stopper: Any = None  # the greenlet of the stopping hook
        # Parked ones with a minimum rate: since when each is waited for, and what it had taken by then.
        self.waited_for: dict[Any, tuple[float, int]] = {}
        self.queued = 0  # bytes of pushes in all outboxes
        self.registry = Registry(settings.max_connections_per_address, settings.per_address_ipv6_prefix)
        self._finished = self.registry.empty
        self._numbers = itertools.count(1)
        # Names come from clients, often: a group lasts while somebody is in it, or holds it.
        self._groups: WeakValueDictionary[str, Group] = WeakValueDictionary()
        self._kept: list[Greenlet[..., Any]] = []
        self.backplane: Any = None
        """The ``chat_gevent.backplane.Backplane`` that carries broadcasts elsewhere, if there is one."""

        limits = (settings.idle_timeout, settings.handshake_timeout, settings.linger_timeout)
        shortest = min([1.0, *filter(None, limits)])
        seconds = shortest if shortest == 1.0 else max(SHORTEST_TICK, shortest / 4)
        # Rounded up and one more: a tick that had begun must not shorten a limit.
        self.idle_ticks, self.opening_ticks, self.linger_ticks = (_ticks(each, seconds) for each in limits)
        self.write_ticks = _ticks(settings.write_timeout, seconds)
        self.engine = Engine(
            self.system,
            tick_seconds=seconds,
            youngest=min(self.idle_ticks, self.opening_ticks, self.linger_ticks),
            spare_greenlets=settings.spare_greenlets,
            wakes=self.confirms,
            resident=not self.parks,
            shares=not confirms,
        )
        self.broadcasts = Broadcasts(self)
        self.input = InputBudget(settings.input_total_bytes, self.engine.all)
        if cut_short := settings.cut_short():
            log.warning(
                "tcp_user_timeout (%g s) cuts short %s", settings.tcp_user_timeout, " and ".join(cut_short)
            )

    def next_id(self) -> int:
        """A number for a client."""
        return next(self._numbers)

    # -- connections come and go ---------------------------------------------------------------------

    def admit(self, connection: Connection, address: Any = None) -> None:
        """Register a new connection; it is served from its first byte on.

        Raises OSError: the kernel has no epoll watches left (``fs.epoll.max_user_watches``).
        """
        self.engine.register(connection)
        self.registry.add(connection, address)

    def begin(self, connection: Connection) -> None:
        """Serve an admitted connection before it has said anything, if there is something to tell it."""
        if connection.opening is None and (connection.leaving or self.greets):
            self.engine.call(connection)

    def gone(self, connection: Lifecycle, fd: int) -> None:
        """A connection is about to close its descriptor ``fd``."""
        self.engine.unregister(connection, fd)
        self.waited_for.pop(connection, None)
        self.registry.remove(connection)
        client = connection.client
        if client is not None:
            self.queued -= client._queued
            client._queued = 0
            for group in tuple(client._groups):
                group.discard(client)

    def tell_disconnected(self, client: Client[Any], reason: str) -> None:
        """Have the service told that a client is gone, in a greenlet of its own: the hook may block."""
        self.telling.add(spawn_raw(self._disconnected, client, reason))

    def _disconnected(self, client: Client[Any], reason: str) -> None:
        try:
            self.service.disconnected(client, reason)
        except BaseException:  # whatever a hook raises is its own failure, not the server's
            log.exception("disconnected failed for client %d", client.id)
        finally:
            self.telling.discard(getcurrent())
            if not self.telling:
                self._told.set()

    # -- slow readers --------------------------------------------------------------------------------

    def demand_rate(self, seconds: float, taken: int) -> None:
        """Raise WriteTimeout where a client that is waited for has taken too little in so many seconds.

        The first ``write_timeout`` of them are its own: a connection may stand still for so long.
        """
        rate = self.settings.min_read_rate
        if rate and taken < rate * (seconds - self.write_timeout):
            raise WriteTimeout

    # -- pushes --------------------------------------------------------------------------------------

    def has_room(self, connection: Lifecycle, size: int) -> bool:
        """Whether a push of ``size`` bytes fits into an outbox; if not, the client or the push goes."""
        settings = self.settings
        client = connection.client or connection.known_client()
        of_client, of_all = client._queued + size, self.queued + size
        if of_client <= settings.outbox_bytes and of_all <= settings.outbox_total_bytes:
            client._queued, self.queued = of_client, of_all
            self.registry.pushes += 1
            return True
        if settings.slow_consumer == "close":
            connection.give_up("slow")
        else:
            self.registry.dropped += 1
        return False

    def owe(self, connection: Lifecycle, size: int) -> None:
        """Count ``size`` bytes of pushes more that a client has not taken."""
        connection.known_client()._queued += size
        self.queued += size

    def settle(self, connection: Lifecycle, left: int) -> None:
        """Of the pushes to a client ``left`` bytes are not taken yet."""
        client = connection.client
        if client is not None and client._queued:
            left = min(left, client._queued)
            self.queued -= client._queued - left
            client._queued = left

    def group(self, name: str) -> Group:
        """The group of that name: always the same object."""
        found = self._groups.get(name)
        if found is None:
            watch = None if self.backplane is None else self.backplane.watch
            found = self._groups[name] = Group(name, watch)
        return found

    def encode(self, message: Reply) -> bytes:
        """A message of the service as bytes without framing. Raises TypeError, UnicodeEncodeError."""
        if isinstance(message, str) is not self.rules.text:
            kind = "str" if self.rules.text else "bytes"
            raise TypeError(f"a message of this service must be {kind}, not {type(message).__name__}")
        return message.encode() if isinstance(message, str) else message

    def broadcast(
        self, message: Reply, to: Group | Iterable[Client[Any]] | None, but: Client[Any] | None
    ) -> int:
        """Send a message to many clients; see :meth:`chat_gevent.serving.Serving.broadcast`."""
        data = self.encode(message)
        told = self.deliver(data, to, but)
        if self.backplane is not None:
            if to is None:
                self.backplane.publish(data, None)
            elif isinstance(to, Group) and self._groups.get(to.name) is to:
                self.backplane.publish(data, to)
        return told

    def deliver(
        self,
        data: bytes,
        to: Group | Iterable[Client[Any]] | None,
        but: Client[Any] | None = None,
    ) -> int:
        """Send an encoded message to clients of this process; returns how many these are."""
        connections: Iterable[Any]
        if to is None:
            everybody = self.engine.all()
            taking = [each for each in everybody if each.state is not OPENING and each.state is not CLOSING]
            connections = [each for each in taking if not each.leaving]
        else:
            connections = [each._connection for each in to if not each.closed]
        if but is not None:
            connections = [each for each in connections if each is not but._connection]
        return self.broadcasts.start(data, connections)

    def attach(self, backplane: Any) -> None:
        """Have ``backplane`` carry broadcasts to other processes from now on."""
        self.backplane = backplane
        for group in self._groups.values():
            group._watch = backplane.watch
            if group:
                backplane.watch(group)

    def keep(self, greenlet: Greenlet[..., Any]) -> Greenlet[..., Any]:
        """End ``greenlet`` with the server."""
        self._kept = [each for each in self._kept if not each.dead]
        self._kept.append(greenlet)
        return greenlet

    def end_kept(self) -> None:
        """End what :meth:`keep` was given, unless it is what calls this."""
        for each in self._kept:
            if each is not getcurrent():
                each.kill(block=False)

    def stopping(self, server: Any) -> None:
        """Tell the service that the server is about to stop; its hook may wait until :meth:`hurry`."""
        if overrides(self.service, "stopping"):
            self.stopper = spawn(self._stopping, server)
            ends: list[Any] = [self.stopper, self._hurry]
            wait(ends, count=1)

    def _stopping(self, server: Any) -> None:
        try:
            self.service.stopping(server)
        except BaseException:  # whatever a hook raises is its own failure, not the server's
            log.exception("stopping failed")

    def drain(self, seconds: float, spread: float = 0.0) -> int:
        """Have every client leave within ``seconds``; returns how many were cut off, with replies still due.

        All that was read is answered, then the client is told ``shutting-down``. Many clients are
        told one after the other, so that they don't all come back at once.

        :param spread: seconds over which they are told, before ``seconds`` begin; without it 0.8 of those.
        """
        system = self.system
        began = system.monotonic()
        deadline = began + seconds + spread
        self.draining.set()
        leaving = self.engine.all()
        pace = (spread or min(DRAIN_PACE * len(leaving), DRAIN_SHARE * seconds)) / max(1, len(leaving))
        told = 0
        for connection in leaving:
            if connection.state >= CLOSING:
                continue  # it left while others were told: nobody has to be spared its return
            connection.ask_to_leave(ErrorCode.SHUTTING_DOWN)
            told += 1
            ahead = began + told * pace - system.monotonic()
            if ahead > 0.01 and not self._hurry.is_set():
                self._finished.wait(ahead)  # ends once all are gone, or the drain is to end at once
            if self._hurry.is_set():
                break
        if not self._hurry.is_set():  # who was accepted since then has cleared the other event
            self._finished.wait(max(0.0, deadline - system.monotonic()))
        cut_off = self.cut_off()
        system.sleep(0)  # greenlets that were cut off end now, and then their hooks are told
        if self.telling:
            self._told.clear()
            self._told.wait(max(LAST_HOOKS_SECONDS, deadline - system.monotonic()))
        return cut_off

    def hurry(self) -> None:
        """End the drain that is under way at once, or the one that is about to begin."""
        self._hurry.set()
        self._finished.set()

    def cut_off(self) -> int:
        """Close all that are left at once; returns how many of them had replies due."""
        cut_off = 0
        for rest in self.engine.all():
            cut_off += rest.state not in (OPENING, CLOSING)  # they have said nothing whole, or were answered
            rest.abort()
        return cut_off

    def close(self) -> None:
        """Give back descriptors, timers and greenlets; all connections must be gone."""
        if self.backplane is not None:
            self.backplane.stop()
        self.engine.close()


def _ticks(seconds: float, tick_seconds: float) -> int:
    return int(-(-seconds // tick_seconds)) + 1 if seconds else 2**62
