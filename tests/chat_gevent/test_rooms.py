"""The chat service of the package, with real clients: in this process, and run by the command."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from chat_gevent import ConnectionLost
from chat_gevent.rooms import Rooms
from chat_gevent.testing import ConnectedClient, RunningServer, running
from tests.conftest import wait_until
from tests.operate import ServerProcess, receive
from tests.protocol import without_hint

GREETING = "* welcome; choose a name with /nick NAME, then /join ROOM; /help says what else there is"


@pytest.fixture
def rooms() -> Iterator[RunningServer]:
    """The service as it comes, but for its rate."""
    with running(Rooms(rate=1000, burst=10)) as server:
        yield server


def enter(server: RunningServer, name: str, *rooms: str) -> ConnectedClient:
    """A client with a name, in rooms."""
    client = server.connect()
    assert client.pushed() == GREETING
    assert client.ask(f"/nick {name}") == f"* you are {name}"
    for room in rooms:
        assert client.ask(f"/join {room}").startswith(f"* you are in #{room}, ")
    return client


def test_what_is_said_reaches_the_room_and_nobody_else(rooms: RunningServer) -> None:
    """The speaker gets it as reply, the others as push, whoever is in another room gets nothing."""
    ann, bob, eve = enter(rooms, "ann", "tea"), enter(rooms, "bob", "tea"), enter(rooms, "eve", "coffee")
    assert ann.pushed() == "#tea * bob has joined"
    assert ann.ask("hello, everybody") == "#tea ann: hello, everybody"
    assert bob.pushed() == "#tea ann: hello, everybody"
    assert eve.silent()


def test_a_client_speaks_in_the_room_it_joined_last(rooms: RunningServer) -> None:
    """Joining again a room that one is in brings it to the front; it is told to nobody."""
    ann, bob = enter(rooms, "ann", "tea", "coffee"), enter(rooms, "bob", "tea")
    ann.pushed()
    assert ann.ask("one") == "#coffee ann: one"
    assert ann.ask("/join tea") == "* you are in #tea, 2 people in all"
    assert bob.silent()
    assert ann.ask("two") == "#tea ann: two"
    assert bob.pushed() == "#tea ann: two"


def test_who_and_rooms(rooms: RunningServer) -> None:
    """Members in order of name, rooms in order of size; empty rooms are gone."""
    ann, bob = enter(rooms, "ann", "tea"), enter(rooms, "Bob", "tea", "x")
    assert bob.ask("/who") == "* #x: Bob"
    assert bob.ask("/who #TEA") == "* #tea: Bob, ann"
    assert bob.ask("/rooms") == "* 2 rooms: #tea (2), #x (1)"
    assert bob.ask("/leave") == "* you have left #x"
    assert bob.ask("/rooms") == "* 1 rooms: #tea (2)"
    assert bob.ask("/who x") == "! nobody is in #x"
    assert ann.pushed() == "#tea * Bob has joined"


def test_messages_to_one_client(rooms: RunningServer) -> None:
    """``/msg`` reaches that client alone, by its name in any case; nobody of that name is told."""
    ann, bob, eve = enter(rooms, "ann", "tea"), enter(rooms, "Bob"), enter(rooms, "eve", "tea")
    assert ann.pushed() == "#tea * eve has joined"
    assert ann.ask("/msg bob see you  there") == "you -> Bob: see you  there"
    assert bob.pushed() == "ann -> you: see you  there"
    assert ann.ask("/msg nobody hello") == "! nobody is called nobody"
    assert ann.ask("/msg bob") == "! say to whom and what: /msg NAME TEXT"
    assert eve.silent()


def test_a_client_that_vanishes_frees_its_name_and_its_rooms_hear_of_it(rooms: RunningServer) -> None:
    """Whatever ended it: the others are told once, and the name may be taken at once."""
    ann, bob = enter(rooms, "ann", "tea"), enter(rooms, "bob", "tea", "x")
    ann.pushed()
    bob.close()
    assert ann.pushed() == "#tea * bob has gone"
    assert ann.silent()
    assert ann.ask("/rooms") == "* 1 rooms: #tea (1)"
    enter(rooms, "BOB")


def test_a_name_is_changed(rooms: RunningServer) -> None:
    """The rooms are told, the old name is free, and a change of case is no clash with oneself."""
    ann, bob = enter(rooms, "ann", "tea"), enter(rooms, "bob", "tea")
    ann.pushed()
    assert bob.ask("/nick Ann") == "! somebody else is called Ann"
    assert ann.ask("/nick ANN") == "* you are ANN"
    assert bob.pushed() == "#tea * ann is ANN now"
    assert ann.ask("/nick sue") == "* you are sue"
    assert bob.ask("/nick ann") == "* you are ann"


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("hello", "! choose a name first: /nick NAME"),
        ("/join tea", "! choose a name first: /nick NAME"),
        ("/nick", "! say which name"),
        ("/nick two words", "! a name has letters, digits, - and _ only"),
        ("/nick \x1b[2J", "! a name has letters, digits, - and _ only"),
        ("/nick " + "x" * 25, "! a name has at most 24 characters"),
        ("/leave", "! you are in no room"),
        ("/leave tea", "! you are not in #tea"),
        ("/who", "! say which room: /who ROOM"),
        ("/dance", "! there is no command /dance; /help lists them"),
    ],
)
def test_what_can_not_be_done_is_said_in_plain_words(rooms: RunningServer, asked: str, answer: str) -> None:
    """The client stays, and knows why."""
    client = rooms.connect()
    assert client.pushed() == GREETING
    assert client.ask(asked) == answer
    assert client.ask("/help").startswith("* /nick NAME")


def test_what_would_command_a_terminal_reaches_nobody(rooms: RunningServer) -> None:
    """Control characters are taken out of what is said."""
    ann, bob = enter(rooms, "ann", "tea"), enter(rooms, "bob", "tea")
    ann.pushed()
    bob.send("\x1b[2Jboo\x07!")
    assert ann.pushed() == "#tea bob: [2Jboo !"


def test_limits_on_rooms_members_and_clients() -> None:
    """Each is told; an old room stays open to those who are in it."""
    with running(Rooms(rooms_each=2, members=2, rooms=3, clients=3, rate=1000)) as server:
        ann, bob, eve = enter(server, "ann", "a", "b"), enter(server, "bob", "a", "c"), enter(server, "eve")
        assert ann.ask("/join c") == "! you can be in 2 rooms at once; /leave one first"
        assert eve.ask("/join a") == "! #a is full: it has 2 members"
        assert eve.ask("/join d").startswith("! there are too many rooms")
        assert eve.ask("/join b") == "* you are in #b, 2 people in all"
        turned_away = server.connect()
        assert turned_away.rest() == ["Error: refused: there are too many people here, try again later"]
        bob.close()
        wait_until(lambda: server.server.stats().connections == 3)
        enter(server, "bob")


def test_who_speaks_too_fast_is_told_and_not_heard() -> None:
    """A burst passes, the rest is refused, and after a while the client may speak again."""
    with running(Rooms(rate=50, burst=0.2)) as server:
        ann, bob = enter(server, "ann", "tea"), enter(server, "bob", "tea")
        ann.pushed()
        for number in range(30):
            bob.send(f"spam {number}")
        answers = [bob.pushed() for _ in range(30)]
        refused = answers.count("! slow down: 50 messages a second are enough")
        assert 15 <= refused < 25
        heard = [ann.pushed() for _ in range(30 - refused)]
        assert heard == [each for each in answers if each.startswith("#tea bob: spam")]
        assert ann.silent()
        wait_until(lambda: bob.ask("again") == "#tea bob: again")


def test_a_stop_is_announced_once(rooms: RunningServer) -> None:
    """All hear of the end, and nobody of the departures of the others."""
    ann, bob = enter(rooms, "ann", "tea"), enter(rooms, "bob", "tea")
    ann.pushed()
    rooms.server.stop(5)
    end = ["* the server is about to stop", "Error: shutting-down: the server is going away"]
    for each in (ann, bob):
        *said, last = each.rest()
        assert [*said, without_hint(last.encode() + b"\n").decode().rstrip()] == end
    with pytest.raises(ConnectionLost):
        ann.pushed()


def test_the_names_of_rooms_that_are_gone_are_not_kept(rooms: RunningServer) -> None:
    """Strangers choose the names: what nobody is in takes no memory."""
    ann = enter(rooms, "ann")
    for number in range(50):
        ann.ask(f"/join room-{number}")
        ann.ask("/leave")
    assert len(rooms.server.core._groups) == 0


def test_run_by_the_command(operate: Callable[..., ServerProcess]) -> None:
    """``--handler chat_gevent.rooms:Rooms``: the class is called once, and two clients talk."""
    server = operate("--port", "0", "--handler", "chat_gevent.rooms:Rooms")
    with server.connect() as ann, server.connect() as bob:
        for client, name in ((ann, b"ann"), (bob, b"bob")):
            expected = GREETING.encode() + b"\n* you are " + name + b"\n"
            client.sendall(b"/nick " + name + b"\n")
            assert receive(client, len(expected)) == expected
        ann.sendall(b"/msg bob hello\n")
        assert receive(bob, 18) == b"ann -> you: hello\n"
    assert server.stop() == 0


def test_one_who_has_too_much_to_read_is_still_somebody() -> None:
    """Where pushes to slow readers are dropped, whoever writes to one is told that, not that it is gone."""
    with running(Rooms(rate=1e6, burst=10**6), slow_consumer="drop-newest", outbox_bytes=1000) as server:
        ann, bob = enter(server, "ann"), enter(server, "bob")
        answers = {ann.ask(f"/msg bob {'x' * 900}")}
        while len(answers) < 2:
            answers.add(ann.ask(f"/msg bob {'x' * 900}"))
        assert any("bob has too much to read already" in each for each in answers)
        bob.close()
        wait_until(lambda: "nobody is called bob" in ann.ask("/msg bob hello"))
