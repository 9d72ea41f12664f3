"""The faults of ``python -m benchmarks experiment faults``, each briefly, and what judges them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.experiments import ExperimentFailed
from benchmarks.experiments.faults import FAULTS
from benchmarks.experiments.faults.links import certificate
from benchmarks.experiments.faults.relay import Relay, replies_to
from benchmarks.experiments.faults.served import Served, WellBehaved, same_counts
from benchmarks.experiments.soak import growth
from tests.conftest import require


def experiment(*words: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m benchmarks experiment``."""
    command = [sys.executable, "-m", "benchmarks", "experiment", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)


@pytest.mark.parametrize("name", FAULTS)
def test_fault(name: str) -> None:
    """The server gets over it, those beside do not notice, and the counts are right on both sides."""
    done = experiment("faults", name, "--scale", "0.05")
    require("not here: needs" not in done.stdout, done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1].startswith(f"| {name} | ")


def test_a_fault_that_is_none() -> None:
    """A name that is not in the list is an error, and says which."""
    done = experiment("faults", "earthquake")
    assert done.returncode != 0
    assert "no such fault: earthquake" in done.stderr


def test_soak() -> None:
    """Ten seconds of everything at once: the counts agree, and nothing grows by a quarter."""
    done = experiment("soak", "--minutes", "0.17", "--every", "0.5", "--most-growth", "25")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "own service: " in done.stdout


def test_growth_is_that_of_the_line_through_all() -> None:
    """A slope is found under noise; what stays level does not grow because of one high sample."""
    rising = [100 + place + (-1) ** place for place in range(101)]
    assert list(growth(rising)) == pytest.approx([100, 100], abs=0.1)
    level = [100.0] * 101
    level[50] = 1000
    assert growth(level)[0] == pytest.approx(0)


def test_counts_that_differ_are_a_failure() -> None:
    """One message more than there were confirmations is found, and so is a client that was lost."""
    with Served("--framing", "line") as server:
        load = WellBehaved(server, 2)
        load.goes_on("at first")
        confirmed = load.end()
        same_counts(server, confirmed)
        with pytest.raises(
            ExperimentFailed, match=f"counts {confirmed} messages, the clients {confirmed + 1}"
        ):
            same_counts(server, confirmed + 1, 3)
        lost = WellBehaved(server, 1)
        server.process.kill()
        with pytest.raises(ExperimentFailed, match="after the kill"):
            lost.goes_on("after the kill")
        with pytest.raises(ExperimentFailed, match="who behaves was lost"):
            lost.end()


def test_the_relay_breaks_what_it_is_to_break() -> None:
    """Of many connections some are broken; of all, what was handed over is what the server answered."""
    assert replies_to(b"a\r\nb\n\nc\r") == b"Received: a\nReceived: b\nReceived: \nReceived: c\r\n"
    from gevent import socket

    with Served("--framing", "line") as server:
        relay = Relay(server.address(), seed=3)
        handed: set[bytes] = set()
        for _ in range(20):
            with socket.create_connection(relay.address, 10) as client:
                client.sendall(b"one\ntwo\n")
                client.shutdown(socket.SHUT_WR)
                while client.recv(1000):
                    pass
        handed = {bytes(each.asked) for each in relay.passages}
        relay.stop()
    assert b"one\ntwo\n" in handed
    assert len(handed) > 2, "no order was ever changed"


def test_a_certificate_lasts_as_long_as_is_asked(tmp_path: Path) -> None:
    """It has not expired yet where it was made for a minute, and has where it was made for less than none."""
    for seconds, status in ((60, 0), (-60, 1)):
        certificate(tmp_path, "server", seconds=seconds)
        check = ["openssl", "x509", "-checkend", "0", "-noout", "-in", str(tmp_path / "server.pem")]
        assert subprocess.run(check, capture_output=True, timeout=50, check=False).returncode == status
