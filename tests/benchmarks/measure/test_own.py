"""A server of the user's is measured by its command, in its own protocol where it has one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.cli import main
from benchmarks.measure.servers.own import own_server, protocol, unescaped
from benchmarks.measure.servers.process import ServerFailed, ServerProcess
from benchmarks.measure.servers.terminator import MODULE
from benchmarks.reports.report import Report
from tests.conftest import require, require_tool

PONG = """
import socketserver, sys
class Each(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            word, _, rest = line.partition(b" ")
            self.wfile.write(b"+PONG\\r\\n" if word == b"PING\\r\\n" else b"echo:" + rest)
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[1])), Each).serve_forever()
"""
BRIEF = ["--connections", "5", "--seconds", "0.2", "--warmup", "0", "--blocks", "1", "--slices", "1"]


@pytest.fixture
def command(tmp_path: Path) -> str:
    """A server with a protocol of its own."""
    path = tmp_path / "pong.py"
    path.write_text(PONG)
    return f"mine={sys.executable} {path} {{port}}"


@pytest.mark.parametrize("generator", ["c", "python"])
@pytest.mark.parametrize(
    ("send", "expect"), [("ECHO {message}\\n", "echo:{message}\\n"), ("PING\\r\\n", "+PONG\\r\\n")]
)
def test_any_command_is_measured(
    command: str, send: str, expect: str, generator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its message in the text or without, beside a server of ours in the protocol of ours."""
    monkeypatch.setenv("BENCHMARKS_GENERATOR", generator)
    output = tmp_path / "r.json"
    words = ["--server", command, "--send", send, "--expect", expect, "--servers", "asyncio_protocol"]
    assert main(["run", "confirm", *words, *BRIEF, "--output", str(output)]) == 0
    report = Report.load(output)
    assert [server.name for server in report.servers] == ["mine", "asyncio_protocol"]
    assert all(trial.messages and not trial.errors for trial in report.trials)
    assert len(report.trials) == 2
    assert "{port}" in report.servers[0].command


@pytest.mark.parametrize("terminator", ["haproxy", "nginx"])
def test_a_command_that_speaks_tls(terminator: str, tmp_path: Path) -> None:
    """With {certificate} and {key} in it; here HAProxy and nginx, which are in front of the server."""
    require_tool(terminator)
    if terminator == "nginx":
        require(Path(MODULE).exists(), "nginx's module for streams")
    output = tmp_path / "r.json"
    command = f"{sys.executable} -m benchmarks.measure.servers.terminator {terminator}"
    words = ["--server", f"it={command} {{port}} {{certificate}} {{key}}", "--servers", "asyncio_protocol"]
    small = ["--tls", "1", "--connections", "40", "--settle", "0", "--blocks", "1"]
    assert main(["run", "memory", *words, *small, "--output", str(output)]) == 0
    report = Report.load(output)
    assert [server.name for server in report.servers] == ["it", "asyncio_protocol"]
    assert [trial.messages for trial in report.trials] == [40, 40]
    assert not any(trial.errors for trial in report.trials)


def test_a_wrong_answer_is_a_failure(command: str, tmp_path: Path) -> None:
    """What is not as expected is counted, and nothing is confirmed."""
    output = tmp_path / "r.json"
    words = ["--server", command, "--send", "ECHO {message}\\n", "--expect", "other:{message}\\n"]
    main(["run", "confirm", *words, *BRIEF, "--output", str(output)])
    (trial,) = Report.load(output).trials
    assert trial.messages == 0
    assert set(trial.errors) == {"mismatch"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--server", "mine"], "NAME=COMMAND is wanted"),
        (["--server", "go=sh {port}"], "go is one of the servers here"),
        (["--server", "mine=sh"], "the command has no {port}"),
        (["--server", "mine=no-such-program {port}"], "there is no program no-such-program"),
        (["--server", "mine=sh {port}", "--send", "{message}{message}"], "in it at most once"),
        (["--server", "mine=sh {port}", "--send", "\\q"], "after a backslash comes n, r, t or a backslash"),
        (["--server", "mine=sh {port} {certificate} {key}"], "are there only over TLS"),
        (["--server", "mine=sh {port} {key}"], "over TLS the command needs {certificate} and {key}"),
        (["--send", "x"], "say what a --server is sent"),
    ],
)
def test_what_cannot_be_is_said(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, status 2, and nothing is run."""
    assert main(["run", "confirm", *arguments]) == 2
    assert complaint in capsys.readouterr().err


def test_escapes() -> None:
    """The four escapes, and text that is none of ASCII."""
    assert unescaped(r"a\r\n\t\\ü") == "a\r\n\t\\ü"
    assert protocol("{message};", "ok")["send_tail"] == ";"


def test_a_command_that_ends_is_told() -> None:
    """Its status and the last line of its standard error."""
    server = own_server("mine=sh -c 'echo no luck >&2; exit 3' {port}")
    with pytest.raises(ServerFailed, match=r"mine is not ready: it ended with status 3 .*no luck"):
        ServerProcess(server)
