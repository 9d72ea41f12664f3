"""ChatClient: one connection, as a program uses it."""

from __future__ import annotations

import fcntl
import socket
from collections.abc import Iterator

import pytest

from chat_gevent.client import ChatClient
from chat_gevent.errors import ConnectionLost
from tests.operate import ServerProcess, until


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """One server for the module."""
    process = ServerProcess("--port", "0")
    yield process
    process.close()


def test_a_reply_that_is_late_is_not_taken_for_the_next_ones() -> None:
    """A time-out closes the connection; the next message fails rather than get its forerunner's reply."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = ChatClient(socket.create_connection(listener.getsockname(), 30))
        client.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.confirm("first")
        with pytest.raises(OSError, match="Bad file descriptor"):
            client.confirm("second")


def test_a_client_among_thousands_of_files(server: ServerProcess) -> None:
    """Its descriptor may be above 1,023, which ``select`` can't take."""
    with ChatClient.connect(server.host, server.port) as client:
        low, client.socket = (
            client.socket,
            socket.socket(fileno=fcntl.fcntl(client.socket, fcntl.F_DUPFD, 2000)),
        )
        low.close()
        client.socket.settimeout(30)
        assert not client.pending()
        assert client.confirm("hello") == "Received: hello"
        client.send("again")
        until(client.pending)
        assert client.receive() == "Received: again"


def test_a_reply_that_was_cut_off_is_no_reply() -> None:
    """The stream ends in the middle of a line: what came is named, and nothing is returned for the reply."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        ChatClient.connect("127.0.0.1", listener.getsockname()[1], timeout=30) as client,
    ):
        with listener.accept()[0] as server:
            server.sendall(b"Received: one\nReceived: he")
        assert client.receive() == "Received: one"
        with pytest.raises(ConnectionLost, match=r"in the middle of a reply: b'Received: he'"):
            client.receive()
