"""``python -m loadtest record`` as a real process."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.loadtest.locust_command import ROOT
from tests.loadtest.record.recording import Recording, lines_server

pytestmark = pytest.mark.timeout(150)


def ask(port: int, *messages: bytes) -> list[bytes]:
    """The replies to messages on one connection."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as sock,
        sock.makefile("rb") as stream,
    ):
        replies = []
        for message in messages:
            sock.sendall(message)
            replies.append(stream.readline())
    return replies


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_it_writes_what_it_has(tmp_path: Path, number: int) -> None:
    """Also with a client that is still connected."""
    with lines_server() as port, Recording(tmp_path, port, "--mask", r"AUTH (\S+)") as recording:
        assert ask(recording.port, b"hello\n", b"AUTH hunter2\n") == [b"HELLO\n", b"AUTH HUNTER2\n"]
        with socket.create_connection(("127.0.0.1", recording.port)) as waiting:
            waiting.sendall(b"still here\n")
            assert waiting.recv(100) == b"STILL HERE\n"
            status, said = recording.end(number)
    assert (status, "2 connections" in said) == (0, True), said
    text = recording.output.read_text()
    assert 'self.client.request("hello", name="HELLO", expect=b"HELLO")' in text
    assert "still here" in text
    assert "hunter2" not in text


def record(*options: str) -> Any:
    """A recorder that ends by itself."""
    command = [
        sys.executable,
        "-m",
        "loadtest",
        "record",
        "--listen",
        "127.0.0.1:0",
        "--to",
        "127.0.0.1:1",
        *options,
    ]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100, check=False)


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    """It is told at once, not after an hour's recording; ``--force`` overwrites it."""
    output = tmp_path / "locustfile.py"
    output.write_text("mine")
    done = record("--output", str(output))
    assert (done.returncode, output.read_text()) == (1, "mine")
    assert "exists: give another --output, or --force" in done.stderr
    with lines_server() as port, Recording(tmp_path, port, "--force") as recording:
        ask(recording.port, b"hello\n")
        assert recording.end(signal.SIGINT)[0] == 0
    assert "RecordedUser" in output.read_text()


def test_an_expression_that_matched_nothing_is_told(tmp_path: Path) -> None:
    """A password may stand in the file because of it."""
    masks = ("--mask", r"PASSWORD (\S+)", "--mask", "hunter2")
    with lines_server() as port, Recording(tmp_path, port, *masks) as recording:
        ask(recording.port, b"AUTH hunter2\n")
        status, said = recording.end(signal.SIGTERM)
    assert status == 0, said
    assert said.count("matched nothing") == 1
    assert "PASSWORD" in said


def test_the_file_is_utf_8_whatever_the_locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python reads it."""
    for name, value in (("LC_ALL", "C"), ("PYTHONCOERCECLOCALE", "0"), ("PYTHONUTF8", "0")):
        monkeypatch.setenv(name, value)
    with lines_server() as port, Recording(tmp_path, port) as recording:
        ask(recording.port, "caf\xe9\n".encode())
        status, said = recording.end(signal.SIGTERM)
    assert status == 0, said
    assert 'self.client.request("caf\xe9"' in recording.output.read_text(encoding="utf-8")


def test_without_a_message_nothing_is_written(tmp_path: Path) -> None:
    """And that is said, with status 1."""
    with lines_server() as port, Recording(tmp_path, port) as recording:
        status, said = recording.end(signal.SIGTERM)
    assert (status, recording.output.exists()) == (1, False)
    assert "no client has sent anything" in said


def test_a_first_message_longer_than_what_is_kept_is_told_as_such(tmp_path: Path) -> None:
    """Nothing is written, and ``--keep`` is named, in one line."""
    with lines_server() as port, Recording(tmp_path, port, "--keep", "1000") as recording:
        ask(recording.port, b"x" * 5000 + b"\n")
        status, said = recording.end(signal.SIGTERM)
    assert (status, recording.output.exists()) == (1, False)
    assert said.startswith("nothing was written: what each client said first is longer")
    assert "--keep 1000" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--mask", "("), "is not a regular expression"),
        (("--mask", "(a)=(b)"), "has 2 groups"),
        (("--listen", "here"), "an address is written HOST:PORT"),
        (("--output", "/nowhere/x.py"), "/nowhere is not a folder"),
        (("--keep", "0"), "a number of bytes is 1 or more"),
        (("--keep", "many"), "a number of bytes is 1 or more"),
    ],
)
def test_mistakes_are_told_before_anything_is_recorded(options: tuple[str, str], sentence: str) -> None:
    """In one sentence."""
    done = record(*options)
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("size", ["0", "-5", "1.5"])
def test_keeping_less_than_a_byte_is_a_mistake_of_usage(size: str) -> None:
    """With the status that argparse gives those."""
    assert record(f"--keep={size}").returncode == 2
