"""Broadcasts between processes and machines, over Redis pub/sub.

The clients of one room sit in several processes. With a :class:`Backplane`, a broadcast to all clients or
to a group is delivered in its own process as ever, at once and whether Redis is there or not, and is
published for the others. There is one channel for all clients, and one for each group, which is subscribed
to only while the group has clients here.

**Delivery is at most once.** What is published while a receiver has no connection to Redis does not reach
its clients, and nothing is repeated. A broadcast is dropped, and counted, while Redis is lost and where
more wait for it than :data:`MOST_QUEUED` or :data:`MOST_QUEUED_BYTES`. Each carries its sender's number
and a sequence. By these a process knows its own when it comes back from Redis, and drops what is not newer
than what it had from that sender: Redis may still read a sender's old connection after it has reconnected.
So the order of one sender is kept, and nothing comes twice.

The library's pub/sub object is not used, because it reconnects by itself and in silence. There are two
connections, as a subscribed one can't publish. Both are asked for a sign of life, so that a peer that
vanished without a word is noticed.

Needs the extra ``redis``.
"""

from __future__ import annotations

import logging
import os
import random
import struct
from collections import OrderedDict, deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final, NoReturn

import gevent
from gevent.event import Event
from redis.exceptions import RedisError

from chat_gevent.broadcast import Group
from chat_gevent.core import Core
from chat_gevent.redis_connection import connections

MOST_QUEUED: Final = 10_000
"""Most broadcasts that wait to be handed to Redis."""

MOST_QUEUED_BYTES: Final = 2**24
"""Most bytes of these."""

BATCH: Final = 256
"""Most broadcasts that are handed to Redis in one go, to wait for its answers once."""

PING_SECONDS: Final = 1.0
"""After so much silence Redis is asked for a sign of life."""

ANSWER_SECONDS: Final = 2.5
"""Redis is lost if it takes longer to answer, or to be connected to."""

FIRST_RETRY, LONGEST_RETRY = 0.1, 1.5
"""Seconds from a failure to the next try: doubled each time up to the longest, and up to half is taken off at
random. With :data:`ANSWER_SECONDS` for a try that was under way it is less than the 5 s that are promised."""

TURN_SECONDS: Final = 0.002
"""How long messages from Redis are delivered before clients have their turn."""

MOST_BEHIND: Final = 64
"""Nothing is read from Redis while more broadcasts than this are still being handed to clients."""

MOST_SENDERS: Final = 4096
"""Of so many other processes the last sequence is remembered; those silent for longest are forgotten."""

FAREWELL_SECONDS: Final = 1.0
"""How long :meth:`Backplane.stop` waits for Redis to take what is queued."""

CHANNELS_AT_ONCE: Final = 500
"""Most channels named in one command."""

HEADER: Final = struct.Struct(">B8sQ")
"""Before each message: version, sender, sequence."""

VERSION: Final = 1

log = logging.getLogger("chat_gevent")


class Backplane:
    """The connection of one process with the others, by way of Redis.

    :param url: ``redis://[user:password@]host[:port][/db]``, ``rediss://`` for TLS, ``unix:///path``; the
        client library's options may follow as a query.
    :param core: whose broadcasts these are; it is given the backplane.
    :param prefix: of all channels: services with different prefixes may share a Redis, and hear nothing of
        each other.

    Raises ValueError: the URL can't be used.
    """

    def __init__(self, url: str, core: Core, prefix: str = "chat-gevent:") -> None:
        self._connection, self.name = connections(url, ANSWER_SECONDS)
        self._core = core
        self._prefix = prefix
        self._everybody = f"{prefix}all".encode("utf-8", "surrogatepass")
        self._sender = os.urandom(8)
        self._sequence = 0
        self._heard: OrderedDict[bytes, int] = OrderedDict()  # sender -> its last sequence
        self._channels: dict[bytes, Group | None] = {self._everybody: None}
        self._changed: set[bytes] = set()  # channels to subscribe to, or to unsubscribe from
        self._has_changed = Event()
        self._queue: deque[tuple[bytes, bytes]] = deque()
        self._queued_bytes = 0
        self._has_queued = Event()
        self._in_flight = 0  # handed to Redis, and not answered yet
        self._greenlet: gevent.Greenlet[[], None] | None = None
        self._tried = Event()
        self._told_lost = False
        self._told_strange = False
        self.connected = False
        """Whether broadcasts reach other processes now."""
        self.published = 0
        """Broadcasts that Redis took."""
        self.received = 0
        """Broadcasts of other processes that were delivered here."""
        self.dropped = 0
        """Broadcasts of this process that Redis did not take, or did not confirm."""
        core.attach(self)

    # -- what the core calls; none of this blocks ------------------------------------------------------

    def publish(self, message: bytes, group: Group | None) -> None:
        """Have a broadcast reach the clients of other processes: all, or those of ``group``."""
        size = HEADER.size + len(message)
        if (
            not self.connected
            or len(self._queue) >= MOST_QUEUED
            or self._queued_bytes + size > MOST_QUEUED_BYTES
        ):
            self.dropped += 1
            return
        self._sequence += 1
        channel = self._everybody if group is None else self._channel(group)
        self._queue.append((channel, HEADER.pack(VERSION, self._sender, self._sequence) + message))
        self._queued_bytes += size
        self._has_queued.set()

    def watch(self, group: Group) -> None:
        """A group has got its first client, or has lost its last one."""
        channel = self._channel(group)
        if group:
            self._channels[channel] = group
        else:
            self._channels.pop(channel, None)
        self._changed.add(channel)
        self._has_changed.set()

    def _channel(self, group: Group) -> bytes:
        return f"{self._prefix}group:{group.name}".encode("utf-8", "surrogatepass")

    # -- its life ------------------------------------------------------------------------------------

    def start(self, wait: float = 0.0) -> None:
        """Connect, and stay connected; waits at most ``wait`` seconds for the first try to succeed or fail.

        Does nothing if it was started. An unreachable Redis is told in the log, and tried again.
        """
        if self._greenlet is None:
            self._greenlet = gevent.spawn(self._run)
        if wait:
            self._tried.wait(wait)

    def stop(self) -> None:
        """Hand what is queued to Redis, within a second, and disconnect."""
        if self._greenlet is None:
            return
        with gevent.Timeout(FAREWELL_SECONDS, False):  # type: ignore[arg-type]  # False: end silently
            while self.connected and (self._queue or self._in_flight):
                gevent.sleep(0.005)
        self._greenlet.kill()
        self._greenlet = None
        self._disconnected()

    def _run(self) -> None:
        delay = FIRST_RETRY
        while True:
            try:
                self._session()
            except (RedisError, OSError) as error:
                if self.connected:
                    delay = FIRST_RETRY
                self._disconnected()
                self._tell_lost(error)
                self._tried.set()
            gevent.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(2 * delay, LONGEST_RETRY)

    def _session(self) -> NoReturn:
        """Connect, and carry broadcasts both ways until something fails. Raises RedisError, OSError."""
        subscriber, publisher = self._connection(), self._connection()
        parts: list[gevent.Greenlet[..., Exception]] = []
        try:
            publisher.connect()
            subscriber.connect()
            self._changed = set(self._channels)
            parts = [
                gevent.spawn(_until_lost, self._subscribe, subscriber),
                gevent.spawn(_until_lost, self._receive, subscriber),
                gevent.spawn(_until_lost, self._publish, publisher),
            ]
            (ended, *_) = gevent.wait(parts, count=1)
            raise ended.get()
        finally:
            gevent.killall(parts)
            subscriber.disconnect()
            publisher.disconnect()

    def _disconnected(self) -> None:
        """Whatever has not left is dropped: sent later, it would reach only those who were back sooner."""
        self.connected = False
        self.dropped += len(self._queue) + self._in_flight
        self._in_flight = self._queued_bytes = 0
        self._queue.clear()

    def _tell_lost(self, error: Exception) -> None:
        if self._told_lost:
            log.debug("backplane %s: %s", self.name, error)
            return
        self._told_lost = True
        log.warning(
            "backplane lost: %s: %s; broadcasts stay in this process until it is back", self.name, error
        )

    def _tell_connected(self) -> None:
        self.connected = True
        self._tried.set()
        log.info("backplane %s: %s", "is back" if self._told_lost else "connected", self.name)
        self._told_lost = False

    # -- the three parts of a session: each ends by raising ------------------------------------------

    def _subscribe(self, connection: Any) -> NoReturn:
        """Keep the subscriptions as the groups are. The first sign of life says that all are made."""
        subscribed: set[bytes] = set()
        silent = True
        while True:
            changed, self._changed = self._changed, set()
            self._has_changed.clear()
            added = [each for each in changed if each in self._channels and each not in subscribed]
            removed = [each for each in changed if each not in self._channels and each in subscribed]
            for command, channels in (("SUBSCRIBE", added), ("UNSUBSCRIBE", removed)):
                for start in range(0, len(channels), CHANNELS_AT_ONCE):
                    some = channels[start : start + CHANNELS_AT_ONCE]
                    connection.send_command(command, *some, check_health=False)
            subscribed.update(added)
            subscribed.difference_update(removed)
            if silent:
                connection.send_command("PING", check_health=False)
            silent = not self._has_changed.wait(PING_SECONDS)

    def _receive(self, connection: Any) -> NoReturn:
        """Deliver what other processes broadcast."""
        broadcasts = self._core.broadcasts
        until = perf_counter() + TURN_SECONDS
        while True:
            kind, channel, *rest = connection.read_response()
            if kind == b"message":
                self._deliver(channel, rest[0])
                if perf_counter() >= until:
                    gevent.sleep(0)
                    while len(broadcasts.running) > MOST_BEHIND:
                        gevent.sleep(TURN_SECONDS)
                    until = perf_counter() + TURN_SECONDS
            elif kind == b"pong" and not self.connected:
                self._tell_connected()

    def _deliver(self, channel: bytes, payload: bytes) -> None:
        if len(payload) < HEADER.size or payload[0] != VERSION:
            if not self._told_strange:
                self._told_strange = True
                log.warning("backplane %s: dropped what is not of this version, in %r", self.name, channel)
            return
        _, sender, sequence = HEADER.unpack_from(payload)
        heard = self._heard
        if sender == self._sender or sequence <= heard.get(sender, 0):
            return
        heard[sender] = sequence
        heard.move_to_end(sender)
        if len(heard) > MOST_SENDERS:
            heard.popitem(last=False)
        try:
            group = self._channels[channel]
        except KeyError:  # the last client has left it meanwhile
            return
        self.received += 1
        try:
            self._core.deliver(payload[HEADER.size :], group)
        except Exception:  # the service's framing can't carry it: not the backplane's failure
            log.exception("backplane %s: a broadcast can't be delivered", self.name)

    def _publish(self, connection: Any) -> NoReturn:
        """Hand to Redis what this process broadcasts."""
        queue = self._queue
        while True:
            if not queue:
                self._has_queued.clear()
                if not self._has_queued.wait(PING_SECONDS):
                    connection.send_command("PING", check_health=False)
                    connection.read_response()
                continue
            batch = [queue.popleft() for _ in range(min(BATCH, len(queue)))]
            self._in_flight = len(batch)
            self._queued_bytes -= sum(len(payload) for _, payload in batch)
            packed = connection.pack_commands([("PUBLISH", channel, payload) for channel, payload in batch])
            connection.send_packed_command(packed, check_health=False)
            for _ in batch:
                connection.read_response()
                self._in_flight -= 1
                self.published += 1


def _until_lost(part: Callable[[Any], NoReturn], connection: Any) -> Exception:
    """Run a part of a session, and return what ended it: it is no error of a greenlet's, to be printed."""
    try:
        part(connection)
    except (RedisError, OSError) as error:
        return error
    except (
        Exception
    ) as error:  # an answer that makes no sense: a new connection may help, giving up would not
        log.exception("the backplane failed")
        return RedisError(f"{type(error).__name__}: {error}")
