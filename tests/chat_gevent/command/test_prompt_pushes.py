"""``chat-gevent client`` with a server that speaks unasked, over TLS and UNIX sockets, at a real terminal."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import command, require
from tests.operate import ServerProcess, certificate, until

from .test_prompt import Terminal, run

Operate = Callable[..., ServerProcess]

SERVICE = """
from chat_gevent import Service

class Says(Service):
    def started(self, server):
        self.server = server
    def message(self, message, client):
        if message.startswith("tell "):
            return f"told {self.server.broadcast(message[5:], but=client)}"
        return f"you said {message}" if message else None
"""


@pytest.fixture
def server(operate: Operate, tmp_path: Path) -> ServerProcess:
    """A server that tells the others."""
    (tmp_path / "says.py").write_text(SERVICE)
    return operate("--port", "0", "--handler", "says:Says", cwd=tmp_path)


@pytest.fixture
def terminal(server: ServerProcess, tmp_path: Path) -> Iterator[Terminal]:
    """The client at its first prompt."""
    made = Terminal(tmp_path, "--host", server.host, "--port", str(server.port), "--any-reply")
    made.wait_for("message: ")
    yield made
    made.close()


def tell(server: ServerProcess, message: str) -> None:
    """Have the server push ``message`` to the others."""
    status, output, _ = run(
        "--host", server.host, "--port", str(server.port), "--any-reply", f"tell {message}"
    )
    assert (status, output) == (0, "told 1\n")


def test_a_push_does_not_break_the_line_that_is_typed(server: ServerProcess, terminal: Terminal) -> None:
    """It is shown at once, above the line; line and cursor stay, and what is typed next goes there."""
    terminal.type("hello wrld")
    terminal.wait_for("hello wrld")
    terminal.type("\x1b[D" * 3)
    terminal.wait_for("\b\b\b")
    tell(server, "news")
    terminal.wait_for("\r\x1b[K")
    terminal.wait_for("news\r\n")
    terminal.wait_for("message: hello wrld\b\b\b")
    terminal.type("o\n")
    terminal.wait_for("you said hello world\r\n")
    terminal.type("/exit\n")
    assert terminal.status() == 0


def test_nothing_is_waited_for_where_any_reply_will_do(server: ServerProcess, terminal: Terminal) -> None:
    """A service need not answer each message: the prompt is there again at once."""
    for _ in range(3):
        terminal.type("\n")
        terminal.wait_for("message: ")
    tell(server, "news")
    terminal.wait_for("news\r\n")
    terminal.type("\x04")
    assert terminal.status() == 0


def test_a_server_that_leaves_is_told_while_a_line_is_typed(
    server: ServerProcess, terminal: Terminal
) -> None:
    """Its last words are shown, and the client ends: status 1, the terminal as it was."""
    terminal.type("half a li")
    terminal.wait_for("half a li")
    server.stop()
    terminal.wait_for("Error: shutting-down: ")
    terminal.wait_for("the server closed the connection")
    assert terminal.status() == 1


def test_a_push_does_not_command_the_terminal(server: ServerProcess, terminal: Terminal) -> None:
    """What is pushed is shown in letters, as replies are."""
    tell(server, "\x1b[2Jboo")
    terminal.wait_for("\\x1b[2Jboo\r\n")


def test_what_a_person_sees(server: ServerProcess, tmp_path: Path) -> None:
    """On the screen of tmux: a line of two rows is whole below the push, and nothing else is left of it."""
    require(shutil.which("tmux"), "the command 'tmux', which is not installed")
    socket = str(tmp_path / "tmux")
    client = command("client", "--host", server.host, "--port", str(server.port), "--any-reply")

    def tmux(*arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", socket, "-f", os.devnull, *arguments], capture_output=True, text=True, timeout=30,
            check=False, env={**os.environ, "XDG_STATE_HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        return done.stdout

    def screen() -> list[str]:
        return [line for line in tmux("capture-pane", "-p").splitlines() if line.strip()]

    tmux("new-session", "-d", "-x", "40", "-y", "12", *client)
    try:
        until(lambda: screen()[-1:] == ["message:"])
        tmux("send-keys", "-l", "abcdefghij" * 5)
        tmux("send-keys", "Left", "Left")
        two_rows = ["message: " + "abcdefghij" * 3 + "a", "bcdefghij" + "abcdefghij"]
        until(lambda: screen()[-2:] == two_rows)
        tell(server, "news")
        until(lambda: "news" in screen())
        until(lambda: screen()[-3:] == ["news", *two_rows])
        assert sum("abcdefghij" in line for line in screen()) == 2
    finally:
        tmux("kill-server")


def test_over_tls(operate: Operate, tmp_path: Path) -> None:
    """The server's certificate is checked; the client shows its own; pushes of TLS itself are no messages."""
    made = certificate(tmp_path, "server")
    certificate(tmp_path, "ca", ca=True)
    own = certificate(tmp_path, "client", signer="ca")
    own.write_text(own.read_text() + own.with_suffix(".key").read_text())
    options = ("--tls-certificate", str(made), "--tls-key", str(made.with_suffix(".key")))
    server = operate("--listen", "tls://127.0.0.1:0", *options, "--tls-client-ca", str(tmp_path / "ca.pem"))
    at = ("--host", "localhost", "--port", str(server.port), "--tls")
    trusting = (*at, "--ca", str(made), "--certificate", str(own))
    assert run(*trusting, "hello", "again") == (0, "Received: hello\nReceived: again\n", "")
    status, _, error = run(*at, "hello")
    assert (status, error.count("\n")) == (1, 1)
    assert "certificate verify failed" in error
    status, _, error = run(*at, "--ca", str(tmp_path / "none.pem"), "hello")
    assert (status, error.count("\n")) == (1, 1)
    terminal = Terminal(tmp_path, *trusting)
    try:
        terminal.wait_for("message: ")
        terminal.type("hello\n")
        terminal.wait_for("\tReceived: hello\r\n")
        terminal.wait_for("message: ")
        terminal.type("/exit\n")
        assert terminal.status() == 0
    finally:
        terminal.close()


def test_over_unix_sockets(operate: Operate, tmp_path: Path) -> None:
    """A path, and an abstract name."""
    name = f"@chat-gevent-{os.getpid()}"
    operate("--listen", f"unix://{tmp_path}/socket", "--listen", f"unix://{name}")
    for path in (f"{tmp_path}/socket", name):
        assert run("--unix", path, "hello") == (0, "Received: hello\n", "")
    status, _, error = run("--unix", f"{tmp_path}/none", "hello")
    assert (status, error) == (
        1,
        f"chat-gevent client: can't connect to {tmp_path}/none: No such file or directory\n",
    )


def test_options_that_need_another(tmp_path: Path) -> None:
    """One line, status 2."""
    status, output, error = run("--ca", "x.pem", "hello")
    assert (status, output, error) == (2, "", "chat-gevent client: --ca and --certificate need --tls\n")
