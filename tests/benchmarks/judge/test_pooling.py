"""Runs as samples: what one run a side can say, what several can, and what is no figure of a server."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cli import main
from benchmarks.judge.compare import Result, compare
from benchmarks.judge.pooling import pool
from benchmarks.judge.statistics import Verdict
from benchmarks.reports.document import ReportError
from benchmarks.reports.figures import figures
from benchmarks.reports.report import Fired, HistogramKind, Report
from benchmarks.show.html import comparison_page
from benchmarks.show.wording import headline
from tests.benchmarks.made_reports import RATE, encoded, make

BETWEEN, WITHIN = 0.03, 0.01
"""Standard deviations: of runs of one server, and of the windows of one run."""


def locust(seed: int, cost: float = 10, *, between: float = BETWEEN, **changes: Any) -> Report:
    """A Locust run of 8 windows against a server that was saturated, at an address of its own."""
    cost *= math.exp(random.Random(seed).gauss(0, between))
    report = make({f"tcp://h:{seed}": cost}, noise=WITHIN, drift=0, seed=seed, blocks=8, kind="locust")
    report.metrics = {"messages_per_second": replace(RATE, when_saturated=False)}
    for trial in report.trials:
        trial.values = {"messages_per_second": trial.values["rate"]}
    for name, value in changes.items():
        setattr(report, name, value)
    return report


def runs(count: int, seed: int, cost: float = 10, **changes: Any) -> list[Report]:
    """So many runs of one server."""
    return [locust(1000 * seed + number, cost, **changes) for number in range(count)]


def the_only(result: Result) -> tuple[Verdict | None, str]:
    """Verdict and reason of a result with one comparison."""
    (found,) = result.comparisons
    return found.verdict, found.reason


def test_one_run_a_side_is_unclear_and_shows_the_ratio() -> None:
    """However far two runs lie apart and however equal their windows are, one of each proves nothing."""
    result = compare([locust(1), locust(2, 18)], ["a", "b"])
    (found,) = result.comparisons
    assert found.verdict is Verdict.UNCLEAR
    assert found.reason == "one run a side: how much two runs of the same server differ is not known"
    assert found.reason in headline(result)
    assert found.estimate.ratio == pytest.approx(10 / 18, rel=0.2)
    assert result.status == 0
    assert compare([locust(1), locust(2, 18)], ["a", "b"], strict=True).status == 3


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_server_is_seldom_told_from_itself(count: int) -> None:
    """Runs that differ by 3% and windows by 1%: at most 5% of comparisons say slower or faster."""
    said = Counter(
        compare([runs(count, 2 * seed), runs(count, 2 * seed + 1)], ["a", "b"]).comparisons[0].verdict
        for seed in range(100)
    )
    assert said[Verdict.SLOWER] + said[Verdict.FASTER] <= 5
    assert said.total() == 100


def test_several_runs_tell_a_difference() -> None:
    """Five runs a side say that a server is a fifth slower; three say how many it takes."""
    result = compare([runs(5, 1), runs(5, 2, 12.5)], ["a", "b"])
    assert the_only(result)[0] is Verdict.SLOWER
    assert result.comparisons[0].estimate.n == 5
    assert result.status == 1
    assert the_only(compare([runs(3, 1), runs(3, 2, 12.5)], ["a", "b"])) == (
        Verdict.UNCLEAR, "3 runs a side: slower or faster takes 4",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"warnings": [Fired(check="generator-busy", message="m")]}, "at its limit (generator-busy)"),
        ({"warnings": [Fired(check="generator-late", message="m")]}, "at its limit (generator-late)"),
    ],
)
def test_what_the_generator_set_is_not_the_servers(changes: dict[str, Any], reason: str) -> None:
    """Where one run's generator was the bottleneck, no number of runs gives a verdict."""
    several = [*runs(4, 2, 15), locust(9, 15, **changes)]
    verdict, why = the_only(compare([runs(5, 1), several], ["a", "b"]))
    assert verdict is Verdict.UNCLEAR
    assert reason in why


def test_a_closed_loop_says_nothing_of_a_server_not_known_to_be_saturated() -> None:
    """The rate of clients that wait for their replies gets no verdict; with one run both reasons stand."""
    sides = [runs(5, 1), runs(5, 2, 15)]
    for report in sides[1]:
        for trial in report.trials:
            trial.saturated = None
    verdict, why = the_only(compare(sides, ["a", "b"]))
    assert verdict is Verdict.UNCLEAR
    assert why.startswith("in the closed loop of b")
    assert "one run a side" in the_only(compare([sides[0][:1], sides[1][:1]], ["a", "b"]))[1]


def test_runs_are_made_in_turn() -> None:
    """Where all runs of a side came first the machine may have changed: unclear, unless forced or in turn."""
    sides = [runs(5, 1), runs(5, 2, 15)]
    for place, report in enumerate([*sides[0], *sides[1]]):
        report.created = f"2026-11-23T15:{place:02}:00Z"
    for one, two in (sides, sides[::-1]):
        verdict, why = the_only(compare([one, two], ["a", "b"]))
        assert verdict is Verdict.UNCLEAR
        assert "make them in turn" in why
    assert the_only(compare(sides, ["a", "b"], force=True))[0] is Verdict.SLOWER
    sides[1][0].created = sides[0][1].created
    assert the_only(compare(sides, ["a", "b"]))[0] is Verdict.SLOWER


def test_a_run_is_one_sample_with_its_histograms_added() -> None:
    """A pooled report has a trial a run: rates over the windows' time, histograms and errors added."""
    one, two = runs(2, 1)
    for report in (one, two):
        report.histograms["response"] = HistogramKind(title="response", open_schedule=True)
        for trial in report.trials:
            trial.errors = {"late": 1}
            trial.histograms = {"response": encoded([100 * (trial.block + 1)] * 250)}
    one.trials[0].seconds = 9.0
    one.trials[0].values = {"messages_per_second": 17.0}
    for trial in one.trials[1:]:
        trial.values = {"messages_per_second": 1.0}
    pooled = pool([one, two])
    assert [(trial.block, trial.messages) for trial in pooled.trials] == [
        (block, sum(trial.messages for trial in report.trials)) for block, report in enumerate((one, two))
    ]
    assert pooled.trials[0].errors == {"late": 8}
    assert pooled.trials[0].values == {"messages_per_second": 10.0}
    p99 = next(figure for figure in figures(pooled) if figure.name == "response_p99")
    (values,) = p99.samples.values()
    assert [sample.value for sample in values] == [pytest.approx(800, rel=0.01)] * 2
    pooled.check()


def test_runs_of_benchmarks_are_samples_too() -> None:
    """Reports of benchmarks joined as one side count once each, server by server."""
    sides = [[make({"s": cost, "t": cost}, seed=seed + cost) for seed in range(5)] for cost in (10, 20)]
    result = compare(sides, ["a", "b"])
    assert {c.estimate.n for c in result.comparisons} == {5}
    assert {c.verdict for c in result.comparisons if c.metric.primary} == {Verdict.SLOWER}


def test_runs_that_are_no_samples_of_one_thing() -> None:
    """The same run twice and other servers are refused; other conditions are named."""
    with pytest.raises(ReportError, match="the same run is given twice"):
        compare([[locust(1), locust(1)], runs(2, 2)], ["a", "b"])
    with pytest.raises(ReportError, match="must be of the same servers"):
        compare([[make({"s": 1}), make({"t": 1}, seed=2)], make({"s": 1}, seed=3)], ["a", "b"])
    result = compare([[locust(1), locust(2, parameters={"rate": 5})], runs(2, 2)], ["a", "b"])
    assert result.status == 3
    assert any("parameter rate differs" in text and "the runs of a" in text for text in result.refused)


def test_files_joined_by_commas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command takes runs of a side joined by commas, a file with a comma in its name, and counts them."""
    names = {}
    for side, cost in (("a", 10), ("b", 15)):
        paths = [tmp_path / f"{side}{number}.json" for number in range(4)]
        for number, path in enumerate(paths):
            locust(ord(side) + 10 * number, cost).save(path)
        names[side] = ",".join(map(str, paths))
    assert main(["compare", names["a"], names["b"]]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "b0 (4 runs) is slower than a0 (4 runs)" in out
    assert "4 and 4 runs, a sample each" in out
    odd = tmp_path / "odd,name.json"
    locust(3).save(odd)
    assert main(["compare", str(odd), str(tmp_path / "b0.json")]) == 0
    assert "one run a side" in " ".join(capsys.readouterr().out.split())


def test_the_page_of_runs_draws_each() -> None:
    """Series of several runs are lines of their own, of one run's windows one line; the page has them all."""
    from benchmarks.reports.report import SeriesKind
    from benchmarks.show.plots import Subject, _series

    sides = [runs(2, 1), runs(2, 2)]
    for report in (report for side in sides for report in side):
        report.series["rate"] = SeriesKind(title="rate over time", unit="1/s")
        for trial in report.trials:
            trial.series = {"rate": [(trial.block * 2.0, 1.0), (trial.block * 2.0 + 1, 1.0)]}
    lone, pooled = sides[0][0], pool(sides[0])
    assert [len(line) for line in _series(Subject("a", lone, lone.servers[0].name), "rate")] == [16]
    assert [len(line) for line in _series(Subject("a", pooled, pooled.servers[0].name), "rate")] == [16, 16]
    page = comparison_page(compare(sides, ["a (2 runs)", "b (2 runs)"]))
    assert "Rate over time" in page
    assert "2 runs a side: slower or faster takes 4" in page
