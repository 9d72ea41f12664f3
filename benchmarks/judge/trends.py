"""A history of reports as series that can be judged: for each metric and server its ratio to the reference.

The reference is the server that a run names first, measured in the same run: what made that day's machine
fast or slow cancels. Absolute figures are never judged. Reports come in sets of equal conditions; a series
never leaves its set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.judge.change_points import LEAST, Change, change_points, false_alarms, residuals
from benchmarks.judge.compare import NO_REGRESSION, NOT_COMPARABLE, REGRESSION
from benchmarks.judge.statistics import paired
from benchmarks.reports.figures import by_block, figures, saturated
from benchmarks.reports.report import Metric, Report

Member = tuple[str, Report]
RUNS_BACK: Final = 20


@dataclass(frozen=True, slots=True)
class Trend:
    """One server's ratio to the reference by one metric, a value a run, and where it changed."""

    scenario: str
    metric: Metric
    server: str
    reference: str
    members: tuple[Member, ...]
    ratios: tuple[float, ...]
    changes: tuple[Change, ...] = ()

    def worse(self, change: Change) -> bool:
        """Whether the change is for the worse."""
        return (change.ratio > 1) == (self.metric.better == "lower")

    def between(self, change: Change) -> tuple[Member, Member]:
        """The last run before the change and the first after it."""
        return self.members[change.at - 1], self.members[change.at]

    def regressed(self, margin: float) -> Change | None:
        """The latest change, where that is for the worse by more than ``margin``."""
        if not self.changes or not self.worse(last := self.changes[-1]):
            return None
        return last if abs(math.log(last.ratio)) > math.log1p(margin) else None


@dataclass(frozen=True, slots=True)
class Trends:
    """All series of a history that were long enough, and what is known of the alarms.

    ``alarms`` is the share of histories without a change, simulated from this one's own noise, that have one.
    """

    judged: tuple[Trend, ...]
    short: tuple[Trend, ...]
    alarms: float
    noise: float

    def status(self, margin: float) -> int:
        """The exit status, as that of ``compare``: 3 where no series was long enough."""
        if any(trend.regressed(margin) for trend in self.judged):
            return REGRESSION
        return NO_REGRESSION if self.judged else NOT_COMPARABLE


def judge(sets: Sequence[Sequence[Member]]) -> Trends:
    """Judge the series of every set, all of them together."""
    series = [trend for members in sets for trend in _series(members)]
    long = [trend for trend in series if len(trend.ratios) >= LEAST]
    judged = []
    noise: list[float] = []
    for trend in long:
        changes = change_points(trend.ratios, len(long))
        noise += residuals(trend.ratios, changes)
        judged.append(
            Trend(
                trend.scenario, trend.metric, trend.server, trend.reference, trend.members, trend.ratios,
                tuple(changes),
            )
        )  # fmt: skip
    runs = max((len(trend.ratios) for trend in long), default=0)
    deviation = math.sqrt(sum(each**2 for each in noise) / len(noise)) if noise else 0.0
    short = tuple(trend for trend in series if len(trend.ratios) < LEAST)
    return Trends(tuple(judged), short, false_alarms(noise, runs, max(1, len(long))), deviation)


def _series(members: Sequence[Member]) -> list[Trend]:
    found: dict[tuple[str, str, str], tuple[Metric, list[Member], list[float]]] = {}
    for member in members:
        report = member[1]
        reference = report.servers[0].name
        for figure in figures(report):
            if not figure.metric.primary or reference not in figure.samples:
                continue
            base = by_block(figure.samples[reference])
            for server, samples in figure.samples.items():
                unsaturated = figure.metric.when_saturated and not (
                    saturated(report, server) and saturated(report, reference)
                )
                own = by_block(samples)
                blocks = sorted(own.keys() & base.keys())
                if server == reference or unsaturated or not blocks:
                    continue
                ratio = paired([base[b] for b in blocks], [own[b] for b in blocks]).ratio
                key = (figure.name, server, reference)
                _, of, ratios = found.setdefault(key, (figure.metric, [], []))
                of.append(member)
                ratios.append(ratio)
    scenario = members[0][1].scenario
    return [
        Trend(scenario, metric, server, reference, tuple(of), tuple(ratios))
        for (_, server, reference), (metric, of, ratios) in found.items()
    ]
