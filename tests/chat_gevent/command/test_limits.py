"""Limits that hold for clients, and the command that tells what the machine allows."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from chat_gevent.command.limits import Machine, advice, measure_connection, report
from chat_gevent.files import RESERVED_FILES, open_files
from tests.conftest import command, require, require_tool
from tests.operate import ServerProcess, exchange, memory, receive, rest, stuff, until

Operate = Callable[..., ServerProcess]


def test_the_limit_of_an_address(operate: Operate) -> None:
    """One address may have two clients, another one still gets in, and a place that is left is free again."""
    server = operate(
        "--port", "0", "--max-connections-per-address", "2", "--admin", ":0", "--framing", "line"
    )

    def connect(host: str) -> socket.socket:
        return socket.create_connection(server.address(), 30, source_address=(host, 0))

    with connect("127.0.0.2") as one, connect("127.0.0.2") as two, connect("127.0.0.3") as other:
        for each in (one, two, other):
            exchange(each, b"hello")
        with connect("127.0.0.2") as third:
            assert rest(third).startswith(b"Error: address-full: ")
        one.close()
        until(lambda: server.metric("chat_gevent_connections") == 2)
        with connect("127.0.0.2") as again:
            exchange(again, b"hello")


def test_unix_clients_share_no_address(operate: Operate, tmp_path: object) -> None:
    """The limit of an address does not hold for those that have none."""
    path = f"{tmp_path}/chat.sock"
    server = operate("--listen", f"unix://{path}", "--max-connections-per-address", "1")
    clients = []
    for _ in range(3):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(30)
        client.connect(path)
        exchange(client, b"hello")
        clients.append(client)
    for each in clients:
        each.close()
    assert server.stop() == 0


def test_the_rate_holds_back_and_loses_nothing(operate: Operate) -> None:
    """160 messages at 40 a second, after a burst of a second's worth: 3 s, and others are not held back."""
    server = operate("--port", "0", "--message-rate", "40", "--framing", "line")
    with server.connect() as eager, server.connect() as calm:
        began = time.monotonic()
        eager.sendall(b"x\n" * 160)
        exchange(calm, b"hello")
        eager.setblocking(False)
        early = eager.recv(160 * 12)
        assert len(early) < 160 * 12
        eager.settimeout(30)
        assert early + receive(eager, 160 * 12 - len(early)) == b"Received: x\n" * 160
        assert time.monotonic() - began > 2.8


def test_memory_of_slow_readers_is_bounded(operate: Operate) -> None:
    """20 clients that send and never read, until the server takes no more: about a batch each, no more."""
    server = operate("--port", "0", "--framing", "line", "--admin", ":0")
    before = memory(server.process.pid)
    clients = stuff(server, 20, b"x" * 1000 + b"\n")
    assert memory(server.process.pid) - before < 20 * 400_000
    for each in clients:
        each.close()
    until(lambda: server.metric("chat_gevent_connections") == 0)


def test_a_reader_that_takes_nothing_is_closed_in_time(operate: Operate) -> None:
    """After ``write_timeout``, with the reason in the metrics; others are served meanwhile."""
    server = operate("--port", "0", "--framing", "line", "--admin", ":0", "--write-timeout", "1")
    with socket.socket() as stuck, server.connect() as client:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(server.address())
        stuck.setblocking(False)

        def closed() -> bool:
            with contextlib.suppress(OSError):
                while stuck.send(b"x" * 1000 + b"\n"):
                    pass
            exchange(client, b"hello")
            return server.metric('chat_gevent_closed_total{reason="write-timeout"}') == 1

        until(closed)
        exchange(client, b"hello")


def test_keepalive_finds_dead_peers(operate: Operate) -> None:
    """The timers that find them run for each client's socket; with 0 they don't."""
    ss = [require_tool("ss"), "-tnoH", "state", "established"]
    for seconds, expected in (("30", True), ("0", False)):
        server = operate("--port", "0", "--keepalive-idle", seconds, "--framing", "line")
        with server.connect() as client:
            exchange(client, b"hello")
            port = server.address()[1]
            found = subprocess.run([*ss, f"( sport = :{port} )"], capture_output=True, text=True, check=True)
            assert ("timer:(keepalive," in found.stdout) is expected


@pytest.fixture
def two_hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a cable between them, 10.77.0.1 and 10.77.0.2; names of both."""
    require(os.geteuid() == 0, "root, for network namespaces")
    ip = require_tool("ip")
    names = f"cg{os.getpid()}a", f"cg{os.getpid()}b"
    cable = [
        "link",
        "add",
        "cable",
        "netns",
        names[0],
        "type",
        "veth",
        "peer",
        "name",
        "cable",
        "netns",
        names[1],
    ]
    steps = [["netns", "add", name] for name in names] + [cable]
    for number, name in enumerate(names, 1):
        steps.append(["-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "cable"])
        steps.append(["-n", name, "link", "set", "cable", "up"])
    try:
        for each in steps:
            subprocess.run([ip, *each], check=True, capture_output=True, timeout=30)
        yield names
    finally:
        for name in names:
            subprocess.run([ip, "netns", "del", name], capture_output=True, timeout=30)


def test_a_peer_that_vanishes_is_found(operate: Operate, two_hosts: tuple[str, str]) -> None:
    """The cable is cut, without FIN or RST: keepalive ends the connection, not the idle time-out."""
    here, there = two_hosts
    inside = ("ip", "netns", "exec")
    server = operate(
        *("--listen", "tcp://10.77.0.1:0", "--access-log", "--tcp-user-timeout", "2"),
        *("--keepalive-idle", "1", "--keepalive-interval", "1", "--keepalive-probes", "2"),
        prefix=(*inside, here),
    )
    peer = [*inside, there, require_tool("nc"), "10.77.0.1", str(server.address()[1])]
    with subprocess.Popen(peer, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"hello\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"Received: hello\n"
        subprocess.run(["ip", "-n", there, "link", "set", "cable", "down"], check=True, timeout=30)
        server.logged("closed client=.* messages=1 .*reason=lost")
        client.kill()
    assert server.stop() == 0


def test_what_the_limits_command_says(capfd: pytest.CaptureFixture[str]) -> None:
    """Figures as the kernel gives them, connections that follow, and lines to paste."""
    done = subprocess.run(
        command("limits", "--json", "--workers", "4"), capture_output=True, timeout=50, check=True
    )
    found = json.loads(done.stdout)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert found["files_per_process"] == hard
    assert found["connections"]["1"] <= hard - RESERVED_FILES
    assert found["connections"]["4"] >= found["connections"]["1"]
    assert 100 < found["user_bytes_per_connection"] < 4096
    assert 2000 < found["kernel_bytes_per_connection"] < 8000
    with open("/proc/sys/net/core/somaxconn") as known:  # noqa: PTH123
        assert found["accept_queue"] == int(known.read())


def machine(**changes: object) -> Machine:
    """A machine that has enough of everything for 50,000 clients in a process, but for ``changes``."""
    figures: dict[str, object] = {
        "cores": 2,
        "memory_available": 2**30,
        "files_per_process": 60_000,
        "files_per_process_most": 1_048_576,
        "files_in_all": 1_000_000,
        "files_in_use": 1000,
        "accept_queue": 4096,
        "syn_queue": 4096,
        "ports": (32768, 60999),
        "memory_maps": 65530,
        "user_bytes_per_connection": 500,
        "kernel_bytes_per_connection": 3500,
    }
    return Machine(**{**figures, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "connections", "limit"),
    [
        ({}, 59_936, "open files per process"),
        ({"memory_available": 2**24}, 2473, "memory"),
        ({"memory_available": 2**24, "kernel_bytes_per_connection": 9500}, 1342, "memory"),
        ({"files_in_all": 2064}, 1000, "open files in all (fs.file-max)"),
    ],
)
def test_the_smallest_bound_is_the_limit(changes: dict[str, object], connections: int, limit: str) -> None:
    """Files of a process, files in all, or memory."""
    assert machine(**changes).connections(1) == (connections, limit)


def test_advice_raises_what_stands_in_the_way_and_nothing_else() -> None:
    """Each line is one that can be pasted."""
    assert advice(machine(), 50_000, 1) == []
    lines = advice(machine(files_per_process=1024, accept_queue=128, files_per_process_most=4096), 50_000, 1)
    assert "net.core.somaxconn = 4096" in lines
    assert "fs.nr_open = 50064" in lines
    assert "LimitNOFILE=50064   # systemd, in [Service]" in lines
    assert not any("file-max" in each for each in lines)
    assert "nothing has to be raised" in report(machine(), [1], 50_000)
    assert "# more memory: " not in report(machine(), [1], 50_000)
    assert "# more memory: " in report(machine(), [1], 1_000_000)


def test_a_connection_is_measured_and_leaves_nothing_behind() -> None:
    """Some hundred bytes; all descriptors are closed afterwards."""
    before = open_files()
    assert 100 < measure_connection(400) < 4096
    assert open_files() <= before + 3


def test_limits_refuses_nonsense(capfd: pytest.CaptureFixture[str]) -> None:
    """One line and exit status 2."""
    done = subprocess.run(command("limits", "--workers", "0"), capture_output=True, timeout=50)
    assert done.returncode == 2
    assert done.stderr == b"chat-gevent limits: error: --workers = 0: must be from 1 to 1000000000\n"


def test_the_answer_comes_at_once() -> None:
    """Measuring takes some thousand clients, and nobody waits until each of them was told to leave."""
    subprocess.run(command("limits"), capture_output=True, check=True, timeout=20)
