"""The clients of the experiment ``storm``, in a process of their own.

Arguments, each NAME=VALUE: ``host``, ``port``, ``clients``, ``number`` (of the first of them), and how they
come back: ``first``, ``longest`` and ``within`` as of :class:`chat_gevent.reconnect.Reconnect`. It is told by
lines on standard input what to do, and answers with a line of JSON:

* ``connect RATE``: connect on an open schedule, RATE clients a second whether or not those before them are
  confirmed; answered once all have had a message confirmed;
* ``storm``: from now on the connections will be lost; answered at once (``waiting``), and again (``back``)
  when each client has had a message confirmed over a new connection, or has given up.

A client here keeps to the rules of :class:`chat_gevent.ChatClient`, by the same code: what the last word asks
for, else exponential back-off with full jitter. It is one object on one epoll, so that a process carries as
many as it may open files. Each source address has 2,000 clients: one alone has 28,000 ports.
"""

from __future__ import annotations

import errno
import heapq
import json
import select
import socket
import sys
import time
from collections import Counter
from typing import Any, Final

from chat_gevent.confirm import error_code, retry_seconds
from chat_gevent.files import raise_file_limit
from chat_gevent.reconnect import Attempts, Reconnect

ADDRESS_CLIENTS: Final = 2000
IP_BIND_ADDRESS_NO_PORT: Final = 24
"""ip(7): the port is chosen at the connect, where it need not be free for other destinations."""
EVENTS: Final = 512


class Client:
    """One client: its connection, and what it knows of its loss."""

    __slots__ = ("attempts", "confirmed", "hint", "lost_at", "number", "sent", "socket")

    def __init__(self, number: int, policy: Reconnect) -> None:
        self.number = number
        self.socket: socket.socket | None = None
        self.sent = self.confirmed = False  # the message of this connection
        self.attempts = Attempts(policy)
        self.hint: float | None = None
        self.lost_at = 0.0


class Clients:
    """All clients of this process.

    :param source: the number of the first, among those of all processes.
    """

    def __init__(self, address: tuple[str, int], count: int, source: int, policy: Reconnect) -> None:
        self._address = address
        self._policy = policy
        self._clients = [Client(source + number, policy) for number in range(count)]
        self._by_fd: dict[int, Client] = {}
        self._epoll = select.epoll()
        self._due: list[tuple[float, int, Client]] = []
        self._missing = 0  # clients whose confirmation is waited for
        self._storms = False
        self._last = 0.0
        self.refusals: Counter[str] = Counter()
        self.away: list[float] = []
        self.hints: list[float] = []
        self.given_up = 0

    def connect_all(self, rate: float) -> dict[str, Any]:
        """Connect on an open schedule of ``rate`` a second; returns when it began and ended."""
        began = time.monotonic()
        for position, client in enumerate(self._clients):
            client.lost_at = began + position / rate
            self._put_off(client, client.lost_at)
        self._missing = len(self._clients)
        self._work()
        waits = sorted(self.away)
        self.away = []
        return {"began": began, "last": self._last, "waits": waits, "refusals": dict(self.refusals)}

    def storm(self) -> dict[str, Any]:
        """Wait until each client was lost and is back; returns what that took."""
        self.refusals.clear()
        self._storms = True
        self._missing = len(self._clients)
        self._work()
        return {
            "last": self._last,
            "away": self.away,
            "hints": self.hints,
            "refusals": dict(self.refusals),
            "given_up": self.given_up,
        }

    def _put_off(self, client: Client, due: float) -> None:
        heapq.heappush(self._due, (due, client.number, client))

    def _work(self) -> None:
        """Try to connect whoever is due, and serve events, until nobody is missing."""
        while self._missing:
            now = time.monotonic()
            for _ in range(EVENTS):  # then those have their turn that wait for a reply
                if not self._due or self._due[0][0] > now:
                    break
                self._try(heapq.heappop(self._due)[2])
            wait = 1.0
            if self._due:
                wait = min(wait, max(0.0, self._due[0][0] - time.monotonic()))
            for fd, _ in self._epoll.poll(wait, EVENTS):
                client = self._by_fd.get(fd)
                if client is not None:
                    self._serve(client)

    def _try(self, client: Client) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((f"127.0.0.{2 + client.number // ADDRESS_CLIENTS}", 0))
        client.socket, client.sent, client.confirmed, client.hint = sock, False, False, None
        problem = sock.connect_ex(self._address)
        if problem not in (0, errno.EINPROGRESS):
            self._lose(client, problem)
            return
        self._by_fd[sock.fileno()] = client
        self._epoll.register(sock, select.EPOLLOUT)

    def _serve(self, client: Client) -> None:
        """There was an event: send the message, or read."""
        sock = client.socket
        assert sock is not None
        try:
            if not client.sent:
                client.sent = True
                sock.send(b"%d\n" % client.number)
                self._epoll.modify(sock, select.EPOLLIN)
                return
            data = sock.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(client, error.errno or 0)
            return
        if not data:
            self._lose(client, 0)
            return
        for line in data.decode().splitlines():
            if line == f"Received: {client.number}" and not client.confirmed:
                client.confirmed = True
                client.attempts.answered()
                self._last = time.monotonic()
                self.away.append(self._last - client.lost_at)
                self._missing -= 1
            elif code := error_code(line):
                client.hint = retry_seconds(line)
                if client.hint is not None:
                    self.hints.append(client.hint)
                if not client.confirmed:
                    self.refusals[code] += 1
            else:
                raise SystemExit(f"client {client.number} was sent {line!r}")

    def _lose(self, client: Client, problem: int) -> None:
        """The connection is gone, or was not made."""
        now = time.monotonic()
        sock, client.socket = client.socket, None
        assert sock is not None
        self._by_fd.pop(sock.fileno(), None)
        sock.close()  # which takes it out of the epoll
        if client.confirmed:
            if not self._storms:
                raise SystemExit(f"client {client.number} was lost before the storm")
            client.lost_at = now
        elif client.hint is None:
            self.refusals[errno.errorcode.get(problem, "end of stream")] += 1
        if self._storms and now - client.lost_at > self._policy.within:
            self.given_up += 1
            self._missing -= 1
            return
        client.attempts.lost(client.hint, "")
        self._put_off(client, client.attempts.due)


def main() -> None:
    """Do what standard input says, until it ends."""
    raise_file_limit()
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    policy = Reconnect(
        first=float(given["first"]), longest=float(given["longest"]), within=float(given["within"])
    )
    address = given["host"], int(given["port"])
    clients = Clients(address, int(given["clients"]), int(given["number"]), policy)

    def answer(event: str, figures: dict[str, Any]) -> None:
        print(json.dumps({"event": event, **figures}), flush=True)

    for line in sys.stdin:
        command, *words = line.split()
        if command == "connect":
            answer("connected", clients.connect_all(float(words[0])))
        elif command == "storm":
            answer("waiting", {})
            answer("back", clients.storm())


if __name__ == "__main__":
    main()
