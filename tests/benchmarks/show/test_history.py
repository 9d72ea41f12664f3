"""The reports of a directory over time, and one report on a terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.reports.document import ReportError
from benchmarks.show import history
from benchmarks.show.terminal import print_report
from tests.benchmarks.made_reports import make


def _save(directory: Path, day: int, cost: float, kernel: str = "Linux 6.1") -> None:
    report = make({"s": cost}, seed=day, drift=0.001, created=f"2026-11-{day:02}T00:00:00Z")
    report.environment["kernel"] = kernel
    report.save(directory / f"{9 - day}.json")


def test_lines_are_in_the_order_made(tmp_path: Path) -> None:
    """Reports are ordered by when they were made, not by name, and equal conditions share a line."""
    for day, cost in [(1, 10), (2, 11), (3, 12)]:
        _save(tmp_path, day, cost)
    found = history.collect(tmp_path)
    assert [entry.name for entry in found.entries] == ["8", "7", "6"]
    (members,) = found.sets
    figure, servers = history.lines(members)["cpu"]
    assert figure.metric.unit == "µs"
    assert [round(value) for _, value in servers["s"]] == [10, 11, 12]


def test_directories_with_a_dot_are_left_alone(tmp_path: Path) -> None:
    """What is in ``.venv`` is neither read nor complained of; other directories are searched."""
    for name in (".venv/lib", "old"):
        (tmp_path / name).mkdir(parents=True)
        _save(tmp_path / name, 1, 10)
    (tmp_path / ".venv" / "other.json").write_text("{}")
    found = history.collect(tmp_path)
    assert [entry.name for entry in found.entries] == ["old/8"]
    assert not found.refused


def test_another_kernel_starts_another_line(tmp_path: Path) -> None:
    """Figures from differing conditions are never joined."""
    _save(tmp_path, 1, 10)
    _save(tmp_path, 2, 20, kernel="Linux 7.0")
    _save(tmp_path, 3, 10)
    found = history.collect(tmp_path)
    assert [[name for name, _ in members] for members in found.sets] == [["8", "6"], ["7"]]
    assert [
        len(points) for _, servers in history.lines(found.sets[0]).values() for points in servers.values()
    ]


def test_it_is_printed_with_a_trend(tmp_path: Path) -> None:
    """A line a report, a sparkline a server, and what could not be read."""
    for day, cost in [(1, 5), (2, 10)]:
        _save(tmp_path, day, cost)
    (tmp_path / "broken.json").write_text("{")
    out = io.StringIO()
    history.print_history(history.collect(tmp_path), Console(file=out, width=80, color_system=None))
    shown = out.getvalue()
    assert "▄█" in shown or "▅█" in shown
    assert "2026-11-01" in shown
    assert "left out" in shown
    assert "cut short" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80


def test_no_report_at_all_is_an_error(tmp_path: Path) -> None:
    """An empty directory, and one with nothing but a broken file, say so."""
    with pytest.raises(ReportError, match="no report in it"):
        history.collect(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ReportError, match=r"no report in it; .*cut short"):
        history.collect(tmp_path)


def test_a_sparkline_starts_at_zero() -> None:
    """Half as much is half as high; nothing at all is the lowest."""
    assert history.sparkline([4, 8]) == "▅█"
    assert history.sparkline([0, 0]) == "▁▁"


def test_one_report_is_shown_whole(tmp_path: Path) -> None:
    """Every server's figure of every metric with its spread, parameters and warnings, in 80 columns."""
    report = make({"chat_gevent": 10, "threads": 13}, rich=True)
    out = io.StringIO()
    print_report(report, Console(file=out, width=80, color_system=None))
    shown = out.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    for text in ("server CPU per confirmation", "threads", "lowest", "connections 200", "warning: steal"):
        assert text in shown
    lowest = min(trial.values["cpu"] for trial in report.trials_of("threads"))
    assert f"{lowest:.1f} µs" in shown
