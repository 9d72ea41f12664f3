"""The benchmark of a handler that blocks: it runs, checks its replies, and refuses what cannot be."""

from __future__ import annotations

import subprocess
import sys

import pytest


def blocking(*options: str) -> subprocess.CompletedProcess[str]:
    """``python -m benchmarks experiment blocking`` with options."""
    command = [sys.executable, "-m", "benchmarks", "experiment", "blocking", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)


def test_a_round_of_a_few_clients() -> None:
    """Every client's reply is right and none comes before the handler has slept its 100 ms."""
    done = blocking("--clients", "20", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    first, line, last = done.stdout.splitlines()
    assert first == "20 clients, handler sleeps 100 ms"
    words = line.replace(",", "").split()
    assert float(words[words.index("first") + 1]) >= 99
    assert last.startswith("median of last replies: ")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--clients", "0"), "--clients: must be 1 to "),
        (("--clients", "100000000"), "files that this process may open"),
        (("--rounds", "0"), "--rounds: must be at least 1"),
    ],
)
def test_usage_errors(options: tuple[str, str], complaint: str) -> None:
    """A count that cannot be is one line, with status 2, before a server is started."""
    done = blocking(*options)
    assert done.returncode == 2
    assert complaint in done.stderr.splitlines()[-1]
