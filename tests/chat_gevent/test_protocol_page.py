"""PROTOCOL.md says what is so: the codes, the examples of messages and replies, and the program in Python."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import chat_gevent
from chat_gevent.confirm import ErrorCode
from chat_gevent.framing import AUTO_SECONDS, SEGMENT_BYTES, SEGMENT_SECONDS
from chat_gevent.settings import Settings
from tests.operate import ServerProcess

Operate = Callable[..., ServerProcess]

PAGE = (Path(chat_gevent.__file__).parent / "PROTOCOL.md").read_text()


def test_every_error_code_is_there() -> None:
    """The table has a row for each code that goes over the wire, and no other."""
    table = PAGE.partition("| code | when | then |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z0-9-]+)`", table, re.MULTILINE)) == {str(each) for each in ErrorCode}


def test_numbers() -> None:
    """Bounds and waits are those of the code."""
    assert f"at most {Settings().max_message_bytes:,} bytes" in PAGE
    assert f"within {AUTO_SECONDS} s" in PAGE
    assert f"First bytes of {SEGMENT_BYTES:,} or more wait a second" in PAGE
    assert SEGMENT_SECONDS == 1


def test_the_program(operate: Operate, tmp_path: Path) -> None:
    """It runs as it stands, but for the port, and prints three confirmations."""
    found = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert found
    program = found[1].replace("12345", str(operate("--port", "0").port))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert done.stderr == ""
    assert done.stdout == "".join(f"Received: message {number}\n" for number in range(3))


def test_what_auto_does_with_a_line_in_two_pieces(operate: Operate) -> None:
    """Both are confirmed as messages, the second as a line, and all that follows is lines."""
    with socket.create_connection(("127.0.0.1", operate("--port", "0").port), 30) as client:
        client.sendall(b"hel")
        assert client.recv(100) == b"Received: hel"
        client.sendall(b"lo\n")
        assert client.recv(100) == b"Received: lo\n"
        client.sendall(b"a\nb\n /EXIT \nc\n")
        with client.makefile("rb") as replies:
            assert replies.read() == b"Received: a\nReceived: b\n"
