"""gevent as its documentation shows it: StreamServer, one greenlet per client, ``recv`` and ``sendall``."""

from __future__ import annotations

from typing import Any

import gevent
from gevent.queue import Queue
from gevent.server import StreamServer

from benchmarks.measure.servers.common import (
    MAX_MESSAGE_BYTES,
    TOO_LONG,
    confirm_lines,
    handle_lines,
    no_delay,
    options,
    ready,
    reply_to,
    told,
)


def client(connection: Any, address: Any) -> None:
    """Confirm one client's lines until it leaves."""
    no_delay(connection)
    rest = b""
    try:
        while data := connection.recv(65_536):
            if not rest and data.endswith(b"\n"):
                confirmations = confirm_lines(data)  # whole lines that need no closer look, all at once
                if confirmations is not None:
                    connection.sendall(confirmations)
                    continue
            lines = (rest + data).split(b"\n")
            rest = lines.pop()
            replies = []
            for line in lines:
                if len(line) > MAX_MESSAGE_BYTES + line.endswith(b"\r"):
                    replies.append(TOO_LONG)
                    reply = None
                else:
                    reply = reply_to(line)
                if reply is None:
                    connection.sendall(b"".join(replies))
                    return
                replies.append(reply)
            if replies:
                connection.sendall(b"".join(replies))
            if len(rest) > MAX_MESSAGE_BYTES + rest.endswith(b"\r"):
                connection.sendall(TOO_LONG)
                return
        if rest:
            connection.sendall(reply_to(rest) or b"")
    except ConnectionError:
        pass


def handled(connection: Any, address: Any) -> None:
    """Answer one client's lines with a handler of one's own, which is called for each message."""
    no_delay(connection)
    rest = b""
    try:
        while data := connection.recv(65_536):
            lines = (rest + data).split(b"\n")
            rest = lines.pop()
            replies, stays = handle_lines(lines)
            if replies:
                connection.sendall(b"".join(replies))
            if not stays:
                return
            if len(rest) > MAX_MESSAGE_BYTES + rest.endswith(b"\r"):
                connection.sendall(TOO_LONG)
                return
        if rest:
            connection.sendall(b"".join(handle_lines([rest])[0]))
    except ConnectionError:
        pass


everybody: set[Queue[Any]] = set()
rooms: dict[bytes, set[Queue[Any]]] = {}


def pushed(connection: Any, address: Any) -> None:
    """Send what a client says after ``!`` to everybody in its room: a queue and a writer a client."""
    no_delay(connection)
    outbox: Queue[Any] = Queue()
    room, rest = everybody, b""
    everybody.add(outbox)
    writer = gevent.spawn(write, connection, outbox)
    try:
        while data := connection.recv(65_536):
            lines = (rest + data).split(b"\n")
            rest = lines.pop()
            for line in lines:
                if (said := told(line)) is not None:
                    for each in room:
                        each.put(said)
                    continue
                if line.startswith(b"#"):
                    room = rooms.setdefault(line, set())
                    room.add(outbox)
                replies, stays = handle_lines([line])
                outbox.put(b"".join(replies))
                if not stays:
                    return
            if len(rest) > MAX_MESSAGE_BYTES + rest.endswith(b"\r"):
                outbox.put(TOO_LONG)
                return
        if rest:
            outbox.put(b"".join(handle_lines([rest])[0]))
    except ConnectionError:
        pass
    finally:
        everybody.discard(outbox)
        room.discard(outbox)
        outbox.put(StopIteration)
        writer.join()


def write(connection: Any, outbox: Queue[Any]) -> None:
    """Send whatever waits, in one call, until the outbox says that there is no more."""
    try:
        for first in outbox:
            parts = [first]
            while outbox.qsize() > 1:
                parts.append(outbox.get())
            connection.sendall(b"".join(parts))
    except ConnectionError:
        pass


def main() -> None:
    """Serve until the process is ended."""
    given = options(__doc__)
    tls: Any = {"certfile": given.tls_certificate, "keyfile": given.tls_key} if given.tls_certificate else {}
    serve = pushed if given.push else handled if given.handler else client
    server = StreamServer((given.host, given.port), serve, backlog=4096, **tls)
    server.start()
    ready((given.host, server.server_port or 0))
    server.serve_forever()


if __name__ == "__main__":
    main()
