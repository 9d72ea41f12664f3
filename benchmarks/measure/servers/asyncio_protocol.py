"""asyncio with a Protocol: no task per client, the loop calls ``data_received``. asyncio's fast way.

A buffer is kept only between reads that end inside a line; replies to one read go out in one write.
"""

from __future__ import annotations

import asyncio
from argparse import Namespace
from time import thread_time_ns
from typing import cast

from benchmarks.measure.servers.common import (
    MAX_MESSAGE_BYTES,
    TOO_LONG,
    confirm_lines,
    handle_lines,
    keep_large_blocks_in_the_heap,
    options,
    ready,
    reply_to,
    tls_context,
)


class Confirm(asyncio.Protocol):
    """One client."""

    __slots__ = ("rest", "transport")
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport; asyncio has set TCP_NODELAY on it."""
        self.transport = cast(asyncio.Transport, transport)
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        """Confirm each whole line of what came."""
        if not self.rest and data.endswith(b"\n") and len(data) <= MAX_MESSAGE_BYTES:
            confirmations = confirm_lines(data)  # whole lines that need no closer look, all at once
            if confirmations is not None:
                self.transport.write(confirmations)
                return
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        replies: list[bytes] = []
        for line in lines:
            if len(line) > MAX_MESSAGE_BYTES + line.endswith(b"\r"):
                self.leave(replies, TOO_LONG)
                return
            reply = reply_to(line)
            if reply is None:
                self.leave(replies)
                return
            replies.append(reply)
        if replies:
            self.transport.write(b"".join(replies))
        if len(self.rest) > MAX_MESSAGE_BYTES + self.rest.endswith(b"\r"):
            self.leave([], TOO_LONG)

    def leave(self, replies: list[bytes], last: bytes = b"") -> None:
        """Send what is due and end; what still comes in is dropped."""
        self.rest = b""
        self.transport.write(b"".join(replies) + last)
        self.transport.close()

    def eof_received(self) -> None:
        """Bytes that no LF closed are a last message."""
        if self.rest:
            self.transport.write(reply_to(self.rest) or b"")


class Handled(Confirm):
    """The same with a handler of one's own, which is called for each message."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Answer each whole line of what came."""
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        replies, stays = handle_lines(lines)
        if not stays:
            self.leave(replies)
            return
        if replies:
            self.transport.write(b"".join(replies))
        if len(self.rest) > MAX_MESSAGE_BYTES + self.rest.endswith(b"\r"):
            self.leave([], TOO_LONG)

    def eof_received(self) -> None:
        """Bytes that no LF closed are a last message."""
        if self.rest:
            self.transport.write(b"".join(handle_lines([self.rest])[0]))


class Slowed(Confirm):
    """The same, delayed by a busy loop of a known length for each read: to test comparisons with."""

    __slots__ = ()
    busy_ns = 0

    def data_received(self, data: bytes) -> None:
        """Burn the time, then confirm."""
        until = thread_time_ns() + self.busy_ns
        while thread_time_ns() < until:
            pass
        super().data_received(data)


async def serve(given: Namespace) -> None:
    """Serve until the process is ended."""
    Slowed.busy_ns = given.busy_ns
    protocol = Slowed if given.busy_ns else Handled if given.handler else Confirm
    server = await asyncio.get_running_loop().create_server(
        protocol, given.host, given.port, backlog=4096, ssl=tls_context(given)
    )
    ready(server.sockets[0].getsockname())
    await server.serve_forever()


if __name__ == "__main__":
    given = options(__doc__)
    keep_large_blocks_in_the_heap()
    asyncio.run(serve(given))
