"""What failed is no figure: servers without trials are named, and failures weighed by their number."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.judge.caveats import runs_needed
from benchmarks.judge.compare import Result, compare
from benchmarks.judge.statistics import Verdict, more_often
from benchmarks.reports.report import Fired, Report
from benchmarks.show.html import comparison_page
from benchmarks.show.wording import headline, markdown
from tests.benchmarks.made_reports import make


def fail(report: Report, server: str, blocks: int) -> Report:
    """``server`` did not start in the first ``blocks`` blocks."""
    report.trials = [trial for trial in report.trials if trial.server != server or trial.block >= blocks]
    report.warnings += [
        Fired(check="trial-failed", message="no luck", server=server, block=block) for block in range(blocks)
    ]
    report.complete = False
    return report


def verdict_of(result: Result, candidate: str) -> Verdict | None:
    """The verdict on a candidate's CPU."""
    return next(c.verdict for c in result.comparisons if (c.candidate, c.name) == (candidate, "cpu"))


@pytest.mark.parametrize(
    ("costs", "failing", "said"),
    [
        ({"A": 10, "B": 10}, "B", "B failed in 10 of 10 blocks (no luck)"),
        ({"A": 10, "B": 10}, "A", "A failed in 10 of 10 blocks (no luck)"),
        ({"A": 10, "B": 10, "C": 10}, "B", "B failed in 10 of 10 blocks (no luck)"),
    ],
)
def test_a_server_that_never_started_is_no_success(costs: dict[str, float], failing: str, said: str) -> None:
    """Exit status 3 without --strict; the headline has the server, how often it failed and its last words."""
    result = compare([fail(make(costs), failing, 10)], ["r"])
    assert result.status == 3
    assert result.missing == [said]
    for text in (headline(result), markdown(result), comparison_page(result)):
        assert said in text
    if "C" in costs:
        assert verdict_of(result, "C") is Verdict.SAME


def test_a_regression_outweighs_what_is_missing() -> None:
    """Where one candidate is slower and another failed, the exit status is that of the regression."""
    result = compare([fail(make({"A": 10, "B": 10, "C": 15}), "B", 10)], ["r"])
    assert (result.status, len(result.missing)) == (1, 1)


def test_a_server_that_failed_in_some_blocks() -> None:
    """A candidate that failed in some blocks is not faster or the same, and named; a baseline is noted."""
    result = compare([fail(make({"A": 10, "B": 7}), "B", 2)], ["r"])
    assert verdict_of(result, "B") is Verdict.UNCLEAR
    assert result.comparisons[0].reason == "B failed in 2 of 10 blocks (no luck)"
    assert (result.status, result.missing) == (3, ["B failed in 2 of 10 blocks (no luck)"])
    result = compare([fail(make({"A": 10, "B": 7}), "A", 2)], ["r"])
    assert verdict_of(result, "B") is Verdict.FASTER
    assert (result.status, result.missing) == (0, [])
    assert "A failed in 2 of 10 blocks (no luck)." in result.notes


def _no_messages(report: Report) -> Report:
    for trial in report.trials_of("B"):
        trial.messages, trial.values = 0, {}
    return report


def _interrupted(report: Report) -> Report:
    report.trials = report.trials[:1]
    return report


def _one_block_each(report: Report) -> Report:
    report.trials = [trial for trial in report.trials if (trial.server == "A") == (trial.block < 5)]
    return report


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_no_messages, "nothing was confirmed by B"),
        (_interrupted, "B was not measured"),
        (_one_block_each, "B shares no figure with A that takes part in a verdict"),
    ],
)
def test_every_pair_has_a_figure_or_a_reason(change: Any, said: str) -> None:
    """Whatever leaves a pair without a ratio is said by name, with status 3."""
    result = compare([change(make({"A": 10, "B": 10}, blocks=10, seed=4))], ["r"])
    assert (result.missing, result.status) == ([said], 3)


def test_a_server_that_the_later_report_lacks() -> None:
    """All of the baseline's servers are to be in the other report; one that it never had is named."""
    result = compare([make({"s": 10, "t": 10}, drift=0), make({"s": 10}, drift=0, seed=2)], ["x", "y"])
    assert (result.missing, result.status) == (["y has no t"], 3)
    result = compare([make({"s": 10}, drift=0), make({"s": 10, "t": 9}, drift=0, seed=2)], ["x", "y"])
    assert (result.missing, result.status) == ([], 0)


def test_a_few_failures_may_be_chance() -> None:
    """One failure in a million leaves the verdict; a dozen where the baseline had none do not, in numbers."""
    report = make({"base": 10, "new": 7})
    report.trials_of("new")[0].errors = {"reset": 1}
    assert verdict_of(compare([report], ["r"]), "new") is Verdict.FASTER
    report.trials_of("new")[0].errors = {"reset": 12}
    found = compare([report], ["r"]).comparisons[0]
    assert found.verdict is Verdict.UNCLEAR
    assert found.reason.startswith("12 of 1,4")
    assert " requests to new failed, 0 of 9" in found.reason


def test_failures_are_weighed_by_a_test() -> None:
    """Five of as many requests against none have p 1/32; more requests explain more failures."""
    assert more_often(0, 1000, 5, 1000) == pytest.approx(1 / 32)
    assert more_often(5, 1000, 10, 2000) > 0.5
    assert more_often(5, 1000, 0, 1000) == 1


def test_how_many_runs_a_verdict_takes() -> None:
    """As many as let Mann and Whitney's smallest p survive the correction: 4 for one metric, 5 up to six."""
    assert [runs_needed(n) for n in (1, 2, 6, 7)] == [4, 5, 5, 6]
