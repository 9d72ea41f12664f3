"""The books of a server: how many clients there are and were, from which addresses, and how they left.

A message adds to three integers of its connection. Totals are added up here when somebody asks, over the live
connections and what the closed ones had, so that no message pays for it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from gevent.event import Event

from chat_gevent.addresses import WHOLE_IPV6, counted_as, peer_address
from chat_gevent.confirm import ErrorCode
from chat_gevent.identity import ProxyIdentity
from chat_gevent.lifecycle import REFUSALS, Lifecycle
from chat_gevent.places import Places

log = logging.getLogger("chat_gevent")


class Registry:
    """Live connections, totals, and places per address.

    :param per_address: most clients of one address; 0: no limit.
    :param ipv6_prefix: how many bits of an IPv6 address tell two clients apart.
    """

    def __init__(self, per_address: int = 0, ipv6_prefix: int = WHOLE_IPV6) -> None:
        self.live = 0
        self.refusals = 0  # of the live ones, those that were refused and only read why
        self.accepted = 0
        self.closed: Counter[str] = Counter()  # by reason
        self.refused: Counter[str] = Counter()  # by error code
        self.errors: Counter[str] = Counter()  # error replies by code
        self.past_messages = self.past_received = self.past_sent = 0  # of connections that are closed
        self.pushes = 0  # messages put into outboxes unasked
        self.dropped = 0  # pushes that a slow client did not get
        self.on_close: Callable[[Any], None] | None = None
        """Told of each connection that closes, before its descriptor does; to be set before the first."""
        self.empty = Event()
        self.empty.set()
        self.proxied: dict[Lifecycle, ProxyIdentity] = {}
        """What proxies said of clients beside the address: only of those of whom they said something."""
        self.places: Places | None = Places(per_address) if per_address else None
        """Those of each address, if there is a limit; to be replaced before the first connection."""
        self._ipv6_prefix = ipv6_prefix

    def add(self, connection: Lifecycle, address: Any = None) -> None:
        """Count a new connection. ``address`` is kept only where somebody will ask for it."""
        if address and (self.places is not None or self.on_close is not None):
            self._know(connection, peer_address(address))
        self.live += 1
        self.empty.clear()

    def attribute(self, connection: Lifecycle, address: Any) -> None:
        """Put a connection down to the address that a proxy gave, if that may have another one."""
        if connection.leaving in REFUSALS:
            connection.peer = address
        else:
            self._know(connection, address)

    def address_is_full(self, address: Any) -> bool:
        """Whether an address has all the connections it may have; UNIX clients have none to count."""
        if self.places is None:
            return False
        host = self._counted_as(address)
        return bool(host) and self.places.full(host)

    def _counted_as(self, address: Any) -> str:
        known = peer_address(address)
        return "" if known is None else counted_as(known, self._ipv6_prefix)

    def _know(self, connection: Lifecycle, address: Any) -> None:
        connection.peer = address
        if self.places is None or not (host := self._counted_as(address)) or self.places.take(host):
            return
        connection.refuse(ErrorCode.ADDRESS_FULL)
        self.refused[ErrorCode.ADDRESS_FULL] += 1
        self.refusals += 1

    def remove(self, connection: Lifecycle) -> None:
        """Take the books of a connection that closes; its descriptor is still open."""
        self.live -= 1
        if self.proxied:
            self.proxied.pop(connection, None)
        self.closed[connection.reason] += 1
        self.past_messages += connection.messages
        self.past_received += connection.received
        self.past_sent += connection.sent
        if connection.leaving in REFUSALS:
            self.refusals -= 1
        elif self.places is not None and (host := self._counted_as(connection.peer)):
            self.places.give_back(host)
        if self.on_close is not None:
            try:
                self.on_close(connection)
            except Exception:  # its own failure: the connection closes all the same
                log.exception("on_close failed")
        if not self.live:
            self.empty.set()

    def totals(self, live: Iterable[Lifecycle]) -> tuple[int, int, int]:
        """Messages answered, bytes received and bytes sent since the start; ``live`` are all connections."""
        messages, received, sent = self.past_messages, self.past_received, self.past_sent
        for each in live:
            messages += each.messages
            received += each.received
            sent += each.sent
        return messages, received, sent
