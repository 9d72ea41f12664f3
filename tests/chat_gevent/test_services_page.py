"""The examples of SERVICES.md: each runs, with real clients, and ``mypy --strict`` passes."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import chat_gevent
from chat_gevent.testing import running
from tests.conftest import require, wait_until
from tests.operate import ServerProcess, kept_port, receive, rest, until
from tests.protocol import without_hint

PAGE = Path(chat_gevent.__file__).with_name("SERVICES.md")
EXAMPLES = dict(
    re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
)

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Import examples of the page as modules, in an empty folder."""
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module
    for name in EXAMPLES:
        sys.modules.pop(name, None)


def write(folder: Path) -> None:
    """Write all examples into files of their names."""
    for name, text in EXAMPLES.items():
        (folder / f"{name}.py").write_text(text)


def test_the_page_has_its_examples() -> None:
    """The function, the five services (ingest is two), and a test."""
    assert list(EXAMPLES) == ["echo", "room", "store", "ingest", "queue_up", "sums", "game", "test_room"]
    assert PAGE.read_text().count("```python") == len(EXAMPLES)


@pytest.mark.parametrize(
    ("name", "most"),
    [("room", 16), ("store", 20), ("ingest", 20), ("queue_up", 20), ("sums", 20), ("game", 20)],
)
def test_examples_are_as_short_as_they_are_said_to_be(name: str, most: int) -> None:
    """Lines of code, imports included, empty ones not."""
    assert len([line for line in EXAMPLES[name].splitlines() if line.strip()]) <= most
    ast.parse(EXAMPLES[name])


@pytest.mark.timeout(300)
def test_mypy_is_content(tmp_path: Path) -> None:
    """``mypy --strict`` on all of them."""
    write(tmp_path)
    require(shutil.which("mypy", path=str(Path(sys.executable).parent)), "mypy")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_echo(load: Load, tmp_path: Path) -> None:
    """In this process; as a program with ``run``; by the command."""
    with running(load("echo").shout) as server:
        assert server.ask("hello") == "HELLO"
    (tmp_path / "echo.py").write_text(EXAMPLES["echo"].replace("12345", str(kept_port())))
    port = int((tmp_path / "echo.py").read_text().partition('"127.0.0.1", ')[2].partition(")")[0])
    process = subprocess.Popen([sys.executable, "echo.py"], cwd=tmp_path)
    try:
        until(lambda: reachable(port))
        with socket.create_connection(("127.0.0.1", port), 30) as client:
            client.sendall(b"hello\n")
            assert receive(client, 6) == b"HELLO\n"
            process.send_signal(signal.SIGTERM)
            assert without_hint(rest(client)) == b"Error: shutting-down: the server is going away\n"
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_the_command_runs_the_function(operate: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """``chat-gevent serve --handler echo:shout``."""
    write(tmp_path)
    server = operate("--port", "0", "--handler", "echo:shout", cwd=tmp_path)
    with server.connect() as client:
        client.sendall(b"hello\n")
        assert receive(client, 6) == b"HELLO\n"


def reachable(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_room(load: Load) -> None:
    """Who speaks hears it too; coming and going is told, with the reason."""
    with running(load("room").Room) as server:
        ann, bob = server.connect(), server.connect()
        assert ann.pushed() == "you are 1"
        assert bob.pushed() == "you are 2"
        assert ann.pushed() == "2 has come"
        assert ann.ask("hello") == "1: hello"
        assert bob.pushed() == "1: hello"
        bob.send("/exit")
        assert bob.rest() == []
        assert ann.pushed() == "2 has gone (exit)"


def test_store(load: Load) -> None:
    """Clients share one store."""
    with running(load("store").Store) as server:
        one, other = server.connect(), server.connect()
        assert one.ask("SET greeting hello, world") == "OK"
        assert other.ask("GET greeting") == "hello, world"
        assert other.ask("DEL greeting") == "OK"
        assert one.ask("GET greeting") == "(none)"
        assert one.ask("nonsense") == "ERROR: GET key, SET key value, DEL key"


def test_ingest(load: Load, tmp_path: Path) -> None:
    """What is answered is in the database."""
    with running(load("ingest").Ingest) as server:
        clients = [server.connect() for _ in range(5)]
        for number, client in enumerate(clients):
            client.send(f"line {number}")
        assert [client.pushed() for client in clients] == ["stored"] * 5
        with sqlite3.connect(tmp_path / "measurements.db") as database:
            found = database.execute("SELECT line FROM lines ORDER BY line").fetchall()
        database.close()
    assert found == [(f"line {number}",) for number in range(5)]


def test_queue_up(operate: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """Into a real Redis, by the command; a client that waits for Redis holds nobody."""
    pytest.importorskip("redis")
    require(shutil.which("redis-server"), "the command 'redis-server', which is not installed")
    write(tmp_path)
    port = kept_port()
    redis_server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1"], stdout=subprocess.DEVNULL
    )
    try:
        until(lambda: reachable(port))
        (tmp_path / "queue_up.py").write_text(
            EXAMPLES["queue_up"].replace("redis://localhost", f"redis://127.0.0.1:{port}")
        )
        server = operate("--port", "0", "--handler", "queue_up:QueueUp", cwd=tmp_path)
        with server.connect() as client:
            client.sendall(b"a\nb\n")
            assert receive(client, 24) == b"queued as 1\nqueued as 2\n"
    finally:
        redis_server.terminate()
        redis_server.wait()


def test_sums(load: Load) -> None:
    """Numbers in, their sum out; what is no number is refused in the protocol's own words."""
    with running(load("sums").Sums) as server:
        client = server.connect()
        assert client.ask(struct.pack("!3q", 1, 2, -10)) == struct.pack("!Bq", 0, -7)
        assert client.ask(b"odd") == b"\x01handler-failed"
        assert client.ask(b"") == struct.pack("!Bq", 0, 0)


def test_game(load: Load) -> None:
    """Positions come unasked at each tick, and follow what the players do."""
    with running(load("game").Game) as server:
        ann, bob = server.connect(), server.connect()
        assert bob.pushed().startswith("1=0")
        ann.send("right")
        bob.send("left")

        def far() -> bool:
            positions = dict(each.split("=") for each in ann.pushed().split())
            return int(positions["1"]) >= 3 and int(positions.get("2", 0)) <= -3

        wait_until(far)


def test_the_test_of_the_page(load: Load, tmp_path: Path) -> None:
    """It passes, by the function that it is."""
    load("test_room").test_everybody_hears_what_is_said()
