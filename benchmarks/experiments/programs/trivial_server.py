"""A server that does next to nothing: one confirmation, or one HTTP response, for each read, or only pushes.

``tcp``, ``http`` or ``push`` is its only argument; it prints the free port that it has taken.
"""

from __future__ import annotations

import asyncio
import sys
from typing import ClassVar, Final, cast

RESPONSE = b"Received: " + b"0123456789abcdef0123456789abcdef\n"
PUSH_SECONDS: Final = 0.001
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: text/plain\r\n\r\n" % len(RESPONSE)


class Tcp(asyncio.Protocol):
    """Confirms each read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what replies go to."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Reply."""
        self.transport.write(b"Received: " + data)


class Http(Tcp):
    """Answers each read as a request."""

    def data_received(self, data: bytes) -> None:
        """Reply."""
        self.transport.write(HEAD + RESPONSE)


class Push(asyncio.Protocol):
    """Is sent what :func:`push` sends to all."""

    everybody: ClassVar[set[asyncio.Transport]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Belong to those who are sent something."""
        self.transport = cast(asyncio.Transport, transport)
        self.everybody.add(self.transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Belong to them no more."""
        self.everybody.discard(self.transport)


async def push() -> None:
    """Send a message to everybody, each millisecond at most."""
    while True:
        for each in list(Push.everybody):
            each.write(RESPONSE)
        await asyncio.sleep(PUSH_SECONDS)


async def main(kind: str) -> None:
    """Serve until killed."""
    protocol = {"tcp": Tcp, "http": Http, "push": Push}[kind]
    pushing = asyncio.create_task(push())
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
    pushing.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
