"""Logs: one line an event, text or JSON, bounded, and never in the way."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from chat_gevent.command.logs import JsonFormatter, RepeatFilter, TextFormatter
from tests.operate import ServerProcess, exchange, rest, until

Operate = Callable[..., ServerProcess]


def record(message: str, *arguments: object, level: int = logging.ERROR) -> logging.LogRecord:
    """A record as a logger makes it."""
    return logging.LogRecord("chat_gevent", level, __file__, 1, message, arguments, None)


def test_json_lines(operate: Operate) -> None:
    """Each line is an object with time, level and message; the access log's has its figures as numbers."""
    server = operate("--port", "0", "--log-format", "json", "--access-log")
    with server.connect() as client:
        address = "{}:{}".format(*client.getsockname())
        exchange(client, b"hello")
        client.sendall(b"/exit\n")
        assert rest(client) == b""
    server.logged('"reason": "exit"')
    assert server.stop() == 0
    entries = [json.loads(line) for line in server.log.splitlines()]
    for each in entries:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", each["time"])
        assert each["level"] == "info"
    [left] = [each for each in entries if each["logger"] == "chat_gevent.access"]
    assert left["message"] == "closed"
    assert (left["client"], left["messages"], left["received"], left["sent"]) == (address, 1, 12, 16)


def test_levels(operate: Operate) -> None:
    """``--log-level warning`` leaves out what is only information."""
    server = operate("--port", "0", "--log-level", "warning")
    assert server.stop() == 0
    assert server.log == ""


def test_resets_are_no_news(operate: Operate) -> None:
    """50 clients that reset with replies under way: no line at all."""
    server = operate("--port", "0", "--framing", "line")
    before = server.logged("serving").string
    for _ in range(50):
        client = server.connect()
        client.sendall(b"hello\n" * 100)
        client.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER of 0 s
        client.close()
    with server.connect() as client:
        exchange(client, b"hello")
    assert server.log == before


def test_repeated_errors_are_told_once_and_counted(operate: Operate, tmp_path: Path) -> None:
    """200 failures of a handler are a line or two with one traceback each, and their number."""
    (tmp_path / "bad.py").write_text("def answer(text, client):\n    raise RuntimeError('broken')\n")
    server = operate("--port", "0", "--handler", "bad:answer", "--framing", "line", cwd=tmp_path)
    with server.connect() as client:
        client.sendall(b"x\n" * 200)
        reply = b"Error: handler-failed: the server could not handle the message\n"
        received = b""
        while len(received) < 200 * len(reply):
            received += client.recv(65536)
        assert received == reply * 200
    told = server.logged(r"(\d+) more like this: handler failed for")
    assert int(told[1]) == 200 - server.log.count("RuntimeError: broken")
    assert server.log.count("RuntimeError: broken") <= 3


def test_nobody_who_reads_the_log_can_stop_the_server(operate: Operate) -> None:
    """Standard error is a pipe that is full and not read: clients are served, and the server stops."""
    reader, writer = os.pipe()
    try:
        server = operate("--port", "0", "--access-log", "--admin", "127.0.0.1:0", stderr=writer, ready=True)
        os.close(writer)
        for _ in range(1500):  # 150 bytes a line: three times what a pipe holds
            with server.connect() as client:
                exchange(client, b"hello")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
    finally:
        os.close(reader)


def test_a_closed_standard_error_is_no_reason_to_fail(operate: Operate) -> None:
    """Nobody has the other end any more: the server goes on."""
    reader, writer = os.pipe()
    os.close(reader)
    server = operate("--port", "0", "--access-log", stderr=writer)
    os.close(writer)
    for _ in range(3):
        with server.connect() as client:
            exchange(client, b"hello")
    assert server.stop() == 0


def test_a_line_is_one_line_whatever_is_in_it() -> None:
    """Control characters of a client's making can't forge a line or move a terminal's cursor."""
    text = TextFormatter().format(record("from %s", "x\nERROR forged\x1b[2J"))
    assert "\n" not in text
    assert "\x1b" not in text
    assert text.endswith(r"from x\nERROR forged\x1b[2J")
    try:
        raise ValueError("a\x1b[2J\nb")
    except ValueError:
        import sys

        failed = record("failed")
        failed.exc_info = sys.exc_info()
    lines = TextFormatter().format(failed).splitlines()
    assert "\x1b" not in "".join(lines)
    assert all(each.startswith("    ") for each in lines[1:])
    assert json.loads(JsonFormatter().format(record("from %s", "x\ny")))["message"] == "from x\ny"


def test_each_line_of_a_worker_names_it() -> None:
    """In text after the message, in JSON as a key; a process that serves alone has no number."""
    assert TextFormatter(3).format(record("from %s", "here")).endswith(" from here worker=3")
    assert json.loads(JsonFormatter(3).format(record("x %s", "y")))["worker"] == 3
    assert "worker" not in JsonFormatter().format(record("x %s", "y"))


def test_the_filter_lets_information_pass() -> None:
    """Only warnings and errors are held back, and each template by itself."""
    repeats = RepeatFilter()
    assert all(repeats.filter(record("hello", level=logging.INFO)) for _ in range(5))
    assert [repeats.filter(record("a")) for _ in range(3)] == [True, False, False]
    assert repeats.filter(record("b"))


def test_the_output_is_one_line(operate: Operate) -> None:
    """Standard output has the ready line and nothing else; all the rest is on standard error."""
    server = operate("--port", "0", "--access-log")
    with server.connect() as client:
        exchange(client, b"hello")
    assert server.stop() == 0
    assert server.process.stdout is not None
    assert server.process.stdout.read() == b""
    until(lambda: "stopped: 1 messages answered" in server.log)


def test_a_closed_standard_output_is_no_reason_to_fail() -> None:
    """Whoever started it may not want to read the ready line."""
    from tests.conftest import command

    reader, writer = os.pipe()
    os.close(reader)
    started = command("serve", "--port", "0")
    server = subprocess.Popen(started, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert server.stderr is not None
    try:
        lines = [server.stderr.readline(), server.stderr.readline()]
        assert "serving tcp://127.0.0.1:" in lines[0]
        assert "nobody takes the ready line: Broken pipe" in lines[1]
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
        assert "Traceback" not in server.stderr.read()
    finally:
        server.kill()
        server.wait()
        server.stderr.close()
