"""Many connections: clients without sockets, on a device of their own, against workers that are real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.experiments.broadcasts import complete
from benchmarks.experiments.many_connections import CLIENTS, SOURCE, SPREAD, build, check, workers_needed
from benchmarks.experiments.tun_network import DEVICE, PORT, SERVER, ConnectionsFailed, network
from benchmarks.measure.compiler import compiled
from benchmarks.measure.generator import Generator
from tests.conftest import require, require_tool


def hold(*options: str, files: int = 20_000) -> subprocess.CompletedProcess[str]:
    """Run the command with a limit of open files, where the machine lets a test make networks.

    The network that it makes is gone at its end.
    """
    for tool in ("ip", "cc"):
        require_tool(tool)
    require(os.geteuid() == 0 and Path("/dev/net/tun").exists(), "root and /dev/net/tun")
    limited = ("sh", "-c", f'ulimit -n {files} && exec "$@"', "sh")
    command = [*limited, sys.executable, "-m", "benchmarks", "experiment", "many-connections", *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:  # the shell becomes it
        out, err = process.communicate(timeout=150)
    spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert f"connections-{process.pid}" not in spaces.split()  # another test may have one of its own
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def test_each_of_many_is_confirmed_twice_and_held(tmp_path: Path) -> None:
    """The kernel's own count of the server's connections is that of the clients; nothing of the run stays."""
    file = tmp_path / "figures.json"
    file_max = Path("/proc/sys/fs/file-max").read_text()
    done = hold("--connections", "3000", "--workers", "2", "--steps", "2", "--output", str(file))
    assert done.returncode == 0, done.stderr
    figures = json.loads(file.read_text())
    assert figures["held"] == figures["held_at_the_end"] == 3000
    assert 100 < figures["server_bytes"] / 3000 < 2000
    assert "3,000 in 2 processes" in done.stdout
    assert Path("/proc/sys/fs/file-max").read_text() == file_max


def test_more_than_fit_is_a_failure() -> None:
    """Clients that a worker refuses are no success: the status is 1, and a line says how many there were."""
    done = hold("--connections", "3000", "--workers", "2", "--steps", "1", files=1000)
    assert done.returncode == 1
    assert "of 3,000 were confirmed" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_message_of_one_reaches_all_of_all_workers_once(tmp_path: Path) -> None:
    """Two workers, with more clients than are sent to at once: nothing is missing, all figures are there."""
    require_tool("redis-server")
    file = tmp_path / "figures.json"
    done = hold(
        "--connections", "1000", "--workers", "2", "--steps", "1", "--broadcasts", "2", "--output", str(file)
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(file.read_text())["broadcasts"]
    for each in figures["rounds"]:
        assert (each["deliveries"], each["missing"], each["confirmed"]) == (1000, 0, 1)
        assert 0 < each["p50_seconds"] <= each["p99_seconds"] <= each["seconds"] * 1.001
        assert each["server_cpu_seconds"] > 0
    assert len(figures["rounds"]) == 2
    assert set(figures["failures"].values()) == {0}
    workers = figures["workers"]
    assert (workers["processes"], workers["pushes"]) == (2, 2000)
    assert [workers[name] for name in ("dropped", "slow", "write_timeout", "backplane_dropped")] == [0] * 4
    assert 0 < workers["slices_p999_ms"] <= workers["slices_most_ms"]
    assert 0 < workers["begins_p999_ms"] <= workers["begins_most_ms"]
    assert workers["lag_p99_ms"] <= workers["lag_most_ms"]
    assert 0 < workers["lag_samples"] <= 2 * (sum(each["seconds"] for each in figures["rounds"]) + 10) / 0.01
    assert figures["running_most"] >= figures["running_median"]
    assert "2, 2,000 deliveries" in done.stdout


CARELESS = """
import socket

listener = socket.create_server(("10.0.0.1", 12345))
print("ready", flush=True)
clients = {}
for _ in range(5):
    client, (_, port) = listener.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(b"Received: " + client.recv(100))
    clients[port - 1024] = client
said = clients[0].recv(100)
reply, push = b"Received: " + said, said[1:]
for number, *segments in (
    (0, reply[:20], reply[20:] + push),
    (1, push[:7], push[7:]),
    (2, push + push),
    (4, push.upper()),
):
    for each in segments:
        clients[number].sendall(each)
said = clients[0].recv(100)
clients[0].sendall(said[1:] + b"Received: " + said)
for number in (1, 2, 3):
    clients[number].sendall(said[1:])
clients[0].recv(100)
"""
"""A server that cuts what it sends to client 0 and 1, tells client 2 twice, 3 never and 4 something else."""


def test_what_is_cut_double_missing_or_wrong_is_told_apart() -> None:
    """Messages may be cut, come together and in either order; else each failure has its own count."""
    for tool in ("ip", "cc"):
        require_tool(tool)
    require(os.geteuid() == 0 and Path("/dev/net/tun").exists(), "root and /dev/net/tun")
    program = str(compiled(SOURCE, build))
    pipe = subprocess.PIPE
    with (
        network() as prefix,
        subprocess.Popen([*prefix, sys.executable, "-c", CARELESS], stdout=pipe, stderr=pipe) as server,
    ):
        try:
            assert server.stdout
            assert server.stdout.readline() == b"ready\n"
            with Generator([*prefix, program, DEVICE, SERVER, str(PORT), CLIENTS, "10"], {}) as clients:
                clients.expect("ready", 10)
                check(clients.ask("open 5", "opened"), 5)
                first = clients.ask("broadcast 1", "delivered")
                second = clients.ask("broadcast 1", "delivered")
                clients.ask("reset", "reset")
        finally:
            server.terminate()
    counts = ("confirmed", "deliveries", "missing", "duplicates", "mismatch", "reset", "ended")
    assert [first[name] for name in counts] == [1, 3, 2, 1, 2, 0, 0]
    assert sum(times for _, times in first["latency_us"]) == 3
    assert [second[name] for name in counts] == [1, 4, 1, 1, 2, 0, 0]


@pytest.mark.parametrize(
    "change",
    [
        {"failures": {"duplicates": 1}},
        {"held": 9},
        {"rounds": [{"confirmed": 1, "missing": 1}]},
        {"rounds": []},
    ],
)
def test_a_broadcast_that_missed_anybody_is_a_failure(change: dict[str, Any]) -> None:
    """A round that is missing, a client that missed it, was lost or told twice: each makes the run fail."""
    figures = {"rounds": [{"confirmed": 1, "missing": 0}], "held": 10, "failures": {"duplicates": 0}}
    assert complete(figures, 1, 10)
    assert not complete({**figures, **change}, 1, 10)


@pytest.mark.parametrize("connections", [1, 1000, 19_000, 20_000, 100_000, 3_000_000])
def test_workers_have_room_for_an_uneven_spread(connections: int) -> None:
    """A few more clients than the mean fit into each, and no worker is there in vain."""
    workers = workers_needed(connections, 20_000)
    mean = connections / workers
    assert mean + SPREAD * mean**0.5 <= 20_000
    assert workers <= connections / 18_000 + 1


def test_every_failure_of_a_client_is_one_of_the_run() -> None:
    """Missing confirmations and resets are told with their numbers."""
    answer = {"confirmed": 9, "reset": 1, "ended": 0, "mismatch": 0, "duplicates": 0}
    with pytest.raises(ConnectionsFailed, match=r"9 of 10 were confirmed; failures: \{'reset': 1\}"):
        check(answer, 10)
    check({**answer, "confirmed": 10, "reset": 0}, 10)
