"""The experiment ``lag``: both loads come as they should, and a held loop is seen for its whole length."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.experiments import ExperimentFailed
from benchmarks.experiments.lag import measure
from tests.conftest import require_tool


def lag(*options: str) -> subprocess.CompletedProcess[str]:
    """``python -m benchmarks experiment lag`` with options."""
    command = [sys.executable, "-m", "benchmarks", "experiment", "lag", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.alone
def test_both_loads_are_measured(tmp_path: Path) -> None:
    """A line for each load on the terminal, and in the file the figures that it is made of."""
    require_tool("cc")
    path = tmp_path / "lag.json"
    done = lag("--seconds", "1", "--rate", "500", "--clients", "20", "--busy", "0.3", "--output", str(path))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert re.match(r" +\d+ messages a second: core \d+% busy, lag p50 / p99 / most ", lines[0])
    assert re.match(r" *[\d,]+ sessions a second: core (2[7-9]|3[0-3])% busy, ", lines[1])
    found = json.loads(path.read_text())
    for load in ("messages", "sessions"):
        figures = found[load]
        assert figures["errors"] == {}
        assert 0 <= figures["lag_p50_ms"] <= figures["lag_p99_ms"] <= figures["lag_most_ms"]
        assert 150 <= figures["samples"] <= 200  # every 5 ms of a second
    assert found["messages"]["sessions_per_second"] == 0 < found["sessions"]["sessions_per_second"]
    assert found["revision"]
    assert found["environment"]


def test_a_hold_counts_by_its_length() -> None:
    """Where a handler holds the loop for 50 ms, ten marks of the timer are late, each by 5 ms less."""
    require_tool("cc")
    handler = "tests.benchmarks.experiments.test_lag:hold"
    found = measure(1, 1, ("--handler", handler), mode="paced", rate=4)
    late = sorted(found.late_ms)
    holds = found.window.messages
    assert holds >= 1
    assert sum(each >= 5 for each in late) >= 8 * holds
    assert sum(each >= 25 for each in late) >= 4 * holds
    assert max(late) >= 44


def hold(message: str, client: object) -> str:
    """A handler that holds the loop, and answers as the generator expects."""
    from time import monotonic

    until = monotonic() + 0.05
    while monotonic() < until:
        pass
    return f"Received: {message}"


def test_a_wrong_reply_is_no_measurement() -> None:
    """What clients did not get is told instead of figures."""
    require_tool("cc")
    with pytest.raises(ExperimentFailed, match=r"not all that clients saw was right: .*mismatch"):
        measure(0.2, 2, ("--handler", "tests.benchmarks.experiments.test_lag:wrong"), mode="paced", rate=50)


def wrong(message: str, client: object) -> str:
    """A handler that answers the first message as it should, which makes it a client, and no other."""
    from itertools import count

    numbers = vars(wrong).setdefault("numbers", count())
    return f"Received: {message}" if next(numbers) < 2 else "no"


@pytest.mark.parametrize(
    "options", [("--busy", "1"), ("--busy", "0"), ("--rate", "0"), ("--clients", "0"), ("--seconds", "-1")]
)
def test_usage_errors(options: tuple[str, str]) -> None:
    """A load that can't be is one line, with status 2, before a server is started."""
    done = lag(*options)
    assert done.returncode == 2
    assert "--busy must be between 0 and 1" in done.stderr.splitlines()[-1]
