"""asyncio with a Protocol: no task per client, the loop calls ``data_received``. asyncio's fast way.

A buffer is kept only between reads that end inside a line; replies to one read go out in one write.
"""

from __future__ import annotations

import asyncio
from argparse import Namespace
from time import thread_time_ns
from typing import ClassVar, cast

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
    told,
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
        self.answer(lines)

    def answer(self, lines: list[bytes]) -> None:
        """Answer whole lines; what is left must not be too long."""
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


class Push(Handled):
    """One that sends what a client says after ``!`` to everybody in its room, as written to all transports.

    ``#NAME`` puts a client into a room; until then it is in the one that all are in.
    """

    __slots__ = ("room",)
    everybody: ClassVar[set[asyncio.Transport]] = set()
    rooms: ClassVar[dict[bytes, set[asyncio.Transport]]] = {}
    room: set[asyncio.Transport]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """One more to send to."""
        super().connection_made(transport)
        self.room = self.everybody
        self.everybody.add(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """One less."""
        self.everybody.discard(self.transport)
        self.room.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        """Tell the others what follows ``!``; the rest is answered as ever."""
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        others: list[bytes] = []
        for line in lines:
            if (said := told(line)) is not None:
                self.answer(others)
                others = []
                for transport in self.room:
                    transport.write(said)
                continue
            if line.startswith(b"#"):
                self.room = self.rooms.setdefault(line, set())
                self.room.add(self.transport)
            others.append(line)
        self.answer(others)


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
    protocol = Slowed if given.busy_ns else Push if given.push else Handled if given.handler else Confirm
    server = await asyncio.get_running_loop().create_server(
        protocol, given.host, given.port, backlog=4096, ssl=tls_context(given)
    )
    ready(server.sockets[0].getsockname())
    await server.serve_forever()


if __name__ == "__main__":
    given = options(__doc__)
    keep_large_blocks_in_the_heap()
    asyncio.run(serve(given))
