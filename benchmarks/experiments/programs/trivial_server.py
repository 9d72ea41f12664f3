"""A server that does next to nothing: one confirmation, or one HTTP response, for each read.

``tcp`` or ``http`` is its only argument; it prints the free port that it has taken.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

RESPONSE = b"Received: " + b"0123456789abcdef0123456789abcdef\n"
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


async def main(kind: str) -> None:
    """Serve until killed."""
    protocol = {"tcp": Tcp, "http": Http}[kind]
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
