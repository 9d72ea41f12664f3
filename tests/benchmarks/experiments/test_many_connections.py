"""Many connections: clients without sockets, on a device of their own, against workers that are real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.experiments.many_connections import SPREAD, check, workers_needed
from benchmarks.experiments.tun_network import ConnectionsFailed
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


@pytest.mark.parametrize("connections", [1, 1000, 19_000, 20_000, 100_000, 3_000_000])
def test_workers_have_room_for_an_uneven_spread(connections: int) -> None:
    """A few more clients than the mean fit into each, and no worker is there in vain."""
    workers = workers_needed(connections, 20_000)
    mean = connections / workers
    assert mean + SPREAD * mean**0.5 <= 20_000
    assert workers <= connections / 18_000 + 1


def test_every_failure_of_a_client_is_one_of_the_run() -> None:
    """Missing confirmations and resets are told with their numbers."""
    answer = {"confirmed": 9, "reset": 1, "ended": 0, "mismatch": 0}
    with pytest.raises(ConnectionsFailed, match=r"9 of 10 were confirmed; failures: \{'reset': 1\}"):
        check(answer, 10)
    check({**answer, "confirmed": 10, "reset": 0}, 10)
