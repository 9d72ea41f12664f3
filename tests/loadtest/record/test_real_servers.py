"""Sessions of real clients with real servers become locustfiles that run unchanged, also with ten users."""

from __future__ import annotations

import signal
import smtplib
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import require, require_tool
from tests.loadtest.locust_command import run
from tests.loadtest.ports import reserved_port
from tests.loadtest.record.recording import Recording

pytestmark = pytest.mark.timeout(300)


@contextmanager
def process(port: int, *command: str) -> Iterator[None]:
    """A server as a process, from when it accepts connections."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            end = time.monotonic() + 60
            while True:
                assert server.poll() is None, f"{command[0]} ended with {server.returncode}"
                assert time.monotonic() < end, f"{command[0]} does not listen"
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.02)
            yield
        finally:
            server.kill()


def runs_green(recording: Recording, folder: Path, port: int, names: set[str]) -> None:
    """End the recording, and run what it wrote with one user and with ten."""
    status, said = recording.end(signal.SIGINT)
    assert status == 0, said
    text = recording.output.read_text()
    assert f'host = "tcp://127.0.0.1:{port}"' in text
    for users in ("1", "10"):
        options = ("-u", users, "-r", users, "-t", "6s", "--connect-timeout", "30", "--read-timeout", "30")
        done = run(folder, f"tcp://127.0.0.1:{port}", *options, locustfile=recording.output, name=users)
        assert (done.status, done.errors) == (0, {}), done.output + text
        assert done.total("messages") >= int(users) * len(names)
        titles = {histogram.title for histogram in done.report.histograms.values()}
        assert {f"Service time of {name}" for name in names} <= titles


def test_a_session_of_redis_cli(tmp_path: Path) -> None:
    """Strings, numbers that grow, lists, times, and long replies."""
    server, client = require_tool("redis-server"), require_tool("redis-cli")
    commands = (
        "PING\nSET colour blue\nGET colour\nINCR n\nINCR n\nRPUSH l a b\nLRANGE l 0 -1\nTIME\nINFO server\n"
    )
    with reserved_port() as port:
        options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path))
        with process(port, server, *options), Recording(tmp_path, port) as recording:
            said = subprocess.run(
                [client, "-p", str(recording.port)],
                input=commands,
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            ).stdout
            assert said.startswith("PONG\nOK\nblue\n1\n2\n")
            runs_green(recording, tmp_path, port, {"PING", "SET", "GET", "INCR", "LRANGE", "TIME", "INFO"})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of asyncio, in aiosmtpd
def test_a_session_of_smtplib(tmp_path: Path) -> None:
    """Greeting, replies of several lines, and a mail of several lines with one reply; each mail arrives."""
    require(find_spec("aiosmtpd"), "aiosmtpd")
    from aiosmtpd.controller import Controller

    class Counting:
        mails = 0

        async def handle_DATA(self, _server: object, _session: object, _envelope: object) -> str:
            self.mails += 1
            return f"250 queued as {self.mails}"

    handler = Counting()
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "a@example.com", "b@example.com", "Hello"
    mail.set_content("One line.\n.a dot\nand the last.\n")
    with reserved_port() as port:
        controller = Controller(handler, hostname="127.0.0.1", port=port, ready_timeout=60)
        controller.start()
        try:
            with Recording(tmp_path, port) as recording:
                with smtplib.SMTP("127.0.0.1", recording.port, timeout=30) as client:
                    client.send_message(mail)
                assert handler.mails == 1
                runs_green(recording, tmp_path, port, {"EHLO", "MAIL", "RCPT", "DATA", "QUIT"})
            assert handler.mails > 10
        finally:
            controller.stop()


def irc_session(port: int, nick: str) -> None:
    """What a small IRC client does; it answers a PING whenever one comes."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as sock,
        sock.makefile("rb") as stream,
    ):

        def say(line: str) -> None:
            sock.sendall(line.encode() + b"\r\n")

        def read(word: str) -> None:
            for line in stream:
                if line.startswith(b"PING"):
                    say("PONG " + line.decode().split()[1])
                if word.encode() in line:
                    return
            raise AssertionError(f"the stream ended before {word}")

        say(f"NICK {nick}\r\nUSER {nick} 0 * :A person")
        read(" 376 ")
        say("JOIN #room")
        read(" 366 ")
        say("PRIVMSG #room :hello")
        read("PING")
        # A person's pause: what follows has nothing to do with the PING. It is so long that the recorder sees
        # it also where it gets to read the PONG late, and shorter than the time to the next PING.
        time.sleep(1.5)
        say("NAMES #room")
        read(" 366 ")
        say("QUIT :bye")
        assert stream.read()


def test_a_session_of_an_irc_client(tmp_path: Path) -> None:
    """One-way messages, a PING that the server pushes, replies that end with a numeric, and nicknames."""
    server = require_tool("ngircd")
    with reserved_port() as port:
        configuration = tmp_path / "ngircd.conf"
        configuration.write_text(
            "[Global]\nName = irc.example.net\nInfo = test\nListen = 127.0.0.1\n"
            f"Ports = {port}\nMotdPhrase = hello\n"
            "[Limits]\nMaxConnections = 0\nMaxConnectionsIP = 0\nPingTimeout = 3\nPongTimeout = 60\n"
            "MaxPenaltyTime = 0\n"
            "[Options]\nDNS = no\nIdent = no\nPAM = no\n"
        )
        with (
            process(port, server, "-n", "-f", str(configuration)),
            Recording(tmp_path, port, "--unique", r"NICK (\S+)") as recording,
        ):
            irc_session(recording.port, "alice")
            runs_green(recording, tmp_path, port, {"USER", "JOIN"})
            assert "def on_push" in recording.output.read_text()
