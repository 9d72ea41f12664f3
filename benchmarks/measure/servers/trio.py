"""Trio: a task per client, started by ``serve_tcp``; lines are split from what the stream gives."""

from __future__ import annotations

from functools import partial

import trio

from benchmarks.measure.servers.common import (
    MAX_MESSAGE_BYTES,
    TOO_LONG,
    confirm_lines,
    options,
    ready,
    reply_to,
)


async def client(stream: trio.SocketStream) -> None:
    """Confirm one client's lines until it leaves. Trio sets TCP_NODELAY by itself."""
    rest = b""
    try:
        async for data in stream:
            if not rest and data.endswith(b"\n") and len(data) <= MAX_MESSAGE_BYTES:
                confirmations = confirm_lines(
                    bytes(data)
                )  # whole lines that need no closer look, all at once
                if confirmations is not None:
                    await stream.send_all(confirmations)
                    continue
            lines = (rest + data).split(b"\n")
            rest = lines.pop()
            replies = []
            for line in lines:
                too_long = len(line) > MAX_MESSAGE_BYTES + line.endswith(b"\r")
                reply = TOO_LONG if too_long else reply_to(line)
                if reply is not None:
                    replies.append(reply)
                if too_long or reply is None:
                    await stream.send_all(b"".join(replies))
                    return
            if replies:
                await stream.send_all(b"".join(replies))
            if len(rest) > MAX_MESSAGE_BYTES + rest.endswith(b"\r"):
                await stream.send_all(TOO_LONG)
                return
        if rest:
            await stream.send_all(reply_to(rest) or b"")
    except trio.BrokenResourceError:
        pass


async def serve(host: str, port: int) -> None:
    """Serve until the process is ended."""
    async with trio.open_nursery() as nursery:
        start = partial(trio.serve_tcp, client, port, host=host, backlog=4096)
        listeners = await nursery.start(start)
        ready(listeners[0].socket.getsockname())


if __name__ == "__main__":
    given = options(__doc__)
    trio.run(serve, given.host, given.port)
