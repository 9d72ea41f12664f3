"""Comparing: which servers of one report, or which of several reports, are faster, slower or the same.

One report: each server against a baseline server, paired block by block. Several: each report against the
first, server by server of equal name, unpaired, since two runs share no blocks. Where kernel, CPU, cores,
pinning, scenario or parameters differ the reports are refused with the differences named, unless forced.

Primary metrics get a verdict (:mod:`benchmarks.judge.verdicts`), with Holm's correction over the
candidates that one metric is compared by; the others are shown without. A candidate that failed more of its
requests than the baseline, by more than chance explains, is never called faster or the same: its figures are
those of the requests that were left. Every server of the baseline is accounted for: what has no figure with a
verdict is named (:mod:`benchmarks.judge.caveats`), and the exit status says that not all was compared.

Where a side is several reports, a sample is a run (:mod:`benchmarks.judge.pooling`). A Locust report is
always one sample, because the windows of one run do not tell how two runs differ.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.judge import caveats
from benchmarks.judge.caveats import Side
from benchmarks.judge.comparable import differences
from benchmarks.judge.pooling import pool
from benchmarks.judge.statistics import Verdict, geometric_mean
from benchmarks.judge.verdicts import Comparison, Job, judge
from benchmarks.reports.figures import Figure, figures, saturated
from benchmarks.reports.report import Report

MARGIN: Final = 0.03
NO_REGRESSION: Final = 0
REGRESSION: Final = 1
NOT_COMPARABLE: Final = 3


class CompareError(ValueError):
    """There is nothing to compare; the message is one line for a person."""


@dataclass(frozen=True, slots=True)
class Mean:
    """The geometric mean of a metric's ratios over the servers that the reports share."""

    title: str
    candidate: str
    ratio: float
    servers: int


@dataclass(slots=True, kw_only=True)
class Result:
    """What :func:`compare` found.

    ``refused`` names the differences that forbid a verdict, ``missing`` the servers that were not, or not
    wholly, compared. ``runs`` has, for each report, the times of the runs it was made of, where a sample is
    a run.
    """

    labels: list[str]
    reports: list[Report]
    margin: float
    baseline: str
    comparisons: list[Comparison] = field(default_factory=list)
    means: list[Mean] = field(default_factory=list)
    runs: list[tuple[str, ...]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    status: int = NO_REGRESSION

    @property
    def paired(self) -> bool:
        """Whether the ratios were taken block by block within one run."""
        return len(self.reports) == 1

    @property
    def candidates(self) -> list[str]:
        """What was compared with the baseline, in order."""
        return list(dict.fromkeys(comparison.candidate for comparison in self.comparisons))


def compare(
    sides: Sequence[Report | Sequence[Report]],
    labels: Sequence[str],
    *,
    margin: float = MARGIN,
    strict: bool = False,
    force: bool = False,
    baseline: str | None = None,
) -> Result:
    """Compare the servers of one report, or several reports with the first.

    A side may be several reports: one sample each. ``labels`` name the sides; ``margin`` is a fraction;
    ``baseline`` is the server that the others of one report are compared with (the first unless given).
    Raises :class:`CompareError` where there is nothing to compare and ``ReportError`` for a damaged
    histogram or runs that are no samples of one thing.
    """
    if baseline is not None and len(sides) > 1:
        raise CompareError("a baseline server is chosen among the servers of one report; give one file")
    runs = [[side] if isinstance(side, Report) else list(side) for side in sides]
    result = Result(labels=list(labels), reports=[], margin=margin, baseline=labels[0])
    for label, several in zip(labels, runs, strict=True):
        pooled = len(several) > 1 or several[0].kind == "locust"
        result.reports.append(pool(several) if pooled else several[0])
        result.runs.append(tuple(report.created for report in several) if pooled else ())
        for other in several[1:]:
            _name_differences(result, several[0], other, f" (among the runs of {label})")
    _look_at_reports(result, [report for several in runs for report in several])
    reports = result.reports
    if result.paired:
        pairs = _pairs_within(reports[0], baseline)
        result.baseline = pairs[0][0].label
    else:
        for label, report in zip(labels[1:], reports[1:], strict=True):
            between = f" ({labels[0]} against {label})" if len(reports) > 2 else ""
            _name_differences(result, reports[0], report, between)
        pairs = [] if result.refused and not force else _pairs_between(result)
    if result.refused and not force:
        result.status = NOT_COMPARABLE
        return result
    if result.refused:
        result.notes.insert(0, "Compared by force although conditions differ: the ratios prove nothing.")
    jobs = _jobs(result, pairs, force)
    result.comparisons = judge(jobs, margin)
    _name_missing(result, pairs)
    if not result.paired:
        result.means = _means(result, pairs)
    verdicts = {comparison.verdict for comparison in result.comparisons}
    if Verdict.SLOWER in verdicts:
        result.status = REGRESSION
    elif result.missing or (strict and Verdict.UNCLEAR in verdicts):
        result.status = NOT_COMPARABLE
    return result


def _name_differences(result: Result, one: Report, two: Report, where: str) -> None:
    refused, others = differences(one, two)
    result.refused += [text + where for text in refused]
    result.differences += [text + where for text in others]


def _name_missing(result: Result, pairs: Sequence[tuple[Side, Side]]) -> None:
    """Every pair without a verdict, and every candidate that failed where the baseline did not."""
    judged = {
        (comparison.baseline, comparison.candidate)
        for comparison in result.comparisons
        if comparison.verdict is not None and comparison.estimate.n
    }
    for one, two in pairs:
        if (one.label, two.label) not in judged:
            result.missing.append(caveats.why_nothing(one, two))
        elif caveats.more_failed_blocks(one, two):
            result.missing.append(caveats.failed(two))
        else:
            result.notes += [f"{text}." for side in (one, two) if (text := caveats.failed(side))]
    result.missing = list(dict.fromkeys(result.missing))
    result.notes = list(dict.fromkeys(result.notes))


def _look_at_reports(result: Result, runs: Sequence[Report]) -> None:
    for label, report in zip(result.labels, result.reports, strict=True):
        if not report.trials:
            raise CompareError(f"{label}: the report has no trials")
        if not report.complete:
            result.notes.append(f"{label} is {report.state}.")
        if report.revision.dirty:
            result.notes.append(f"{label} was measured with files that differ from its git revision.")
    ids = [report.id for report in runs]
    if len(set(ids)) != len(ids):
        result.notes.append("The same report was given twice.")


def _pairs_within(report: Report, baseline: str | None) -> list[tuple[Side, Side]]:
    names = [server.name for server in report.servers]
    if len(names) < 2:
        raise CompareError(
            "the report has one server: give a second report, or measure two servers in one run"
        )
    if baseline is not None and baseline not in names:
        raise CompareError(f"no server {baseline!r} in the report; it has {', '.join(names)}")
    first = report.server(baseline or names[0])
    others = [server for server in report.servers if server.name != first.name]
    return [(Side(first.name, report, first), Side(other.name, report, other)) for other in others]


def _pairs_between(result: Result) -> list[tuple[Side, Side]]:
    first, labels = result.reports[0], result.labels
    pairs = []
    for label, report, runs in zip(labels[1:], result.reports[1:], result.runs[1:], strict=True):
        names = {server.name for server in report.servers}
        matches = [(server, report.server(server.name)) for server in first.servers if server.name in names]
        if not matches and len(first.servers) == len(report.servers) == 1:
            matches = [(first.servers[0], report.servers[0])]
        if not matches:
            raise CompareError(f"{labels[0]} and {label} have no server in common")
        alone = len(matches) == 1
        pairs += [
            (
                Side(labels[0] if alone else f"{one.name}, {labels[0]}", first, one, result.runs[0]),
                Side(label if alone else f"{two.name}, {label}", report, two, runs),
            )
            for one, two in matches
        ]
        matched = [one for one, _ in matches]
        result.missing += [f"{label} has no {one.name}" for one in first.servers if one not in matched]
    return pairs


def _jobs(result: Result, pairs: Sequence[tuple[Side, Side]], force: bool) -> list[Job]:
    known: dict[int, Mapping[str, Figure]] = {
        id(report): {figure.name: figure for figure in figures(report)} for report in result.reports
    }
    jobs = []
    for one, two in pairs:
        apart = "" if force else caveats.one_after_the_other(one, two)
        theirs = known[id(two.report)]
        for name, figure in known[id(one.report)].items():
            other = theirs.get(name)
            if other is None or one.server.name not in figure.shown or two.server.name not in other.shown:
                continue
            metric = figure.metric
            if metric.unit != other.metric.unit:
                result.notes.append(f"{metric.title} is left out: its unit differs between the reports.")
                continue
            both = saturated(one.report, one.server.name) and saturated(two.report, two.server.name)
            if metric.when_saturated and not both:
                metric = dataclasses.replace(metric, primary=False)
            caveat = caveats.not_the_servers(one, name) or caveats.not_the_servers(two, name) or apart
            jobs.append(Job(one, two, figure, other, metric, caveat))
    return jobs


def _means(result: Result, pairs: Sequence[tuple[Side, Side]]) -> list[Mean]:
    """Geometric means, where the servers of both reports are the same and at least two."""
    means = []
    for label, report in zip(result.labels[1:], result.reports[1:], strict=True):
        ours, theirs = ({server.name for server in r.servers} for r in (result.reports[0], report))
        if len(ours) == len(theirs) == 1:
            continue
        if ours != theirs:
            alone = ", ".join(sorted(ours ^ theirs))
            result.notes.append(
                f"No mean over servers: only one of {result.labels[0]} and {label} has {alone}."
            )
            continue
        sides = {two.label for _, two in pairs if two.report is report}
        by_metric: dict[str, list[Comparison]] = {}
        for comparison in result.comparisons:
            if comparison.candidate in sides and comparison.metric.primary and comparison.estimate.n:
                by_metric.setdefault(comparison.name, []).append(comparison)
        means += [
            Mean(of[0].metric.title, label, geometric_mean([c.estimate.ratio for c in of]), len(of))
            for of in by_metric.values()
            if len(of) == len(ours) > 1
        ]
    return means
