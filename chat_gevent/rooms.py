"""A chat service that ships with the package: nick names, rooms, private messages, and limits on all of it.

Run it with ``chat-gevent serve --handler chat_gevent.rooms:Rooms``, and talk to it with
``chat-gevent client --any-reply`` or ``nc``. It uses nothing but the public API, so it is also an example of
what a service looks like. Names and rooms are those of one process.

What a client sends is a command, which begins with ``/``, or goes to the room that it has joined last. What
comes back is one line for each thing that happens: ``* ...`` says what the server has done, ``! ...`` why
it has not, ``#room name: text`` is said in a room, ``name -> you: text`` to one client alone.
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from chat_gevent import ChatServer, Client, Group, Refuse, Service

HELP: Final = (
    "* /nick NAME, /join ROOM, /leave [ROOM], /who [ROOM], /rooms, /msg NAME TEXT, /exit; "
    "anything else is said in the room you joined last"
)


@dataclass(slots=True, eq=False)
class Member:
    """What the service knows of one client."""

    name: str = ""
    rooms: dict[str, Group] = field(default_factory=dict)
    """The rooms that it is in; the last one is where it speaks."""
    paid_until: float = 0.0
    """When all that it has said so far is paid for, at the rate that it may speak."""


class Complaint(Exception):
    """What a client asked for can't be done; the text says why."""


class Rooms(Service):
    """Rooms to chat in.

    :param name_characters: longest name of a client or room.
    :param rooms_each: most rooms that one client may be in.
    :param members: most clients in one room.
    :param rooms: most rooms there may be.
    :param clients: most clients there may be; more are turned away.
    :param rate: messages a second that one client may send; what is beyond is refused with an explanation.
    :param burst: seconds' worth of messages that may come at once.
    """

    def __init__(
        self,
        *,
        name_characters: int = 24,
        rooms_each: int = 10,
        members: int = 1000,
        rooms: int = 10_000,
        clients: int = 100_000,
        rate: float = 5.0,
        burst: float = 2.0,
    ) -> None:
        self._name_characters = name_characters
        self._rooms_each = rooms_each
        self._members = members
        self._most_rooms = rooms
        self._most_clients = clients
        self._cost = 1 / rate
        self._burst = burst
        self._stopping = False
        self._clients = 0
        self._named: dict[str, Client[Member]] = {}  # by name, as it is compared
        self._rooms: dict[str, Group] = {}  # those with somebody in them
        self._commands: dict[str, Callable[[Client[Member], str], str | None]] = {
            "/nick": self._nick,
            "/join": self._join,
            "/leave": self._leave,
            "/who": self._who,
            "/rooms": self._list,
            "/msg": self._tell,
            "/help": lambda client, rest: HELP,
        }

    # -- hooks ---------------------------------------------------------------------------------------

    def started(self, server: ChatServer) -> None:
        """Remember the server, whose groups the rooms are."""
        self._server = server

    def connected(self, client: Client[Member]) -> str:
        """Greet a client, or turn it away where there are too many."""
        if self._clients >= self._most_clients:
            raise Refuse("there are too many people here, try again later")
        self._clients += 1
        client.state = Member()
        return "* welcome; choose a name with /nick NAME, then /join ROOM; /help says what else there is"

    def message(self, message: str, client: Client[Member]) -> str | None:
        """Do what a client asks for, or tell it why not."""
        try:
            self._pay(client.state)
            word, _, rest = _printable(message).strip().partition(" ")
            if not word:
                return None
            if not word.startswith("/"):
                return self._say(client, f"{word} {rest}".strip())
            command = self._commands.get(word.lower())
            if command is None:
                raise Complaint(f"there is no command {word}; /help lists them")
            return command(client, rest.strip())
        except Complaint as complaint:
            return f"! {complaint}"

    def disconnected(self, client: Client[Member], reason: str) -> None:
        """Free the client's name, and tell the rooms it was in."""
        self._clients -= 1
        member = client.state
        if member.name:
            del self._named[member.name.casefold()]
        for group in member.rooms.values():
            self._left(group, f"* {member.name} has gone")

    def stopping(self, server: ChatServer) -> None:
        """Announce the end, and no departures from now on: all are about to leave."""
        self._stopping = True
        server.broadcast("* the server is about to stop")

    # -- commands ------------------------------------------------------------------------------------

    def _nick(self, client: Client[Member], rest: str) -> str:
        name, member = self._checked(rest, "name"), client.state
        holder = self._named.get(name.casefold())
        if holder is not None and holder is not client:
            raise Complaint(f"somebody else is called {name}")
        old = member.name
        if old:
            del self._named[old.casefold()]
        self._named[name.casefold()] = client
        member.name = name
        for room, group in member.rooms.items():
            self._server.broadcast(f"#{room} * {old} is {name} now", to=group, but=client)
        return f"* you are {name}"

    def _join(self, client: Client[Member], rest: str) -> str:
        member = self._known(client)
        room = self._checked(rest.removeprefix("#"), "room").casefold()
        group = member.rooms.pop(room, None)
        if group is None:
            if len(member.rooms) >= self._rooms_each:
                raise Complaint(f"you can be in {self._rooms_each} rooms at once; /leave one first")
            if room not in self._rooms and len(self._rooms) >= self._most_rooms:
                raise Complaint("there are too many rooms, join one of those that there are (/rooms)")
            group = self._rooms.get(room) or self._server.group(room)
            if len(group) >= self._members:
                raise Complaint(f"#{room} is full: it has {len(group)} members")
            self._rooms[room] = group
            group.add(client)
            self._server.broadcast(f"#{room} * {member.name} has joined", to=group, but=client)
        member.rooms[room] = group  # the last one is where it speaks
        return f"* you are in #{room}, {_people(len(group))} in all"

    def _leave(self, client: Client[Member], rest: str) -> str:
        member = client.state
        room = rest.removeprefix("#").casefold() or next(reversed(member.rooms), "")
        group = member.rooms.pop(room, None)
        if group is None:
            raise Complaint(f"you are not in #{room}" if room else "you are in no room")
        group.discard(client)
        self._left(group, f"* {member.name} has left")
        return f"* you have left #{room}"

    def _who(self, client: Client[Member], rest: str) -> str:
        room = rest.removeprefix("#").casefold() or next(reversed(client.state.rooms), "")
        group = self._rooms.get(room)
        if group is None:
            raise Complaint(f"nobody is in #{room}" if room else "say which room: /who ROOM")
        return f"* #{room}: {', '.join(sorted(each.state.name for each in group))}"

    def _list(self, client: Client[Member], rest: str) -> str:
        largest = sorted(self._rooms.values(), key=len, reverse=True)[:20]
        shown = ", ".join(f"#{each.name} ({len(each)})" for each in largest)
        return (
            f"* {len(self._rooms)} rooms: {shown}" if shown else "* there are no rooms yet; /join makes one"
        )

    def _tell(self, client: Client[Member], rest: str) -> str:
        member = self._known(client)
        name, _, text = rest.partition(" ")
        if not text.strip():
            raise Complaint("say to whom and what: /msg NAME TEXT")
        other = self._named.get(name.casefold())
        sent = other is not None and other.send(f"{member.name} -> you: {text.strip()}")
        if other is None or other.closed:
            raise Complaint(f"nobody is called {name}")
        if not sent:
            raise Complaint(f"{other.state.name} has too much to read already")
        return f"you -> {other.state.name}: {text.strip()}"

    def _say(self, client: Client[Member], text: str) -> str:
        member = self._known(client)
        if not member.rooms:
            raise Complaint("you are in no room: /join ROOM")
        room, group = next(reversed(member.rooms.items()))
        said = f"#{room} {member.name}: {text}"
        self._server.broadcast(said, to=group, but=client)
        return said

    # -- limits --------------------------------------------------------------------------------------

    def _pay(self, member: Member) -> None:
        now = time.monotonic()
        if member.paid_until - now > self._burst:
            raise Complaint(f"slow down: {1 / self._cost:g} messages a second are enough")
        member.paid_until = max(member.paid_until, now) + self._cost

    def _known(self, client: Client[Member]) -> Member:
        if not client.state.name:
            raise Complaint("choose a name first: /nick NAME")
        return client.state

    def _checked(self, name: str, kind: str) -> str:
        name = unicodedata.normalize("NFKC", name)
        if not name:
            raise Complaint(f"say which {kind}")
        if len(name) > self._name_characters:
            raise Complaint(f"a {kind} has at most {self._name_characters} characters")
        if not all(each.isalnum() or each in "-_" for each in name):
            raise Complaint(f"a {kind} has letters, digits, - and _ only")
        return name

    def _left(self, group: Group, what: str) -> None:
        if not len(group):
            self._rooms.pop(group.name, None)
        elif not self._stopping:
            self._server.broadcast(f"#{group.name} {what}", to=group)


def _people(count: int) -> str:
    return "1 person" if count == 1 else f"{count} people"


def _printable(text: str) -> str:
    """``text`` without what would command the terminals of others."""
    return "".join(each if each.isprintable() else " " for each in text)
