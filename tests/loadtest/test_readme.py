"""The README's locustfile is run as it is printed there, against a store that speaks its protocol."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.loadtest.locust_command import ROOT, run
from tests.loadtest.servers import ScriptedServer

pytestmark = pytest.mark.timeout(200)


def store(connection: Any, _: Any) -> None:
    """``SET key value`` and ``GET key``, lines that end with CR LF."""
    kept: dict[str, str] = {}
    rest = b""
    while data := connection.recv(4096):
        *requests, rest = (rest + data).split(b"\r\n")
        for request in requests:
            verb, key, *value = request.decode().split()
            if verb == "SET":
                kept[key] = value[0]
            connection.sendall((kept[key] if verb == "GET" else "OK").encode() + b"\r\n")


def locustfile(folder: Path) -> Path:
    """The first Python block of the README as a file."""
    text = (ROOT / "loadtest" / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    assert len([line for line in code[1].splitlines() if line.strip()]) <= 15
    path = folder / "locustfile.py"
    path.write_text(code[1])
    return path


def test_the_readme_leads_to_a_load_test_of_another_protocol(tmp_path: Path) -> None:
    """Fifteen lines: right replies pass under the names given, also on a schedule."""
    with ScriptedServer(store) as server:
        options = ("-u", "5", "-r", "5", "-t", "3s", "--rate", "50")
        done = run(tmp_path, server.host, *options, locustfile=locustfile(tmp_path))
    assert (done.status, done.total("failed")) == (0, 0), done.output
    titles = {kind.title for kind in done.report.histograms.values()}
    assert {
        "Service time of SET",
        "Service time of GET",
        "Response time, intended start to answered",
    } <= titles
    assert done.total("messages") >= 30  # of the 150 that are due


def test_a_wrong_reply_of_another_protocol_fails_as_the_locustfile_says(tmp_path: Path) -> None:
    """``reply.failure`` and ``expect`` are counted under their reasons."""

    def colour_blind(connection: Any, _: Any) -> None:
        while data := connection.recv(4096):
            connection.sendall(b"red\r\n" if data.startswith(b"GET") else b"NO\r\n")

    with ScriptedServer(colour_blind) as server:
        options = ("-u", "1", "-t", "4s", "--think-time", "0.05")
        done = run(tmp_path, server.host, *options, locustfile=locustfile(tmp_path))
    assert done.status == 1
    assert set(done.errors) == {"SET WrongReply", "GET Failure(another colour)"}
    assert done.total("messages") == 0
