"""Many clients that send as fast as they are answered: ``python flood.py HOST PORT CLIENTS``.

Each keeps :data:`PIPELINED` lines under way. Prints ``flooding`` once all are connected and confirmed, and a
line of JSON when all connections have ended: what was confirmed, and how each connection ended.
"""

from __future__ import annotations

import json
import select
import socket
import sys
from collections import Counter

PIPELINED = 4
LINE = b"x" * 31 + b"\n"
CONFIRMED = b"Received: " + LINE
FAREWELL = b"Error: shutting-down: "


class Flooder:
    """One client."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, 20)
        self.socket.setblocking(False)
        self.due = b""
        self.confirmed = 0
        self.end = ""
        self.send(LINE * PIPELINED)

    def send(self, data: bytes) -> None:
        """Send; what does not fit is not sent, it was only load."""
        try:
            self.socket.send(data)
        except BlockingIOError:
            pass
        except OSError as error:
            self.end = f"send: {error.strerror}"

    def take(self) -> None:
        """Count the confirmations, send as many lines again; at the end of the stream note how it came."""
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self.end = f"receive: {error.strerror}"
            return
        self.due += data
        whole = self.due.count(CONFIRMED)
        if self.due.startswith(CONFIRMED * whole):
            self.due = self.due[whole * len(CONFIRMED) :]
        self.confirmed += whole
        if not data:
            told = self.due.startswith(FAREWELL) and self.due.endswith(b"\n")
            self.end = "told" if told else f"ended with {self.due[:60]!r}"
        elif FAREWELL not in self.due:
            self.send(LINE * whole)


def main(host: str, port: int, clients: int) -> None:
    """Flood until every connection has ended."""
    flooders = {}
    ready = select.epoll()
    for _ in range(clients):
        each = Flooder((host, port))
        flooders[each.socket.fileno()] = each
        ready.register(each.socket, select.EPOLLIN)
    said = False
    ends: Counter[str] = Counter()
    confirmed = 0
    while flooders:
        for fd, _ in ready.poll(30):
            each = flooders[fd]
            each.take()
            if each.end:
                ends[each.end] += 1
                confirmed += each.confirmed
                del flooders[fd]
                each.socket.close()
        if not said and all(each.confirmed for each in flooders.values()):
            said = True
            print("flooding", flush=True)
    print(json.dumps({"confirmed": confirmed, "ends": ends}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
