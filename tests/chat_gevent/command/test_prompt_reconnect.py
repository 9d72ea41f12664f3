"""``chat-gevent client --reconnect`` and ``--framing``, as a person or a script would use it."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.operate import ServerProcess, kept_port

from .test_prompt import Terminal, at, run

Operate = Callable[..., ServerProcess]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_is_being_typed_is_kept(operate: Operate, tmp_path: Path, number: signal.Signals) -> None:
    """The server goes while a line is half typed: one line says so, one that it is back; the line goes on."""
    server = operate("--port", str(kept_port()), "--retry-spread", "0.5")
    terminal = Terminal(tmp_path, *at(server), "--reconnect")
    try:
        terminal.wait_for("message: ")
        terminal.type("hello wor")
        terminal.wait_for("hello wor")
        terminal.wait_until_asleep()
        server.stop(number)
        if number == signal.SIGTERM:
            terminal.wait_for("Error: shutting-down: the server is going away; retry in 0.")
        terminal.wait_for(f"* {server.host}:{server.port} is gone; connecting again")
        terminal.wait_for("hello wor")
        operate("--port", str(server.port))
        terminal.wait_for(f"* connected to {server.host}:{server.port} again")
        terminal.wait_for("hello wor")
        terminal.type("ld\n")
        terminal.wait_for("\tReceived: hello world\r\n")
        terminal.wait_for("message: ")
        terminal.type("/exit\n")
        assert terminal.status() == 0
    finally:
        terminal.close()


def test_a_line_that_is_sent_meanwhile_waits_for_the_server(operate: Operate, tmp_path: Path) -> None:
    """It goes to the next server, once."""
    server = operate("--port", str(kept_port()), "--retry-spread", "0.5")
    terminal = Terminal(tmp_path, *at(server), "--reconnect")
    try:
        terminal.wait_for("message: ")
        server.stop()
        terminal.wait_for("connecting again")
        terminal.type("hello\n")
        operate("--port", str(server.port))
        terminal.wait_for("\tReceived: hello\r\n")
    finally:
        terminal.close()


def test_what_was_not_confirmed_is_named() -> None:
    """By a script too: on standard error, with status 1; the others are confirmed, none is sent twice."""
    heard: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        with listener.accept()[0] as client:  # it takes two messages and answers one
            for reply in (b"Received: a\n", b""):
                heard.append(client.recv(100))
                client.sendall(reply)
        with listener.accept()[0] as client:
            while data := client.recv(100):
                heard.append(data)
                client.sendall(b"Received: " + data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        port = listener.getsockname()[1]
        status, output, error = run("--port", str(port), "--reconnect", "a", "b", "c")
        thread.join(30)
    assert (status, output) == (1, "Received: a\nReceived: c\n")
    assert heard == [b"a\n", b"b\n", b"c\n"]
    assert error == (
        "chat-gevent client: not confirmed: 'b' (may have been handled): the server closed the connection\n"
        f"chat-gevent client: connected to 127.0.0.1:{port} again\n"
    )


@pytest.mark.parametrize("framing", ["line", "auto", "chunk"])
def test_the_framings_of_the_server(operate: Operate, framing: str) -> None:
    """By their names, as ``serve`` has them."""
    server = operate("--port", "0", "--framing", framing)
    for stdin in ("", "hello\nzwölf\n"):
        messages = [] if stdin else ["hello", "zwölf"]
        output = "Received: hello\nReceived: zwölf\n"
        assert run(*at(server), "--framing", framing, *messages, stdin=stdin) == (0, output, "")


def test_the_framings_of_services(operate: Operate, tmp_path: Path) -> None:
    """A delimiter with its escapes, and a length."""
    (tmp_path / "framed.py").write_text(
        "from chat_gevent import Delimiter, LengthPrefix, Service\n"
        "class Ends(Service):\n"
        "    framing = Delimiter(b'\\r\\0')\n"
        "    def message(self, message, client):\n"
        "        return message[::-1]\n"
        "class Counts(Ends):\n"
        "    framing = LengthPrefix(2)\n"
    )
    for name, framing in (("Ends", r"delimiter:\r\x00"), ("Counts", "length:2")):
        server = operate("--port", "0", "--handler", f"framed:{name}", cwd=tmp_path)
        assert run(*at(server), "--any-reply", "--framing", framing, "abc", "de") == (0, "cba\ned\n", "")


def test_wrong_framings_and_messages_are_one_line_and_status_2() -> None:
    """Before anything is connected."""
    for arguments, told in (
        (("--framing", "lines", "a"), "--framing lines: must be line, chunk"),
        (("--framing", "chunk", ""), "a chunk has 1 to 1024 bytes, this has 0"),
        (("--framing", "delimiter:--", "a--b"), "a message can't contain the delimiter"),
    ):
        status, output, error = run("--port", "1", *arguments)
        assert (status, output, error.count("\n")) == (2, "", 1)
        assert error.startswith(f"chat-gevent client: {told}")


def test_a_line_that_the_framing_cant_carry_is_not_sent(operate: Operate) -> None:
    """It is told, and the next one is sent."""
    server = operate("--port", "0", "--framing", "chunk")
    status, output, error = run(*at(server), "--framing", "chunk", stdin="\nhello\n")
    assert (status, output) == (0, "Received: hello\n")
    assert error == "chat-gevent client: a chunk has 1 to 1024 bytes, this has 0; that was not sent\n"
