"""Where a history changed its level: how often nothing is taken for something, and what is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as Xml

import numpy as np
import pytest

from benchmarks.cli import main
from benchmarks.judge.change_points import LEAST, best_gain, change_points, false_alarms, residuals
from benchmarks.judge.trends import Trends, judge
from benchmarks.reports.report import Report, Revision
from benchmarks.show import ci
from tests.benchmarks.made_reports import make


def noisy(
    rng: np.random.Generator, runs: int, deviation: float, step: float = 0.0, after: int = 0
) -> list[float]:
    """A history of normal noise whose last ``after`` runs are higher by ``step``."""
    logs = rng.normal(0, deviation, runs)
    if after:
        logs[-after:] += np.log1p(step)
    values: list[float] = np.exp(logs).tolist()
    return values


@pytest.mark.parametrize("series", [1, 8])
def test_few_histories_without_a_change_have_an_alarm(series: int) -> None:
    """Of 200 histories of 60 runs at most 1 in 12 has an alarm in any series, as 5% would by chance."""
    rng = np.random.default_rng(5)
    alarms = sum(any(change_points(noisy(rng, 60, 0.02), series) for _ in range(series)) for _ in range(200))
    assert alarms <= 200 / 12


def test_a_step_is_found_within_five_runs() -> None:
    """5% at a deviation of 2%: 5 runs after, in at least 90 of 100 histories, with its place and its size."""
    rng = np.random.default_rng(6)
    found = [change_points(noisy(rng, 60, 0.02, 0.05, 5)) for _ in range(100)]
    placed = [changes for changes in found if any(abs(change.at - 55) <= 2 for change in changes)]
    assert len(placed) >= 90
    assert np.median([changes[-1].ratio for changes in placed]) == pytest.approx(1.05, abs=0.015)


def test_up_and_down_are_two_changes() -> None:
    """A level that rises and falls again is told as two, each between its runs."""
    values = [1.0, 1.01, 0.99] * 6 + [1.2, 1.21, 1.19] * 6 + [0.9, 0.91, 0.89] * 6
    assert [change.at for change in change_points(values)] == [18, 36]


def test_short_and_constant_series() -> None:
    """Too few runs tell nothing; equal ones have no change, and an exact step is one."""
    assert change_points([1.0] * (LEAST - 1)) == []
    assert change_points([2.0] * 30) == []
    assert [change.at for change in change_points([2.0] * 20 + [3.0] * 20)] == [20]


def test_one_wild_run_is_no_level() -> None:
    """A single run twice as high changes no level."""
    values = noisy(np.random.default_rng(3), 40, 0.01)
    values[20] *= 2
    assert change_points(values) == []


def test_the_gain_is_that_of_the_library() -> None:
    """What is simulated is what ruptures maximises: an alarm in one is an alarm in the other."""
    rng = np.random.default_rng(8)
    histories = [noisy(rng, 30, 0.02, 0.03, 10) for _ in range(100)]
    from benchmarks.judge.change_points import threshold

    mine = best_gain(np.log(histories)) > threshold(30, 1)
    assert [bool(change_points(values)) for values in histories] == mine.tolist()
    assert 10 < sum(mine) < 100


def test_false_alarms_are_measured_from_the_noise() -> None:
    """With normal noise about 5 in 100; with noise that was seen, whatever that makes."""
    noise = np.random.default_rng(1).normal(0, 0.02, 500).tolist()
    assert 0.025 < false_alarms(noise, 60) < 0.08
    assert false_alarms([], 60) == 0
    steps = [1.0] * 20 + [1.5] * 20
    assert max(map(abs, residuals(steps, change_points(steps)))) < 1e-9


def history(
    directory: Path, steps: dict[int, float], runs: int = 24, kernel: str = "Linux 6.1"
) -> list[Report]:
    """Reports of two servers, a day each, whose machine is twice as slow every other day."""
    reports = []
    cost = 12.0
    for day in range(runs):
        cost *= steps.get(day, 1.0)
        slow = 2 if day % 2 else 1
        report = make(
            {"base": 10.0 * slow, "new": cost * slow}, seed=7919 * day + 1, blocks=4, noise=0.01,
            id=f"day-{day}",
            created=f"2026-{10 + day // 28}-{day % 28 + 1:02}T00:00:00Z",
            revision=Revision(commit=f"c{day:02}" * 14, dirty=False),
        )  # fmt: skip
        report.environment["kernel"] = kernel
        report.save(directory / f"{kernel[-1]}-{day:02}.json")
        reports.append(report)
    return reports


def judged(directory: Path, steps: dict[int, float], runs: int = 24) -> Trends:
    """What is said of such a history."""
    return judge([[(report.id, report) for report in history(directory, steps, runs)]])


def test_ratios_are_judged_and_not_absolute_figures(tmp_path: Path) -> None:
    """A machine that is twice as slow every other day is no change; a server that is 10% slower is one."""
    assert not any(trend.changes for trend in judged(tmp_path, {}).judged)
    trends = judged(tmp_path, {15: 1.10})
    found = {trend.metric.title: trend.changes for trend in trends.judged}
    assert [change.at for change in found["server CPU per confirmation"]] == [15]
    assert trends.status(0.03) == 1
    assert trends.status(0.25) == 0


@pytest.mark.parametrize(
    ("steps", "status"), [({15: 0.9}, 0), ({8: 1.1, 16: 0.9}, 0), ({8: 0.9, 16: 1.1}, 1)]
)
def test_the_latest_change_decides(steps: dict[int, float], status: int, tmp_path: Path) -> None:
    """What was worse and is mended fails nothing; what is worse now does."""
    assert judged(tmp_path, steps).status(0.03) == status


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each change with its revisions and size, the false alarms, JUnit, annotations and the status."""
    history(tmp_path, {15: 1.10})
    junit = tmp_path / "junit.xml"
    assert main(["history", str(tmp_path), "--junit", str(junit), "--github"]) == 1
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("confirm: new, server CPU per"))
    assert "more (worse) between c14c14c14c (2026-10-15) and c15c15c15c (2026-10-16), in 9 runs since" in line
    assert "false alarms: " in out
    assert "::error title=confirm%3A new%2C server CPU per confirmation" in out
    suite = Xml.parse(junit).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "2", "0")
    assert all(case.find("failure") is not None for case in suite)


def test_unlike_machines_are_never_joined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another kernel is another series, and that they are apart is said; too few runs are no verdict."""
    history(tmp_path, {}, runs=6)
    history(tmp_path, {0: 1.5}, runs=6, kernel="Linux 7.0")
    assert main(["history", str(tmp_path)]) == 3
    out = " ".join(capsys.readouterr().out.split())
    assert "are apart: kernel differs (Linux " in out
    assert "4 series not judged: 10 runs under equal conditions are needed" in out


def test_one_server_has_no_ratio() -> None:
    """A history of one server cannot be judged, and why is said."""
    trends = judge([[(str(day), make({"s": 10.0}, seed=day)) for day in range(12)]])
    assert (trends.status(0.03), trends.judged, trends.short) == (3, (), ())
    assert "a run needs a second server" in ci.lines(trends)[0]


def test_the_experiment_prints_its_table() -> None:
    """The command that the page names runs, briefly."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "experiment", "change-points", "--histories", "20"],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    rows = done.stdout.splitlines()
    assert len(rows) == 6
    assert "(measured here)" in rows[2]
