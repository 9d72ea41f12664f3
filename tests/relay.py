"""A service for tests of broadcasts between processes: each message of a client is an order to the server."""

from __future__ import annotations

import itertools
from typing import Any

from chat_gevent.service import Client, Service


class Relay(Service):
    """Does what it is told: ``all X``, ``but X``, ``local X``, ``join G``, ``leave G``, ``group G X``,
    ``count N``, ``stream``, ``halt``. Names of groups have no spaces.
    """

    def started(self, server: Any) -> None:
        """Keep the server."""
        self.server = server
        self.streams: list[Any] = []

    def stopping(self, server: Any) -> None:
        """Say so, everywhere."""
        server.broadcast("stopping")

    def message(self, message: str, client: Client[Any]) -> str | None:
        """Carry an order out; some are answered with ``told N``."""
        order, _, rest = message.partition(" ")
        server = self.server
        told = None
        if order == "all":
            told = server.broadcast(rest)
        elif order == "but":
            told = server.broadcast(rest, but=client)
        elif order == "local":
            told = server.broadcast(rest, to=[each for each in server.clients if each is not client])
        elif order == "join":
            server.group(rest).add(client)
            return "joined"
        elif order == "leave":
            server.group(rest).discard(client)
            return "left"
        elif order == "group":
            name, _, rest = rest.partition(" ")
            told = server.broadcast(rest, to=server.group(name))
        elif order == "count":
            room = server.group("counted")
            for number in range(int(rest)):
                server.broadcast(f"n {number}", to=room if number % 2 else None)
        elif order == "stream":
            numbers = itertools.count()
            self.streams.append(server.every(0.002, lambda: server.broadcast(f"n {next(numbers)}")))
        elif order == "halt":
            self.streams.pop().kill()
            server.broadcast("halted")
        return None if told is None else f"told {told}"
