"""What the benchmarks' README says of the verdicts is what the runs beside it show."""

from __future__ import annotations

from benchmarks.experiments import verdict_quality
from benchmarks.judge.statistics import Verdict
from benchmarks.reports.report import Report
from benchmarks.show import tables


def test_the_runs_show_what_is_claimed() -> None:
    """Of 20 real runs at most 1 tells a server from itself, 18 tell 5%, and 5 blocks of each tell 20%."""
    reports = [Report.load(path) for path in sorted(verdict_quality.RESULTS.glob("run-*.json"))]
    assert len(reports) == 20
    said = {
        comparison: [verdict_quality.judged(report, *comparison)[0] for report in reports]
        for comparison in verdict_quality.COMPARISONS
    }
    apart = [v for v in said["again", 10] if v in (Verdict.SLOWER, Verdict.FASTER)]
    assert len(apart) <= 1
    assert said["slowed by 262 ns", 10].count(Verdict.SLOWER) >= 18
    assert said["slowed by 800 ns", 5].count(Verdict.SLOWER) == 20


def test_the_tables_in_the_readme_are_those_of_the_runs() -> None:
    """The README has the tables that ``python -m benchmarks experiment verdict-quality`` prints."""
    readme = (tables.HERE / "README.md").read_text(encoding="utf-8")
    assert verdict_quality.verdict_table(verdict_quality.RESULTS) in readme
    assert verdict_quality.noise_table(verdict_quality.RESULTS) in readme
