"""The runner: order, what is kept when something fails or is interrupted, and that nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.judge.compare import compare
from benchmarks.measure import runner
from benchmarks.measure.scenarios import SCENARIOS
from benchmarks.measure.servers import Server, find
from benchmarks.reports.report import Report

BRIEF = {"connections": 5, "seconds": 0.1, "warmup": 0.0, "blocks": 2, "slices": 1}


def names(*servers: str) -> list[Server]:
    """Servers by name."""
    return [find(name) for name in servers]


def test_orders_are_permutations_and_mirror_each_other() -> None:
    """Each block has every server once; every second one is the one before, reversed; a seed repeats it."""
    servers = names("asyncio_protocol", "asyncio_streams", "threads", "gevent_plain")
    blocks = runner.orders(servers, 6, seed=3)
    for even, odd in zip(blocks[::2], blocks[1::2], strict=True):
        assert sorted(server.name for server in even) == sorted(server.name for server in servers)
        assert odd == even[::-1]
    assert blocks == runner.orders(servers, 6, seed=3)
    assert any(blocks != runner.orders(servers, 6, seed=seed) for seed in range(5))


def test_run_keeps_everything(tmp_path: Path) -> None:
    """A run gives a report that loads: complete, with a trial for each server and block."""
    output = tmp_path / "report.json"
    parameters = SCENARIOS["confirm"].defaults | BRIEF
    runner.run(SCENARIOS["confirm"], names("asyncio_protocol", "threads"), parameters, output, seed=1)
    report = Report.load(output)
    assert report.complete
    assert report.parameters == parameters
    assert sorted((t.server, t.block) for t in report.trials) == [
        (server, block) for server in ("asyncio_protocol", "threads") for block in (0, 1)
    ]
    assert sorted(t.order for t in report.trials) == [0, 1, 2, 3]
    for trial in report.trials:
        assert trial.messages > 0
        assert trial.errors == {}
        assert set(trial.values) == set(report.metrics)
        assert trial.values["messages_per_second"] == pytest.approx(trial.messages / trial.seconds)
        assert trial.cpu["server"] > 0
        assert trial.cpu["generator"] > 0
        assert trial.histograms["latency"]
    assert report.environment["order_seed"] == 1
    assert all(not Path(server.command[0]).is_absolute() for server in report.servers)


@pytest.mark.parametrize("slices", [1, 2])
def test_a_server_that_fails_costs_only_itself(tmp_path: Path, slices: int) -> None:
    """One server cannot start: the report says why, is not complete, and has all trials of the other.

    Comparing it gives status 3 and the server's name."""
    broken = replace(
        find("threads"), name="broken", command=lambda: [sys.executable, "-c", "raise SystemExit('no luck')"]
    )
    output = tmp_path / "report.json"
    parameters = SCENARIOS["confirm"].defaults | BRIEF | {"slices": slices}
    report = runner.run(SCENARIOS["confirm"], [broken, *names("asyncio_protocol")], parameters, output)
    assert not report.complete
    assert [trial.server for trial in Report.load(output).trials] == ["asyncio_protocol"] * 2
    failures = [fired for fired in report.warnings if fired.check == "trial-failed"]
    assert len(failures) == 2
    assert "no luck" in failures[0].message
    result = compare([report], ["r"])
    assert result.status == 3
    assert result.missing[0].startswith("broken failed in 2 of 2 blocks (broken is not ready: ")


def children(pid: int) -> list[int]:
    """All processes under ``pid``."""
    from benchmarks.measure.probe import descendants

    return descendants(pid)[1:]


def exists(pid: int) -> bool:
    """Whether the process is there (a zombie is not)."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_was_measured(tmp_path: Path, number: signal.Signals) -> None:
    """After Ctrl-C or SIGTERM: status 130, an incomplete report with the trials so far, no process left."""
    from tests.conftest import wait_until

    output = tmp_path / "report.json"
    options = (
        "--servers asyncio_protocol,threads --connections 5 --seconds 0.2 --warmup 0 --slices 1 --blocks 500"
    )
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "run",
        "confirm",
        *options.split(),
        "--output",
        str(output),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:

        def trials() -> int:
            return len(Report.load(output).trials) if output.exists() else 0

        wait_until(lambda: trials() >= 2 and children(process.pid), 50)
        started = children(process.pid)
        process.send_signal(number)
        out, err = process.communicate(timeout=50)
    assert process.returncode == 130
    assert "incomplete" in out
    assert "Traceback" not in err
    report = Report.load(output)
    assert not report.complete
    assert len(report.trials) >= 2
    wait_until(lambda: not any(exists(pid) for pid in started), 30)


def test_one_core_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where server and generator share the only core, the report warns."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        parameters = SCENARIOS["confirm"].defaults | BRIEF | {"blocks": 1}
        report = runner.run(SCENARIOS["confirm"], names("asyncio_protocol"), parameters, tmp_path / "r.json")
    finally:
        os.sched_setaffinity(0, allowed)
    assert "not-pinned" in [fired.check for fired in report.warnings]


def test_cores_can_be_chosen(tmp_path: Path) -> None:
    """Chosen cores are used and recorded."""
    chosen = tuple(sorted(os.sched_getaffinity(0)))
    parameters = SCENARIOS["confirm"].defaults | BRIEF | {"blocks": 1}
    report = runner.run(
        SCENARIOS["confirm"], names("asyncio_protocol"), parameters, tmp_path / "r.json", server_cores=chosen
    )
    assert report.environment["pinning"]["server"] == list(chosen)


def test_slices_are_for_servers_that_are_steady_at_once() -> None:
    """Sliced servers take turns together; servers with a thread per client are measured in one piece."""
    sequence = names("threads", "c_epoll", "socketserver", "asyncio_protocol")
    assert runner.turns(sequence, 1) == [[server] for server in sequence]
    assert runner.turns(sequence, 5) == [[sequence[0]], [sequence[1], sequence[3]], [sequence[2]]]
