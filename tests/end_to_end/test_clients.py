"""The clients that people have, against the real ``chat-gevent serve`` with its defaults."""

from __future__ import annotations

import os
import pty
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import require_tool
from tests.operate import ServerProcess


@pytest.fixture(scope="module", params=["0", "never"], ids="park-after-{}".format)
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """One server for the module, with each kind of parking; it must end well and have logged no traceback."""
    process = ServerProcess("--port", "0", "--park-after", request.param)
    try:
        yield process
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log
    finally:
        process.close()


def first_client(server: ServerProcess, name: str = "client") -> None:
    """Talk as the first client did: ``send`` without a terminator, ``recv(1024)``, ``/exit``."""
    client_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    client_socket.settimeout(30)
    client_socket.connect(server.address())
    for number in range(3):
        message = f"{name}: message {number}, ü"
        client_socket.send(message.encode("utf-8"))
        assert client_socket.recv(1024).decode("utf-8") == "Received: " + message
    client_socket.send(b"/exit")
    assert client_socket.recv(1024) == b""
    client_socket.close()


def nc(server: ServerProcess, data: bytes, *options: str) -> bytes:
    """What ``nc`` prints that is given ``data`` on its standard input."""
    done = subprocess.run(
        [require_tool("nc"), *options, server.host, str(server.port)],
        input=data, capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.stderr == b""
    return done.stdout


def test_the_first_client(server: ServerProcess) -> None:
    """Plain ``socket``, no terminators: a confirmation for each message, and ``/exit`` ends it."""
    first_client(server)


def test_nc_with_lines(server: ServerProcess) -> None:
    """``printf 'a\\nb\\n' | nc -N``: both are confirmed before the connection closes."""
    assert nc(server, b"a\nb\n", "-N") == b"Received: a\nReceived: b\n"


def test_nc_without_a_line_end(server: ServerProcess) -> None:
    """``printf hello | nc -N``: the end of its stream ends the message."""
    assert nc(server, b"hello", "-N").rstrip(b"\n") == b"Received: hello"


def test_nc_that_does_not_end_its_stream(server: ServerProcess) -> None:
    """Without ``-N`` nc keeps the connection open: replies come all the same, and nothing after them."""
    for data, reply in ((b"a\nb\n", b"Received: a\nReceived: b\n"), (b"hello", b"Received: hello")):
        with subprocess.Popen(
            [require_tool("nc"), server.host, str(server.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(data)
            process.stdin.flush()
            assert process.stdout.read(len(reply)) == reply
            process.terminate()
            assert process.stdout.read() == b""


def test_telnet_line_input(server: ServerProcess) -> None:
    """At a terminal, telnet sends each line with CR LF and shows each reply."""
    telnet = require_tool("telnet")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [telnet, server.host, str(server.port)], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    try:
        screen = b""

        def wait_for(text: bytes) -> None:
            nonlocal screen
            end = time.monotonic() + 30
            while text not in screen:
                assert select.select([ours], [], [], max(0, end - time.monotonic()))[0], screen
                screen += os.read(ours, 4096)

        wait_for(b"Escape character")
        os.write(ours, b"hello there\n")
        wait_for(b"Received: hello there\r\n")
        os.write(ours, b"\n")
        wait_for(b"Received: \r\n")
        os.write(ours, b"/exit\n")
        wait_for(b"closed by foreign host")
        process.wait(30)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def slow_typist(server: ServerProcess, name: str) -> None:
    """Send lines in pieces, with pauses and both kinds of line end."""
    with socket.create_connection(server.address(), 30) as client, client.makefile("rb") as replies:
        client.sendall(b"first\n")
        assert replies.readline() == b"Received: first\n"
        for end in (b"\n", b"\r\n"):
            for piece in (name[:2].encode(), name[2:].encode(), end):
                client.sendall(piece)
                time.sleep(0.01)
            assert replies.readline() == b"Received: " + name.encode() + b"\n"


def test_two_hundred_mixed_clients_at_once(server: ServerProcess) -> None:
    """All kinds at the same time on one port: each gets its own replies and nothing else."""
    kinds: list[Callable[[int], None]] = [
        lambda n: first_client(server, f"client {n}"),
        lambda n: slow_typist(server, f"typist {n}"),
    ]

    def with_nc(number: int) -> None:
        text = f"nc {number}".encode()
        assert (
            nc(server, text + b"\n" + text + b"\n", "-N")
            == b"Received: " + text + b"\nReceived: " + text + b"\n"
        )

    def with_nc_without_line_end(number: int) -> None:
        text = f"nc {number}".encode()
        assert nc(server, text, "-N").rstrip(b"\n") == b"Received: " + text

    kinds += [with_nc, with_nc_without_line_end]
    with ThreadPoolExecutor(200) as pool:
        for done in [pool.submit(kinds[number % 4], number) for number in range(200)]:
            done.result(30)
