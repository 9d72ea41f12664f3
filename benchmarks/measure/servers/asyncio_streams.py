"""asyncio with streams: one task per client that awaits lines, as asyncio's own documentation shows it."""

from __future__ import annotations

import asyncio
from argparse import Namespace

from benchmarks.measure.servers.common import (
    MAX_MESSAGE_BYTES,
    TOO_LONG,
    keep_large_blocks_in_the_heap,
    options,
    ready,
    reply_to,
    tls_context,
)


async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Confirm one client's lines until it leaves."""
    try:
        while True:
            try:
                line = await reader.readline()
            except ValueError:  # longer than the reader's limit
                writer.write(TOO_LONG)
                break
            if not line:
                break
            reply = reply_to(line.removesuffix(b"\n"))
            if reply is None:
                break
            writer.write(reply)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def serve(given: Namespace) -> None:
    """Serve until the process is ended."""
    server = await asyncio.start_server(
        client, given.host, given.port, limit=MAX_MESSAGE_BYTES + 1, backlog=4096, ssl=tls_context(given)
    )
    ready(server.sockets[0].getsockname())
    await server.serve_forever()


if __name__ == "__main__":
    given = options(__doc__)
    keep_large_blocks_in_the_heap()
    asyncio.run(serve(given))
