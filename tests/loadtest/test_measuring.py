"""The commands behind the README's figures, briefly, so that they keep running."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from tests.loadtest.locust_command import ROOT


def test_the_cost_of_a_request_is_measured_beside_a_bare_user() -> None:
    """Both kinds run against the same server, without a failure, and a ratio is printed."""
    command = [sys.executable, "-m", "benchmarks.loadtest_cost", "--blocks", "1", "--seconds", "0.5"]
    done = subprocess.run(
        [*command, "--kinds", "bare,tcp"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    rows = re.findall(r"^(\w+) +([\d.]+) µs a request, .* ([\d.]+) of bare", done.stdout, re.MULTILINE)
    assert [kind for kind, _, _ in rows] == ["bare", "tcp"]
    assert all(float(cost) > 0 for _, cost, _ in rows)


def test_holding_users_is_measured_in_memory() -> None:
    """Every user holds a connection, has its messages confirmed on it, and costs no more than 14 KiB."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.loadtest_holders",
        "--users",
        "1200",
        "--pause",
        "0.5",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    found = json.loads(done.stdout)
    assert (found["open"], found["failures"]) == (1200, 0)
    assert found["messages"] >= 1200
    assert 4 < found["kib_per_user"] < 14
