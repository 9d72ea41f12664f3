"""The service of `chat_gevent` that sends what a client says to many: `!TEXT` to all, or to its room.

`#NAME` puts the client into a room, and is confirmed as any other message is.
"""

from __future__ import annotations

from typing import Any

from chat_gevent.service import Client, Service


class Push(Service):
    """Everybody is told what one says after `!`."""

    def started(self, server: Any) -> None:
        """Remember who has the clients."""
        self.server = server

    def message(self, message: str, client: Client[Any]) -> str | None:
        """Tell the others, or confirm."""
        if message.startswith("!"):
            self.server.broadcast(message[1:], client.state)
            return None
        if message.startswith("#"):
            if client.state is not None:
                client.state.discard(client)
            client.state = self.server.group(message[1:])
            client.state.add(client)
        return "Received: " + message
