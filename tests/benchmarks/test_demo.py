"""The demo: all its steps, small; and that nothing it started is left, whichever way it ends."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.demo import run
from benchmarks.reports.report import Report
from tests.benchmarks.measure.test_runner import children, exists
from tests.conftest import wait_until

ROOT = Path(__file__).parents[2]


def demo(tmp_path: Path, cwd: Path = ROOT) -> subprocess.Popen[str]:
    """``python -m benchmarks demo --quick``, its reports in ``tmp_path``."""
    command = [sys.executable, "-m", "benchmarks", "demo", "--quick", "--reports", str(tmp_path)]
    return subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.timeout(180)
def test_all_steps(tmp_path: Path) -> None:
    """Both servers are loaded by Locust and measured side by side, and a room is filled.

    Reports and page are there. The last words are what each part can stand for: a verdict only where servers
    were measured in turn. All of it works in a folder with other packages of these names.
    """
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "benchmarks").mkdir(parents=True)
    for name in ("loadtest", "chat_gevent"):
        (elsewhere / name).mkdir()
        (elsewhere / name / "__init__.py").write_text("raise SystemExit('another package of this name')")
    with demo(tmp_path, elsewhere) as process:
        out, err = process.communicate(timeout=170)
    assert process.returncode == 0, out + err
    assert out.count("ready tcp://") == 3
    assert out.count("average, min, max, median [ms] |") == 2
    for name in ("locust-chat_gevent", "locust-threads", "confirm"):
        report = Report.load(tmp_path / f"{name}.json")
        assert report.complete
        assert sum(trial.messages for trial in report.trials) > 0
    assert (tmp_path / "confirm.html").read_text().startswith("<!doctype html>")
    assert "chat_gevent against threads" in out
    said = " ".join(out.split())
    _, _, locust = said.rpartition(" Locust: ")
    locust, _, side_by_side = locust.partition(" Side by side: ")
    side_by_side, _, room = side_by_side.partition(" Chat room: ")
    for end, times in ((locust, 2), (side_by_side, 3), (room, 2)):  # `compare` says it as well
        assert said.count(end) == times
    assert re.fullmatch(
        r"messages of 20 Locust users: [\d,]+ a second with chat_gevent and [\d,]+ a second with threads\. "
        r"Figures of one run each, no verdict: .*",
        locust,
    )
    assert "chat_gevent" in side_by_side
    assert re.match(r"\d+ lines said by 3 of 10 in a room: all \d+ deliveries arrived, half of them ", room)
    assert "* you are ann" in out
    assert "#demo * bob has joined" in out


@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_end_by_signal_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    """With server and Locust at work: status 130, a line that says so, no traceback, and both are gone."""
    with demo(tmp_path) as process:
        wait_until(lambda: len(children(process.pid)) >= 2, 60)
        started = children(process.pid)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "demo: stopped; so is all that it started"
    assert "Traceback" not in err
    wait_until(lambda: not any(exists(pid) for pid in started), 30)


@pytest.mark.timeout(180)
def test_a_step_that_fails_ends_the_demo(tmp_path: Path) -> None:
    """Where Locust cannot write its report: status 1, the command that failed, and its server is gone."""
    (tmp_path / "locust-chat_gevent.json").mkdir()
    with demo(tmp_path) as process:
        wait_until(lambda: bool(children(process.pid)), 60)
        (server, *_) = children(process.pid)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ended with status" in err.splitlines()[-1]
    assert "demo: " in err
    assert "locust-chat_gevent.json" in out
    assert not exists(server)


def test_without_locust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that says what to install, before anything is started."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert run(tmp_path) == 1
    assert "locust is not installed: pip install 'chat-gevent[loadtest,bench]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
