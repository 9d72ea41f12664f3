"""Tornado: a TCPServer whose coroutine per client reads up to each LF from an IOStream."""

from __future__ import annotations

import asyncio
from argparse import Namespace

from tornado.iostream import IOStream, StreamClosedError, UnsatisfiableReadError
from tornado.netutil import bind_sockets
from tornado.tcpserver import TCPServer

from benchmarks.measure.servers.common import MAX_MESSAGE_BYTES, options, ready, reply_to, tls_context


class Confirm(TCPServer):
    """Confirms lines."""

    async def handle_stream(self, stream: IOStream, address: tuple[str, int]) -> None:
        """Confirm one client's lines until it leaves."""
        stream.set_nodelay(True)
        try:
            while True:
                line = await stream.read_until(b"\n", max_bytes=MAX_MESSAGE_BYTES + 2)
                reply = reply_to(line[:-1])
                if reply is None:
                    break
                await stream.write(reply)
        except UnsatisfiableReadError:  # Tornado has closed the stream: there is no way left to say why
            pass
        except StreamClosedError as closed:
            if closed.real_error is not None:
                return
        stream.close()


async def serve(given: Namespace) -> None:
    """Serve until the process is ended."""
    sockets = bind_sockets(given.port, given.host, backlog=4096)
    server = Confirm(ssl_options=tls_context(given))
    server.add_sockets(sockets)
    ready(sockets[0].getsockname())
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(options(__doc__)))
