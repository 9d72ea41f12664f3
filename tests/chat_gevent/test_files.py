"""Out of files: who can't come in is told so, nothing spins, and the server recovers by itself."""

from __future__ import annotations

import re
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from tests.operate import ServerProcess, cpu, exchange, receive, rest, until

Operate = Callable[..., ServerProcess]


def arrive(server: ServerProcess, count: int) -> tuple[list[socket.socket], list[bytes]]:
    """``count`` clients, each with a line; returns those that were confirmed, and what others were told."""
    clients = [server.connect() for _ in range(count)]
    for each in clients:
        try:
            each.sendall(b"hello\n")
        except OSError:
            pass  # it was refused before it spoke
    inside, told = [], []
    for each in clients:
        got = receive(each, 9)
        if got == b"Received:":
            assert receive(each, 7) == b" hello\n"
            inside.append(each)
        else:
            told.append(got + each.recv(200))
            each.close()
    return inside, told


def rests(server: ServerProcess) -> bool:
    """Whether it uses next to no CPU for a second; one that spins never does."""
    used = cpu(server.process.pid)
    time.sleep(1)
    return cpu(server.process.pid) - used < 0.05


def test_the_soft_limit_is_raised_to_the_hard_one(operate: Operate) -> None:
    """A soft limit of 100 holds nobody up."""
    prefix = ("sh", "-c", 'ulimit -S -n 100 && exec "$@"', "sh")
    server = operate("--port", "0", "--admin", ":0", prefix=prefix)
    assert server.metric("process_max_fds") > 100


def test_a_thousand_clients_and_256_files(operate: Operate) -> None:
    """Those over the limit are told so, CPU stays idle afterwards, and as others leave new ones get in."""
    server = operate("--port", "0", "--framing", "line", "--admin", ":0", files=256)
    assert server.metric("process_max_fds") == 256
    limit = int(server.metric("chat_gevent_connections_limit"))
    assert 150 < limit < 256
    inside, told = arrive(server, 1000)
    assert len(inside) == limit
    assert len(told) == 1000 - limit
    assert {each.split(b": ")[1] for each in told} == {b"server-full"}
    until(lambda: rests(server), what="a second of rest")
    for each in inside[:50]:
        each.close()
    until(lambda: server.metric("chat_gevent_connections") == limit - 50)
    again, told = arrive(server, 60)
    assert len(again) == 50
    assert len(told) == 10
    for each in inside[50:] + again:
        exchange(each, b"still here")
        each.close()
    assert server.stop() == 0
    assert "Traceback" not in server.log


def test_refused_clients_that_linger_take_no_places(operate: Operate) -> None:
    """Clients that stay after they were refused don't keep others out when there is room."""
    server = operate("--port", "0", "--framing", "line", "--max-connections", "2", "--admin", ":0")
    inside, _ = arrive(server, 2)
    lingering = [server.connect() for _ in range(20)]  # they are told, and don't close
    until(lambda: server.metric('chat_gevent_refused_total{reason="server-full"}') == 20)
    inside[0].close()
    until(lambda: server.metric('chat_gevent_closed_total{reason="eof"}') == 1)
    with server.connect() as client:
        exchange(client, b"hello")
    for each in [*lingering, inside[1]]:
        each.close()


def test_really_out_of_files(operate: Operate) -> None:
    """More connections allowed than files: the reserved file refuses, with a line a second at most."""
    server = operate("--port", "0", "--framing", "line", "--max-connections", "5000", files=128)
    assert "WARNING max_connections is 5000, but the limit of open files carries about " in server.log
    began = time.monotonic()
    inside, told = arrive(server, 600)
    assert len(inside) + len(told) == 600
    assert 100 < len(inside) < 128
    assert {each.split(b": ")[1] for each in told} == {b"server-full"}
    waiting = server.connect()  # one more, for which there is no file: nobody's CPU is spent on it
    assert receive(waiting, 18) == b"Error: server-full"
    waiting.close()
    until(lambda: rests(server), what="a second of rest")
    lines = re.findall(r"ERROR out of file descriptors", server.log)
    assert 1 <= len(lines) <= time.monotonic() - began + 1
    for each in inside[:30]:
        each.close()

    def comes_in() -> bool:
        came = arrive(server, 1)[0]
        inside.extend(came)
        return bool(came)

    until(comes_in)
    for each in inside[30:]:
        exchange(each, b"still here")
    inside[30:] += arrive(server, 100)[0]  # full again: it has to stop without a file to open
    server.process.send_signal(signal.SIGTERM)
    for each in inside[30:]:
        assert rest(each).startswith(b"Error: shutting-down: ")
        each.close()
    assert server.process.wait(30) == 0
    assert "Traceback" not in server.log


def test_files_that_a_handler_takes_away(operate: Operate, tmp_path: Path) -> None:
    """A handler has opened every file there is: clients are told so and counted, and served again later."""
    (tmp_path / "greedy.py").write_text(
        "import os\n"
        "held = []\n"
        "def answer(text, client):\n"
        "    if text == 'take':\n"
        "        try:\n"
        "            while True:\n"
        "                held.append(os.open('/dev/null', os.O_RDONLY))\n"
        "        except OSError:\n"
        "            pass\n"
        "    if text == 'give':\n"
        "        while held:\n"
        "            os.close(held.pop())\n"
        "    return text\n"
    )
    options = ("--framing", "line", "--handler", "greedy:answer", "--admin", ":0")
    server = operate("--port", "0", *options, files=200, cwd=tmp_path)
    with server.connect() as greedy:
        greedy.sendall(b"take\n")
        assert receive(greedy, 5) == b"take\n"
        with server.connect() as told:
            assert receive(told, 18) == b"Error: server-full"
        greedy.sendall(b"give\n")
        assert receive(greedy, 5) == b"give\n"
        with server.connect() as client:
            client.sendall(b"hello\n")
            assert select.select([client], [], [], 30)[0]
            assert receive(client, 6) == b"hello\n"
    assert server.metric("chat_gevent_accepted_total") == 3
    assert server.metric('chat_gevent_refused_total{reason="server-full"}') == 1
