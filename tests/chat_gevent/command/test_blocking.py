"""A handler that holds the event loop is named in the log of the process that it holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.operate import ServerProcess

Operate = Callable[..., ServerProcess]

HANDLER = """
import time
import gevent

def dawdle(seconds):
    time.sleep(seconds)

def handle(message, client):
    word, seconds = message.split()
    (dawdle if word == "hold" else gevent.sleep)(float(seconds))
    return "done"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the handler is."""
    (tmp_path / "slow.py").write_text(HANDLER)
    return tmp_path


def ask(server: ServerProcess, message: bytes) -> None:
    """Send a message, and wait for the reply."""
    with server.connect() as client:
        client.sendall(message + b"\n")
        assert client.recv(5) == b"done\n"


def test_what_holds_the_loop_is_named_with_its_stack(operate: Operate, folder: Path) -> None:
    """4 s in ``time.sleep``: one record, which shows the handler's own lines; then all goes on."""
    server = operate("--port", "0", "--handler", "slow:handle", cwd=folder)
    ask(server, b"hold 4")
    server.logged("ERROR the event loop has been held for 1 s; nobody is served meanwhile\n")
    stack = server.log.partition("nobody is served meanwhile\n")[2]
    assert all(line.startswith("    ") for line in stack.splitlines())
    assert "slow.py" in stack
    assert "in handle" in stack
    assert "time.sleep(seconds)" in stack
    assert server.log.count("has been held") == 1
    ask(server, b"hold 4")  # each time that it happens
    server.logged("(?s)has been held.*has been held")
    assert server.stop() == 0


def test_as_json_it_is_one_line(operate: Operate, folder: Path) -> None:
    """And the setting says how long is too long."""
    options = ("--handler", "slow:handle", "--max-blocking-time", "1500ms", "--log-format", "json")
    server = operate("--port", "0", *options, cwd=folder)
    ask(server, b"hold 3")
    line = server.logged(r"\{.*has been held for 1\.5 s.*\}\n")[0]
    assert "in dawdle" in json.loads(line)["stack"]


def test_what_waits_as_gevent_does_holds_nobody(operate: Operate, folder: Path) -> None:
    """A handler may take its time; and 0 switches the watch off."""
    options = ("--port", "0", "--handler", "slow:handle", "--max-blocking-time")
    server = operate(*options, "3s", cwd=folder)
    ask(server, b"wait 4")
    assert "has been held" not in server.log
    server = operate(*options, "0", cwd=folder)
    ask(server, b"hold 0.7")
    assert server.stop() == 0
    assert "has been held" not in server.log
