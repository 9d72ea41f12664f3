"""Clients that come back: ``python returning.py HOST PORT CLIENTS RATE``, until standard input ends.

Each client keeps a few messages under way, all clients together about RATE a second. When its connection
ends it connects again after a wait by chance, which doubles with each attempt that fails, and sends again
what was not confirmed. Prints ``all there`` once every client was confirmed, and at the end a line of JSON:
what came of each connection, which has a source port of its own, and what was never confirmed.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field

import gevent
from gevent import socket

FIRST_WAIT = 0.1
LONGEST_WAIT = 1.0
TOGETHER = 3
"""Messages that a client has under way."""
PATIENCE = 10.0
"""Seconds after which a client that hears nothing of what it sent gives its connection up."""
FIRST_PORT = 10_000

ports = itertools.count(FIRST_PORT)


@dataclass
class Connection:
    """One connection; times are those of the monotonic clock, in seconds."""

    client: int
    port: int
    confirmed: int = 0
    first: float = 0.0
    """When the first message was confirmed."""
    ended: float = 0.0
    end: str = ""


@dataclass
class Returning:
    """One client."""

    number: int
    address: tuple[str, int]
    pause: float
    next: int = 0
    """The number of the next message that was never sent."""
    due: list[bytes] = field(default_factory=list)
    """Messages without a confirmation, oldest first."""
    wrong: list[str] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    stopping: bool = False

    def run(self) -> None:
        """Connect, talk, and come back, until told to stop."""
        wait = FIRST_WAIT
        while not self.stopping:
            connection = Connection(self.number, next(ports))
            try:
                with socket.create_connection(self.address, 2, ("0.0.0.0", connection.port)) as sock:
                    self.connections.append(connection)
                    sock.settimeout(PATIENCE)
                    self.talk(sock, connection)
            except OSError as error:
                connection.end = f"error: {error}"
            connection.ended = time.monotonic()
            wait = FIRST_WAIT if connection.confirmed else min(LONGEST_WAIT, 2 * wait)
            gevent.sleep(random.uniform(0, wait))

    def talk(self, sock: socket.socket, connection: Connection) -> None:
        """Send and read until the stream ends, or this client is told to stop and nothing is due."""
        unread = b""
        sock.sendall(b"".join(self.due))
        while self.due or not self.stopping:
            if not self.due and not (connection.confirmed and self.hears(sock)):
                for _ in range(TOGETHER):
                    self.due.append(b"%d-%d\n" % (self.number, self.next))
                    self.next += 1
                sock.sendall(b"".join(self.due))
            data = sock.recv(65536)
            if not data:
                connection.end = connection.end or "end"
                return
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                self.take(line, connection)
        connection.end = "stopped"

    def hears(self, sock: socket.socket) -> bool:
        """Pause; whether the server says something meanwhile, which it does only at the end."""
        try:
            socket.wait_read(sock.fileno(), timeout=random.uniform(0, 2 * self.pause))
        except TimeoutError:
            return False
        return True

    def take(self, line: bytes, connection: Connection) -> None:
        """One line of the server: a confirmation of the oldest message that is due, or why it closes."""
        if line.startswith(b"Error: "):
            connection.end = line.decode().split(":")[1].strip()
        elif self.due and line + b"\n" == b"Received: " + self.due[0]:
            del self.due[0]
            connection.confirmed += 1
            connection.first = connection.first or time.monotonic()
        else:
            self.wrong.append(line.decode(errors="replace"))


def main(host: str, port: int, count: int, rate: float) -> None:
    """Run all clients."""
    clients = [Returning(number, (host, port), count * TOGETHER / rate) for number in range(count)]
    greenlets = [gevent.spawn_later(number * 0.002, each.run) for number, each in enumerate(clients)]
    while not all(each.next for each in clients) or not all(
        each.connections[-1].confirmed for each in clients
    ):
        gevent.sleep(0.01)
    print("all there", flush=True)
    gevent.get_hub().threadpool.apply(sys.stdin.read)
    for each in clients:
        each.stopping = True
    gevent.joinall(greenlets, timeout=20)
    print(
        json.dumps(
            {
                "unfinished": sum(not each.dead for each in greenlets),
                "due": sum(len(each.due) for each in clients),
                "sent": sum(each.next for each in clients),
                "wrong": [line for each in clients for line in each.wrong],
                "connections": [asdict(connection) for each in clients for connection in each.connections],
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
