"""What tests of handlers are given: a server that runs, clients that ask and wait, and the fixture."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest

from chat_gevent import Client, ConnectionLost, LengthPrefix, Service
from chat_gevent.testing import RunningServer, chat_server, running
from tests.operate import certificate

__all__ = ["chat_server"]


def shout(message: str, client: Client[None]) -> str:
    """A handler."""
    return message.upper()


class Lengths(Service):
    """A binary service that pushes whatever it is sent to all others."""

    framing = LengthPrefix(2)
    text = False

    def started(self, server: Any) -> None:
        """Keep the server."""
        self.server = server

    def message(self, message: bytes, client: Client[None]) -> bytes:
        """Tell the others, and say how many they are."""
        return b"%d" % self.server.broadcast(message, but=client)


def test_a_handler_is_asked() -> None:
    """In one line, without patching anything: the server goes on while the test waits."""
    with running(shout) as server:
        assert server.ask("hello") == "HELLO"
        assert server.ask("again") == "AGAIN"
        assert len(server.server.clients) == 1


def test_replies_and_pushes_in_the_framing_of_the_service() -> None:
    """``ask`` returns what comes after the question; what came before is left for ``pushed``."""
    with running(Lengths) as server:
        one, other = server.connect(), server.connect()
        assert other.ask(b"") == b"1"
        assert one.pushed() == b""
        assert one.ask(b"first\n") == b"1"
        assert other.ask(b"second") == b"1"
        assert other.pushed() == b"first\n"
        assert one.pushed() == b"second"
        assert isinstance(server.service, Lengths)


def test_what_does_not_come_raises() -> None:
    """TimeoutError in time; ConnectionLost once the server has closed; ``rest`` is what is left."""
    with running(lambda message, client: None) as server, server.connect() as client:
        with pytest.raises(TimeoutError, match=r"no message came within 0\.05 s"):
            client.pushed(0.05)
        with pytest.raises(TimeoutError):
            client.ask("hello", 0.05)
        with pytest.raises(TimeoutError):
            client.rest(0.05)
        assert client.silent()
        client.send("/exit")
        assert client.rest() == []
        with pytest.raises(ConnectionLost):
            client.pushed()


def test_settings_and_what_the_server_takes() -> None:
    """Limits by name, and an address of one's own."""
    with running(shout, max_message_bytes=3, listener=("::1", 0)) as server:
        assert server.address[0] == "::1"
        assert server.ask("four") == "Error: message-too-long: a message is limited to 3 bytes"


def test_over_unix_sockets_and_tls(tmp_path: Path) -> None:
    """The same clients over both."""
    with socket.socket(socket.AF_UNIX) as plain:
        plain.bind(str(tmp_path / "socket"))
        plain.listen()
        from gevent import socket as gevent_socket

        listener = gevent_socket.socket(socket.AF_UNIX, fileno=plain.detach())
        with running(shout, listener=listener) as server:
            assert server.ask("hello") == "HELLO"
    made = certificate(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, made.with_suffix(".key"))
    trusting = ssl.create_default_context(cafile=str(made))
    with running(shout, ssl_context=context) as server:
        client = server.connect(trusting, "localhost")
        assert client.ask("hello") == "HELLO"
        assert client.silent()
        assert client.ask("again") == "AGAIN"


def test_the_end_of_the_block_ends_everything() -> None:
    """Clients are closed, ``disconnected`` has run, and the port is free."""
    ended: list[str] = []

    class Told(Service):
        def disconnected(self, client: Client[None], reason: str) -> None:
            gevent.sleep(0.01)
            ended.append(reason)

    with running(Told) as server:
        server.connect()
        server.connect().silent()
    assert ended == ["eof", "eof"]
    with socket.socket() as client:
        assert client.connect_ex(server.address) != 0


def test_the_fixture(chat_server: Callable[..., RunningServer]) -> None:
    """As often as called; settings by name."""
    one, two = chat_server(shout), chat_server(Lengths, idle_timeout=5)
    assert one.ask("a") == "A"
    assert two.ask(b"x") == b"0"


def test_the_fixture_in_a_project_of_ones_own(tmp_path: Path) -> None:
    """``from chat_gevent.testing import chat_server`` in ``conftest.py`` is all there is to do."""
    (tmp_path / "conftest.py").write_text("from chat_gevent.testing import chat_server\n")
    (tmp_path / "test_it.py").write_text(
        "def test_it(chat_server):\n"
        "    assert chat_server(lambda message, client: message[::-1]).ask('abc') == 'cba'\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_pytest_is_not_imported_before_it_is_asked_for() -> None:
    """The module serves other test runners too."""
    program = "import sys, chat_gevent.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=30, check=False).returncode == 0
