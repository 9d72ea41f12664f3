"""gevent as its documentation shows it: StreamServer, one greenlet per client, ``recv`` and ``sendall``."""

from __future__ import annotations

from typing import Any

from gevent.server import StreamServer

from benchmarks.servers.common import MAX_MESSAGE_BYTES, TOO_LONG, no_delay, options, ready, reply_to


def client(connection: Any, address: Any) -> None:
    """Confirm one client's lines until it leaves."""
    no_delay(connection)
    rest = b""
    try:
        while data := connection.recv(65_536):
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


def main() -> None:
    """Serve until the process is ended."""
    given = options(__doc__)
    server = StreamServer((given.host, given.port), client, backlog=4096)
    server.start()
    ready((server.server_host, server.server_port))
    server.serve_forever()


if __name__ == "__main__":
    main()
