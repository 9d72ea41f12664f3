"""``chat-gevent client``, as a person at a terminal and as a script would use it."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import command
from tests.operate import ServerProcess, until


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """One server for the module."""
    process = ServerProcess("--port", "0")
    yield process
    process.close()


def run(*arguments: str, stdin: str = "", env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run the client to its end: status, standard output, standard error."""
    done = subprocess.run(
        command("client", *arguments), input=stdin, capture_output=True, text=True, timeout=30,
        env={**os.environ, **(env or {})}, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def at(server: ServerProcess) -> tuple[str, ...]:
    """The options that lead to ``server``."""
    return ("--host", server.host, "--port", str(server.port))


class Terminal:
    """The client at a terminal: type, and wait for what the screen must show."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command("client", *arguments), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**os.environ, "TERM": "xterm", "XDG_STATE_HOME": str(home), "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        os.close(theirs)
        self.screen = ""

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.ours, text.encode())

    def wait_for(self, text: str) -> None:
        """Read what is shown until ``text`` is, and forget the screen up to there."""
        end = time.monotonic() + 30
        while text not in self.screen:
            assert select.select([self.ours], [], [], max(0, end - time.monotonic()))[0], self.screen
            try:
                self.screen += os.read(self.ours, 4096).decode(errors="replace")
            except OSError:  # the terminal's other side is closed
                raise AssertionError(f"{text!r} not in {self.screen!r}") from None
        self.screen = self.screen.partition(text)[2]

    def wait_until_asleep(self) -> None:
        """Wait until it waits for a key: Python's readline sees a signal before that at the next key."""
        stat = Path(f"/proc/{self.process.pid}/stat")
        until(lambda: stat.read_text().rpartition(") ")[2].startswith("S"))

    def status(self) -> int:
        """Wait for the end; returns the exit status."""
        status = self.process.wait(30)
        while select.select([self.ours], [], [], 0)[0]:
            try:
                self.screen += os.read(self.ours, 4096).decode(errors="replace")
            except OSError:
                break
        assert "Traceback" not in self.screen
        return status

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        os.close(self.ours)


@pytest.fixture
def terminal(server: ServerProcess, tmp_path: Path) -> Iterator[Terminal]:
    """The client at its first prompt."""
    made = Terminal(tmp_path, *at(server))
    made.wait_for("message: ")
    yield made
    made.close()


# -- with messages ---------------------------------------------------------------------------------


def test_each_message_is_sent_and_each_reply_printed(server: ServerProcess) -> None:
    """One line for each, in order, and nothing else."""
    assert run(*at(server), "hello", "zwölf 🐍", "", "a b") == (
        0, "Received: hello\nReceived: zwölf 🐍\nReceived: \nReceived: a b\n", "",
    )  # fmt: skip


def test_exit_as_a_message_ends_it(server: ServerProcess) -> None:
    """``/exit`` has no reply; what is behind it is not sent."""
    assert run(*at(server), "a", "/EXIT", "b") == (0, "Received: a\n", "")


def test_a_refused_message_shows_in_the_status(server: ServerProcess) -> None:
    """The error is printed as the reply that it is; status 1."""
    status, output, _ = run(*at(server), "x" * 65_537)
    assert status == 1
    assert output == "Error: message-too-long: a message is limited to 65536 bytes\n"


def test_wrong_usage_is_one_line_and_status_2(server: ServerProcess) -> None:
    """A line feed in a message, a port that is none, bytes that are no text."""
    for arguments in [(*at(server), "two\nlines"), ("--port", "0"), ("--port", "65536"), ("--timeout", "0")]:
        status, output, error = run(*arguments)
        assert (status, output) == (2, "")
        assert error.startswith("chat-gevent client: ")
        assert error.count("\n") == 1
    status, output, error = run(*at(server), os.fsdecode(b"\xff"), env={"LC_ALL": "C.UTF-8"})
    assert (status, output, error.count("\n")) == (2, "", 1)
    assert "UTF-8" in error


def test_an_output_that_nobody_reads_is_not_the_servers_fault(server: ServerProcess) -> None:
    """Where the reader of a pipe has left, the client ends like other commands: silently, as by SIGPIPE."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            command("client", *at(server), "hello"),
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_no_server_is_one_line_and_status_1() -> None:
    """Nobody listens, or there is no such host."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        status, output, error = run("--port", str(port), "hello")
    assert (status, output) == (1, "")
    problem = "Connection refused; chat-gevent serve starts a server"
    assert error == f"chat-gevent client: can't connect to 127.0.0.1:{port}: {problem}\n"


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"", "the server closed the connection"),
        (None, "no answer from"),
        (b"\xff\n", "does not speak the confirm protocol"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it answered 'HTTP/1.1 400 Bad Request"),
    ],
    ids=["closes", "silent", "not-text", "http"],
)
def test_another_kind_of_server_is_told(answer: bytes | None, problem: str) -> None:
    """One that closes, says nothing, or answers with no text: one line, status 1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(100)
                if answer is None:
                    done.wait(30)
                else:
                    client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = str(listener.getsockname()[1])
        status, output, error = run("--port", port, "--timeout", "0.5", "hello")
        done.set()
        thread.join()
    assert (status, output, error.count("\n")) == (1, "", 1)
    assert problem in error


def test_the_time_out_holds_for_the_whole_reply() -> None:
    """A server that sends a byte now and then, and no LF, is late all the same."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def drip() -> None:
            client, _ = listener.accept()
            with client:
                try:
                    while not ended.wait(0.1):
                        client.sendall(b"x")
                except OSError:
                    pass

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        status, output, error = run("--port", str(listener.getsockname()[1]), "--timeout", "0.5", "hello")
        ended.set()
        thread.join()
    assert (status, output) == (1, "")
    assert "within 0.5 s" in error


# -- from a pipe -----------------------------------------------------------------------------------


def test_lines_from_a_pipe(server: ServerProcess) -> None:
    """No prompt: a reply for each line, the end of input ends it."""
    assert run(*at(server), stdin="a\n\nb") == (0, "Received: a\nReceived: \nReceived: b\n", "")
    assert run(*at(server), stdin="a\n/exit\nb\n") == (0, "Received: a\n", "")


# -- at a terminal ---------------------------------------------------------------------------------


def test_prompt_and_reply(terminal: Terminal) -> None:
    """A prompt, the reply below it, an empty line is a message too, and ``/exit`` leaves."""
    terminal.type("hello\n")
    terminal.wait_for("\tReceived: hello\r\n")
    terminal.wait_for("message: ")
    terminal.type("\n")
    terminal.wait_for("\tReceived: \r\n")
    terminal.wait_for("message: ")
    os.write(terminal.ours, b"\xff\n")
    terminal.wait_for("not UTF-8")
    terminal.wait_for("message: ")
    terminal.type("/exit\n")
    assert terminal.status() == 0


def test_replies_do_not_command_the_terminal(terminal: Terminal) -> None:
    """What a terminal would obey is shown in letters, and other text as it is."""
    terminal.type("\x16\x1b[31mrot ü\n")  # Ctrl-V: the next key as it is
    terminal.wait_for("\tReceived: \\x1b[31mrot ü\r\n")


def test_ctrl_d_leaves(terminal: Terminal) -> None:
    """The end of input is no error."""
    terminal.type("\x04")
    assert terminal.status() == 0


def test_ctrl_c_leaves(terminal: Terminal) -> None:
    """An interrupt ends it with the shell's status for that, and no traceback."""
    terminal.wait_until_asleep()
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.status() == 130


def test_line_editing_and_history(server: ServerProcess, terminal: Terminal, tmp_path: Path) -> None:
    """Backspace edits; arrow up brings messages back, also those of the time before."""
    terminal.type("helloo\x7f!\n")
    terminal.wait_for("\tReceived: hello!\r\n")
    terminal.wait_for("message: ")
    terminal.type("\x1b[A\n")
    terminal.wait_for("\tReceived: hello!\r\n")
    terminal.wait_for("message: ")
    terminal.type("/exit\n")
    assert terminal.status() == 0
    again = Terminal(tmp_path, *at(server))
    try:
        again.wait_for("message: ")
        again.type("\x1b[A\x1b[A\n")
        again.wait_for("\tReceived: hello!\r\n")
        again.wait_for("message: ")
        again.type("\x04")
        assert again.status() == 0
    finally:
        again.close()


def test_a_server_that_is_lost(tmp_path: Path) -> None:
    """What it said last is shown, then that it is gone; status 1."""
    server = ServerProcess("--port", "0")
    terminal = Terminal(tmp_path, *at(server))
    try:
        terminal.wait_for("message: ")
        terminal.type("hello\n")
        terminal.wait_for("\tReceived: hello\r\n")
        stopping = threading.Thread(target=server.stop, daemon=True)
        stopping.start()
        server.logged("draining 1 clients")
        terminal.type("too late\n")
        terminal.wait_for("Error: shutting-down: ")
        assert terminal.status() == 1
        assert "the server closed the connection" in terminal.screen
        stopping.join()
    finally:
        terminal.close()
        server.close()
