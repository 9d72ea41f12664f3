"""A room full of clients of ``chat_gevent.rooms``, over real connections: who speaks is heard by everybody.

Some of the members speak at a steady rate for some seconds; each line that they say carries the time, and
each member that hears it notes how late. A line that somebody did not get is counted as missing. It is a
picture of pushes for the demo, with one client process for all members: what it says are figures of one run.
``python -m benchmarks run rooms`` measures what pushes cost.
"""

from __future__ import annotations

import selectors
import socket
import time
from dataclasses import dataclass, field
from typing import Final

ROOM: Final = "demo"
NAMES: Final = ("ann", "bob", "eve")
RATE: Final = 4.0
"""Lines a second of each that speaks; the service takes 5."""

TIMEOUT: Final = 10.0
"""Seconds for an answer, and at the end for what is still under way."""


@dataclass(slots=True)
class Talk:
    """What was said and heard. ``late`` has the seconds from each line's sending to each one's hearing it."""

    members: int
    speakers: int
    said: int = 0
    late: list[float] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    """What the first member was shown, line by line."""

    @property
    def missing(self) -> int:
        """Deliveries that did not come."""
        return self.said * self.members - len(self.late)

    def lateness(self, share: float) -> float:
        """The seconds within which this share of all deliveries came."""
        ordered = sorted(self.late)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class _Member:
    """One client in the room."""

    def __init__(self, host: str, port: int, name: str) -> None:
        self.socket = socket.create_connection((host, port), TIMEOUT)
        self._rest = b""
        self.before: list[str] = []
        self.socket.sendall(f"/nick {name}\n/join {ROOM}\n".encode())
        while not any(line.startswith(f"* you are in #{ROOM}") for line in self.before):
            self.before += self.lines()

    def lines(self) -> list[str]:
        """The lines of one read. Raises ConnectionError where the server has gone."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the server has ended the connection")
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode() for line in lines]


def talk(host: str, port: int, members: int, speakers: int, seconds: float) -> Talk:
    """Fill the room, talk for so many seconds, and tell what was heard. Raises OSError."""
    result = Talk(members, speakers)
    room: list[_Member] = []
    try:
        names = [*NAMES, *(f"guest{number}" for number in range(len(NAMES), members))][:members]
        room.extend(_Member(host, port, name) for name in names)
        result.seen += room[0].before
        with selectors.DefaultSelector() as selector:
            for member in room:
                selector.register(member.socket, selectors.EVENT_READ, member)
            _speak(result, room, selector, seconds)
    finally:
        for member in room:
            member.socket.close()
    return result


def _speak(result: Talk, room: list[_Member], selector: selectors.BaseSelector, seconds: float) -> None:
    """Have the speakers speak in turn, and listen until all has been heard or the time is over."""
    pause = 1 / (RATE * result.speakers)
    start = due = time.perf_counter()
    while (now := time.perf_counter()) < start + seconds + TIMEOUT:
        if now >= due and due < start + seconds:
            speaker = room[result.said % result.speakers]
            speaker.socket.sendall(f"line {result.said} at {time.perf_counter()}\n".encode())
            result.said += 1
            due += pause
        elif due >= start + seconds and not result.missing:
            return
        for key, _ in selector.select(max(0.0, min(due - now, 0.1))):
            heard = key.data.lines()
            now = time.perf_counter()
            result.late += [now - float(line.rpartition(" ")[2]) for line in heard if " at " in line]
            if key.data is room[0]:
                result.seen += [line.partition(" at ")[0] for line in heard]
