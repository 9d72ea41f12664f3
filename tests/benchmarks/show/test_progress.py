"""What ``run`` says at its end: how much was measured, with which figures, and what fired."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.reports.report import Fired, Report
from benchmarks.running import tell
from benchmarks.show.progress import summary
from tests.benchmarks.made_reports import make


def said(report: Report, *, width: int = 200, terminal: bool = False, verbose: bool = False) -> str:
    """The summary, without colours."""
    out = io.StringIO()
    summary(report, Console(file=out, width=width, force_terminal=terminal, color_system=None), verbose)
    return out.getvalue()


@pytest.mark.parametrize(
    ("blocks", "title"),
    [(0, "confirm: nothing was measured"), (1, "medians of 1 block"), (2, "medians of 2 blocks")],
)
def test_only_measured_blocks_are_claimed(blocks: int, title: str) -> None:
    """An interrupted run of five blocks names as many as it has trials of."""
    report = make({"a": 10, "b": 12}, blocks=blocks, complete=False)
    report.parameters["blocks"] = 5
    assert title in said(report).splitlines()[0]


def test_a_comparison_is_proposed_where_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Not where nothing was measured, nor where only one server was."""
    report = make({"a": 10, "b": 12}, blocks=1)
    tell(report, Path("r.json"))
    assert "compare the servers: python -m benchmarks compare r.json" in capsys.readouterr().out
    for trials in (report.trials[:1], []):
        report.trials = trials
        tell(report, Path("r.json"))
        shown = capsys.readouterr().out
        assert "report: r.json" in shown
        assert "compare" not in shown


def test_unlike_warnings_are_told_apart() -> None:
    """With -v, one line a check and server: what fired before the run is of no server, and none is hidden."""
    message = "something else used {} of a core meanwhile"
    warnings = [
        Fired(check="other-load", message="before the run began, something else used 140% of a core"),
        Fired(check="other-load", message=message.format("11%"), server="a", block=0),
        Fired(check="other-load", message=message.format("12%"), server="b", block=0),
        Fired(check="other-load", message=message.format("13%"), server="b", block=1),
    ]
    lines = said(make({"a": 10, "b": 12}, warnings=warnings), verbose=True).splitlines()
    assert [line for line in lines if line.startswith("warning: ")] == [
        "warning: other-load: before the run began, something else used 140% of a core",
        "warning: other-load: a: something else used 11% of a core meanwhile",
        "warning: other-load: b: something else used 13% of a core meanwhile (2 times; the last is shown)",
    ]


def test_a_terminal_folds_between_words() -> None:
    """On 60 columns no line is longer, which the terminal would break anywhere; elsewhere lines are whole."""
    message = "the load generator used 95% of its core: messages a second are its limit"
    report = make({"a": 10}, warnings=[Fired(check="generator-busy", message=message)])
    lines = said(report, width=60, terminal=True).splitlines()
    assert max(map(len, lines)) <= 60
    assert message in " ".join(line.strip() for line in lines)
    assert message in said(report, width=60)


def test_figures_have_three_digits() -> None:
    """Zeros at the end are digits too."""
    report = make({"a": 10, "b": 20}, blocks=1)
    for trial, value in zip(report.trials, (8.2, 20), strict=True):
        trial.values["cpu"] = value
    shown = said(report)
    assert " 8.20 " in shown
    assert " 20.0 " in shown
    assert "2.44 (2.44–2.44)" in shown
