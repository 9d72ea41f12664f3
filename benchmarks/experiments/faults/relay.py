"""A relay between clients and a server that does to their bytes what a bad network or a bad proxy does.

It writes down what it hands to the server, and what the server says, so that the truth is known whatever
happened on the way: the replies must be those to exactly the bytes that were handed over.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Final

import gevent
from gevent import socket
from gevent.event import Event
from gevent.server import StreamServer

from benchmarks.experiments.faults.served import reset

READ: Final = 4096


@dataclass
class Passage:
    """One connection through the relay."""

    asked: bytearray = field(default_factory=bytearray)
    """What was handed to the server."""
    said: bytearray = field(default_factory=bytearray)
    """What the server said."""
    broken: bool = False
    """Whether the relay, or the server, reset it: what was under way then is lost."""
    ended: bool = False
    """Whether the server has ended its side in order."""


class Relay:
    """Listens on ``address``, and connects each client to ``server``. ``seed`` decides all that it does."""

    def __init__(self, server: tuple[str, int], seed: int) -> None:
        self._server = server
        self._random = random.Random(seed)
        self.passages: list[Passage] = []
        self.up = Event()
        """Clear while the link is down: nothing passes, in either direction."""
        self.up.set()
        self._listening = StreamServer(("127.0.0.1", 0), self._relay)
        self._listening.start()

    @property
    def address(self) -> tuple[str, int]:
        """Where clients are to connect."""
        return "127.0.0.1", int(self._listening.address[1])

    def stop(self) -> None:
        """End all that is under way."""
        self._listening.stop(0)

    def _relay(self, client: Any, _: Any) -> None:
        passage = Passage()
        self.passages.append(passage)
        chosen = random.Random(self._random.random())
        way = chosen.choice(("clean", "trickle", "delay", "reorder", "drop"))
        server = socket.create_connection(self._server, 10)
        there: gevent.Greenlet[..., None] = gevent.spawn(
            self._hand_over, client, server, passage, way, chosen
        )
        back: gevent.Greenlet[..., None] = gevent.spawn(self._bring_back, server, client, passage)
        gevent.joinall([there, back])
        for each in (client, server):
            each.close()

    def _hand_over(self, client: Any, server: Any, passage: Passage, way: str, chosen: random.Random) -> None:
        kept = b""
        try:
            while data := client.recv(READ):
                if way == "drop" and chosen.random() < 0.1:
                    passage.broken = True
                    reset(server)
                    reset(client)
                    return
                for piece in _pieces(kept + data, way, chosen):
                    self.up.wait()
                    if way == "delay":
                        gevent.sleep(chosen.random() / 50)
                    passage.asked += piece
                    server.sendall(piece)
            server.shutdown(socket.SHUT_WR)
        except OSError:
            passage.broken = True

    def _bring_back(self, server: Any, client: Any, passage: Passage) -> None:
        try:
            while data := server.recv(READ):
                passage.said += data
                self.up.wait()
                client.sendall(data)
            passage.ended = True
            client.shutdown(socket.SHUT_WR)
        except OSError:
            passage.broken = True


def _pieces(data: bytes, way: str, chosen: random.Random) -> list[bytes]:
    """``data`` as it is handed over: in pieces of 1 to 3 bytes, in a wrong order, or as it came."""
    if way == "trickle":
        return [data[place : place + 3] for place in range(0, len(data), 3)]
    if way == "reorder":
        cut = chosen.randrange(len(data) + 1)
        return [data[cut:], data[:cut]]
    return [data]


def replies_to(asked: bytes) -> bytes:
    """What a server that confirms lines of ASCII has to say to all that it was handed, with its end."""
    lines = asked.split(b"\n")
    last = lines.pop()
    messages = [line.removesuffix(b"\r") for line in lines] + ([last] if last else [])
    return b"".join(b"Received: " + message + b"\n" for message in messages)
