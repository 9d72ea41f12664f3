"""Confirms whole lines; several of these share a port, as each may open 20,000 files only.

The port is its only argument, 0 for a free one; it prints the port that it has.
"""

from __future__ import annotations

import select
import socket
import sys

from chat_gevent.files import raise_file_limit


def serve(port: int) -> None:
    """Serve until killed."""
    raise_file_limit()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(65_535)
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    print(listener.getsockname()[1], flush=True)
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                client, _ = listener.accept()
                client.setblocking(False)
                clients[client.fileno()] = client
                poll.register(client, select.EPOLLIN)
                continue
            try:
                data = clients[number].recv(4096)
            except ConnectionError:
                data = b""
            if data:
                clients[number].send(b"Received: " + data)
            else:
                clients.pop(number).close()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
