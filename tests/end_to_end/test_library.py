"""The first server of SERVICES.md, as a real process that is stopped while clients are busy and idle."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.operate import until

PAGE = Path(__file__).parents[2] / "chat_gevent" / "SERVICES.md"
TOLD_PORT = """server = ChatServer(("127.0.0.1", 0), shout)
    server.start()
    print(f"listening on port {server.server_port}", flush=True)
    raise SystemExit(server.run())"""


def example(tmp_path: Path) -> Path:
    """The page's first block as a program that tells its port; its handler takes a while where asked to."""
    block = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block
    source = block[1].replace('ChatServer(("127.0.0.1", 12345), shout).run()', TOLD_PORT)
    source = source.replace(
        "return message.upper()",
        "__import__('gevent').sleep(0.3 if message == 'wait' else 0); return message.upper()",
    )
    assert "sleep" in source
    assert "listening" in source
    program = tmp_path / "shout.py"
    program.write_text(source)
    return program


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_example_drains(tmp_path: Path, number: signal.Signals) -> None:
    """Stopped under 100 busy and 100 idle clients: the busy are answered, all are told, status 0."""
    process = subprocess.Popen(
        [sys.executable, str(example(tmp_path))], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        port = int(process.stdout.readline().rpartition(" ")[2])
        clients = [socket.create_connection(("127.0.0.1", port), 30) for _ in range(200)]
        for client in clients:
            client.sendall(b"hello\n")
        for client in clients:
            assert client.recv(100) == b"HELLO\n"
        busy, idle = clients[:100], clients[100:]
        for client in busy:
            client.sendall(b"wait\n")
        time.sleep(0.1)  # in their handlers by then; what is held does not depend on it
        process.send_signal(number)
        told = b"Error: shutting-down: the server is going away"
        for client in idle:
            assert read_all(client).startswith(told)
        for client in busy:
            assert read_all(client).startswith(b"WAIT\n" + told)
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, "Traceback" in errors) == (0, False)
    finally:
        process.kill()
        process.communicate()


def read_all(client: socket.socket) -> bytes:
    """Read to the end of the stream, and close."""
    data = b""
    with client:
        while more := client.recv(4096):
            data += more
    return data


def reachable(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Clients with replies due are cut off then, and the exit status says so."""
    process = subprocess.Popen(
        [sys.executable, str(example(tmp_path))], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        port = int(process.stdout.readline().rpartition(" ")[2])
        with socket.create_connection(("127.0.0.1", port), 30) as client:
            client.sendall(b"hello\n")
            assert client.recv(100) == b"HELLO\n"
            client.sendall(b"wait\n" * 200)  # a minute's work
            assert client.recv(100) == b"WAIT\n"
            process.send_signal(signal.SIGTERM)
            until(lambda: not reachable(port))  # so the first signal has come
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=30)
            assert (process.returncode, "Traceback" in errors) == (3, False)
    finally:
        process.kill()
        process.communicate()
