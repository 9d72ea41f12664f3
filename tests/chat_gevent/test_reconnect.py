"""ChatClient that comes back: when it tries, what it reports as lost, and that nothing is sent twice."""

from __future__ import annotations

import itertools
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from chat_gevent import ChatClient, ConnectionLost, MessageLost, Reconnect
from chat_gevent.framing import AUTO, CHUNK, Delimiter, Framing, LengthPrefix
from chat_gevent.reconnect import Attempts
from tests.operate import ServerProcess, kept_port, until

Operate = Callable[..., ServerProcess]

SOON = Reconnect(first=0.05, longest=0.2, within=30)
"""Tries as fast as a test wants them."""


class Script:
    """A server that does to each connection in turn what one function says; ``heard`` is all it read.

    It is for what a real server does at rare moments only: to take a message and go.
    """

    def __init__(self, *acts: Callable[[socket.socket, Script], None]) -> None:
        self.heard: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.listener.getsockname()
        self._thread = threading.Thread(target=self._serve, args=(acts,), daemon=True)
        self._thread.start()

    def _serve(self, acts: tuple[Callable[[socket.socket, Script], None], ...]) -> None:
        for act in acts:
            with self.listener.accept()[0] as client:
                client.settimeout(30)
                act(client, self)

    def hear(self, client: socket.socket) -> bytes:
        """Read a line."""
        line = b""
        while not line.endswith(b"\n") and (more := client.recv(1)):
            line += more
        self.heard.append(line)
        return line

    def close(self) -> None:
        """All its acts are over."""
        self._thread.join(30)
        assert not self._thread.is_alive()
        self.listener.close()


@contextmanager
def playing(
    *acts: Callable[[socket.socket, Script], None], **options: Any
) -> Iterator[tuple[Script, ChatClient]]:
    """A script and a client of it."""
    script = Script(*acts)
    with ChatClient.connect(*script.address, reconnect=Reconnect(first=0.05, within=30, **options)) as client:
        yield script, client
    script.close()


def confirms(client: socket.socket, script: Script) -> None:
    """Confirm until the client leaves."""
    while line := script.hear(client):
        client.sendall(b"Received: " + line)


def takes_and_goes(client: socket.socket, script: Script) -> None:
    """Confirm one message, and read another."""
    client.sendall(b"Received: " + script.hear(client))
    script.hear(client)


def refuses(client: socket.socket, script: Script) -> None:
    """Let nobody in, and read nothing before."""
    client.sendall(b"Error: server-full: no more clients; retry in 0.2 s\n")
    client.shutdown(socket.SHUT_WR)
    client.recv(1000)


# -- when ------------------------------------------------------------------------------------------


def test_tries_are_spread_over_as_long_as_it_has_been_away() -> None:
    """Full jitter: from 0 to a bound, which is ``first`` at least and ``longest`` at most."""
    policy = Reconnect(first=1, longest=10)
    for away, bound in ((0, 1), (0.5, 1), (2, 2), (7, 7), (11, 10), (1e9, 10)):
        waits = sorted(policy.wait(away) for _ in range(2000))
        assert 0 <= waits[0] < 0.05 * bound
        assert 0.95 * bound < waits[-1] <= bound
        assert 0.4 * bound < waits[1000] < 0.6 * bound


def test_what_the_server_asks_for_is_kept_to() -> None:
    """The first try comes just then; later ones never before."""
    policy = Reconnect(first=1, longest=10)
    assert policy.wait(0, 7.5) == 7.5
    assert all(7.5 <= policy.wait(60, 7.5) <= 10 for _ in range(100))


@pytest.mark.parametrize("name", ["first", "longest", "within"])
def test_times_must_be_above_0(name: str) -> None:
    """The error names the time."""
    with pytest.raises(ValueError, match=f"{name} = 0: must be above 0 s"):
        Reconnect(**{name: 0})  # type: ignore[arg-type]  # by name


def test_who_is_asked_to_come_back_too_late_is_told_at_once() -> None:
    """It does not wait for a moment that lies beyond ``within``; who tries again has the whole time again."""
    slept: list[float] = []
    attempts = Attempts(Reconnect(within=5, sleep=slept.append))
    attempts.lost(60.0, "full")
    for _ in range(2):
        with pytest.raises(ConnectionLost, match="not connected again within 5 s: full"):
            attempts.wait_until_due()
    assert slept == []


def test_a_client_without_dial_cant_come_back() -> None:
    """There is no way to make a new connection."""
    one, other = socket.socketpair()
    with one, other, pytest.raises(ValueError, match="dial"):
        ChatClient(one, reconnect=Reconnect())


# -- what is lost ----------------------------------------------------------------------------------


def test_a_message_that_was_not_confirmed_is_reported_and_not_sent_again() -> None:
    """The exception names it, and says that it may have been handled; the next message is confirmed."""
    with playing(takes_and_goes, confirms) as (script, client):
        assert client.confirm("one") == "Received: one"
        with pytest.raises(MessageLost, match=r"not confirmed: 'two' \(may have been handled\)") as lost:
            client.confirm("two")
        assert (lost.value.messages, lost.value.taken) == (("two",), True)
        assert client.lost
        assert client.confirm("three") == "Received: three"
        assert not client.lost
    assert script.heard == [b"one\n", b"two\n", b"three\n", b""]


def test_all_that_are_under_way_are_named() -> None:
    """Those whose replies came before the end are not among them."""

    def act(client: socket.socket, script: Script) -> None:
        client.sendall(b"Received: " + script.hear(client))
        script.hear(client)
        script.hear(client)

    with playing(act, confirms) as (_, client):
        for message in ("a", "b", "c"):
            client.send(message)
        assert client.receive() == "Received: a"
        with pytest.raises(MessageLost) as lost:
            client.receive()
        assert lost.value.messages == ("b", "c")
        client.send("d")
        assert client.receive() == "Received: d"


def test_the_last_word_instead_of_a_reply_says_that_it_was_not_handled() -> None:
    """It is reported as such; the client comes back when it was asked to, and not before."""

    def goes(client: socket.socket, script: Script) -> None:
        script.hear(client)
        client.sendall(b"Error: shutting-down: the server is going away; retry in 0.4 s\n")

    with playing(goes, confirms) as (script, client):
        began = time.monotonic()
        with pytest.raises(MessageLost, match=r"not handled by the server.*shutting-down") as lost:
            client.confirm("hello")
        assert (lost.value.messages, lost.value.taken) == (("hello",), False)
        assert client.confirm("again") == "Received: again"
        assert time.monotonic() - began >= 0.4
    assert script.heard == [b"hello\n", b"again\n", b""]


def test_who_is_not_let_in_waits_and_sends_it_again() -> None:
    """The server has read nothing of it; the waiting is the server's, and ends with the confirmation."""
    with playing(refuses, refuses, confirms) as (script, client):
        began = time.monotonic()
        assert client.confirm("hello") == "Received: hello"
        assert time.monotonic() - began >= 0.4
    assert script.heard == [b"hello\n", b""]


def test_a_server_that_went_while_nothing_was_under_way_costs_no_message(operate: Operate) -> None:
    """A drain between two messages: the client sees the last word, and confirms with the next server."""
    server = operate("--port", str(kept_port()), "--retry-spread", "1")
    reconnected: list[ChatClient] = []
    policy = Reconnect(first=0.05, within=30, on_reconnect=reconnected.append)
    with ChatClient.connect(server.host, server.port, reconnect=policy) as client:
        assert client.confirm("one") == "Received: one"
        assert server.stop() == 0
        operate("--port", str(server.port))
        assert client.confirm("two") == "Received: two"
        assert reconnected == [client]
        assert client.confirm("three") == "Received: three"


def test_a_killed_server_is_found_again(operate: Operate) -> None:
    """Without a last word, and while nobody listens for a while: it tries until somebody does."""
    server = operate("--port", str(kept_port()))
    with ChatClient.connect(server.host, server.port, reconnect=SOON) as client:
        assert client.confirm("one") == "Received: one"
        server.stop(signal.SIGKILL)
        threading.Timer(0.5, operate, ("--port", str(server.port))).start()
        assert client.confirm("two") == "Received: two"


NOTES = """
def handle(message, client):
    with open("heard", "a") as file:
        file.write(message + "\\n")
    return f"Received: {message}"
"""


def test_a_drain_under_load_loses_nothing(operate: Operate, tmp_path: Path) -> None:
    """Twenty clients that never pause, a server that is drained and started again. What it did not take it
    says so, and that is sent again: each message is handled exactly once."""
    (tmp_path / "notes.py").write_text(NOTES)
    options = ("--handler", "notes:handle", "--retry-spread", "0.3", "--drain-timeout", "30")
    server = operate("--port", str(kept_port()), *options, cwd=tmp_path)
    told: list[MessageLost] = []
    confirmed: list[str] = []
    ended = threading.Event()

    def work(number: int) -> None:
        with ChatClient.connect(server.host, server.port, reconnect=SOON) as client:
            for count in itertools.count():
                message = f"{number}-{count}"
                while True:
                    try:
                        assert client.confirm(message) == f"Received: {message}"
                        break
                    except MessageLost as lost:
                        told.append(lost)
                confirmed.append(message)
                if ended.is_set():
                    return

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(20)]
    for each in threads:
        each.start()
    until(lambda: len(confirmed) > 200)
    assert server.stop() == 0
    before = len(confirmed)
    operate("--port", str(server.port), *options, cwd=tmp_path)
    until(lambda: len({each.split("-")[0] for each in confirmed[before:]}) == 20)
    ended.set()
    for each in threads:
        each.join(30)
    heard = (tmp_path / "heard").read_text().split()
    assert not any(each.taken for each in told)
    assert sorted(heard) == sorted(confirmed)


def test_a_gevent_client_waits_without_holding_up_others(serve: Callable[..., Any]) -> None:
    """With ``sleep`` from gevent: the server that it waits for starts in the same process meanwhile."""
    import gevent
    from gevent import socket as gevent_socket

    address = ("127.0.0.1", kept_port())
    server = serve(listener=address)
    policy = Reconnect(first=0.05, within=30, sleep=gevent.sleep)
    dial = partial(gevent_socket.create_connection, address, 5)
    with ChatClient(dial(), reconnect=policy, dial=dial) as client:
        assert client.confirm("one") == "Received: one"
        stopping = gevent.spawn(server.stop, 5)
        later = gevent.spawn_later(0.3, serve, listener=address)
        assert client.confirm("two") == "Received: two"
        gevent.joinall([stopping, later], raise_error=True)


def test_it_gives_up_in_the_end() -> None:
    """After ``within``, with the reason; a later call tries again."""
    address = ("127.0.0.1", kept_port())
    with socket.create_server(address) as listener:
        policy = Reconnect(first=0.05, longest=0.05, within=0.3)
        client = ChatClient.connect(*address, reconnect=policy)
        listener.accept()[0].close()
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(ConnectionLost, match=r"within 0.3 s: Connection refused"):
            client.confirm("hello")
        assert time.monotonic() - began > 0.2
    with socket.create_server(address) as listener:
        thread = threading.Thread(target=lambda: confirm_once(listener))
        thread.start()
        assert client.confirm("hello") == "Received: hello"
        thread.join(30)
    client.close()


def confirm_once(listener: socket.socket) -> None:
    """Confirm one message of one client."""
    with listener.accept()[0] as client:
        client.sendall(b"Received: " + client.recv(1000))


def test_a_late_reply_is_not_taken_for_another() -> None:
    """A time-out ends the connection; with reconnect the next message goes over a new one."""

    def late(client: socket.socket, script: Script) -> None:
        script.hear(client)
        assert client.recv(1) == b""  # until the client has given up

    script = Script(late, confirms)
    with ChatClient.connect(*script.address, 30, reconnect=SOON) as client:
        client.socket.settimeout(0.2)  # for this connection, not for the next
        with pytest.raises(TimeoutError):
            client.confirm("first")
        assert client.confirm("second") == "Received: second"
    script.close()


def test_an_empty_reply_is_a_reply(serve: Callable[..., Any]) -> None:
    """It is what the handler said, and no sign that the server goes."""
    from gevent import socket as gevent_socket

    server = serve(lambda message, client: "" if message == "GET" else message)

    def dial() -> Any:
        return gevent_socket.create_connection(server.address, 30)

    with ChatClient(dial(), reconnect=SOON, dial=dial) as client:
        assert [client.confirm(each) for each in ("GET", "a", "GET")] == ["", "a", ""]
        client.send("GET")
        client.send("b")
        assert [client.receive(), client.receive()] == ["", "b"]


def test_who_said_exit_does_not_come_back() -> None:
    """The server closes because it was asked to."""
    with playing(takes_and_goes) as (_, client):
        client.confirm("hello")
        client.send("/EXIT")
        with pytest.raises(ConnectionLost, match="closed the connection"):
            client.receive()


# -- on_reconnect ----------------------------------------------------------------------------------


def test_the_hook_speaks_first_on_the_new_connection() -> None:
    """What it says comes before the message that waits."""

    def log_in(client: ChatClient) -> None:
        assert client.confirm("I am ann") == "Received: I am ann"

    with playing(takes_and_goes, confirms, on_reconnect=log_in) as (script, client):
        client.confirm("one")
        with pytest.raises(MessageLost):
            client.confirm("two")
        assert client.confirm("three") == "Received: three"
    assert script.heard[2:] == [b"I am ann\n", b"three\n", b""]


def test_a_hook_that_meets_a_full_server_is_a_try_that_failed() -> None:
    """It is called again with the next connection, and no message is lost by that."""
    heard: list[str] = []

    def log_in(client: ChatClient) -> None:
        heard.append(client.confirm("I am ann"))

    acts = (takes_and_goes, refuses, lambda *_: None, confirms)
    with playing(*acts, on_reconnect=log_in) as (script, client):
        client.confirm("one")
        with pytest.raises(MessageLost):
            client.confirm("two")
        assert client.confirm("three") == "Received: three"
    assert [each.partition(":")[0] for each in heard] == ["Error", "Received"]
    assert script.heard[2:] == [b"I am ann\n", b"three\n", b""]


def test_pending_tells_of_a_loss_without_waiting() -> None:
    """For programs that wait by themselves: nothing is there to receive, and the next try has its moment."""
    with playing(takes_and_goes, confirms) as (_, client):
        client.confirm("one")
        assert not client.pending()
        client.send("two")
        with pytest.raises(MessageLost):
            until(client.pending)
        assert client.lost
        assert client.next_try < time.monotonic() + 1  # not more than ``first`` after the loss
        assert not client.pending()
        until(client.try_again)
        assert client.confirm("three") == "Received: three"


# -- framings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["line", "chunk", "auto"])
def test_framings_that_a_server_has(operate: Operate, framing: str) -> None:
    """The client speaks each of them; to ``auto`` lines and chunks."""
    server = operate("--port", "0", "--framing", framing)
    spoken: dict[str, list[Framing]] = {"line": [AUTO], "chunk": [CHUNK], "auto": [AUTO, CHUNK]}
    for chosen in spoken[framing]:
        with ChatClient.connect(server.host, server.port, framing=chosen) as client:
            for message in ("hello", "zwölf", "x" * 1024):
                assert client.confirm(message) == f"Received: {message}"


@pytest.mark.parametrize(
    ("framing", "message", "problem"),
    [
        (CHUNK, "", "has 1 to 1024 bytes"),
        (CHUNK, "x" * 1025, "this has 1025"),
        (AUTO, "a\nb", "line feed"),
        (Delimiter(b"--"), "a--b", "delimiter"),
        (Delimiter(b"--"), "a-", "delimiter"),  # a---: the server would take "a", and keep a dash
        (Delimiter(b"\r\n\r\n"), "a\r\n", "delimiter"),
        (LengthPrefix(1), "x" * 256, "256 bytes"),
    ],
)
def test_what_a_framing_cant_carry_is_refused(framing: Any, message: str, problem: str) -> None:
    """Before anything is sent."""
    one, other = socket.socketpair()
    with one, other, ChatClient(one, framing=framing) as client, pytest.raises(ValueError, match=problem):
        client.send(message)


def test_framings_of_services(serve: Callable[..., Any]) -> None:
    """A delimiter, and a length: messages with line feeds are one."""
    from gevent import socket as gevent_socket

    framings: list[Framing] = [Delimiter(b"\0"), LengthPrefix(2)]
    for framing in framings:
        server = serve(lambda message, client: message[::-1], framing=framing)
        with ChatClient(gevent_socket.create_connection(server.address, 30), framing=framing) as client:
            assert client.confirm("a\nb") == "b\na"
