"""From a report to the figures that are compared: one value a trial, and merged histograms.

Percentiles become metrics here, named ``<histogram>_p99`` and so on. The value of a trial is the quantile of
its own histogram; the figure shown for a server is the quantile of the sum of its trials' histograms, never a
mean of percentiles. A quantile q of n recorded values rests on n(1-q) of them and is left out below 10.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.reports.histograms import added, decode, sure_quantile
from benchmarks.reports.report import Metric, Report, Trial

QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
_PRIMARY_QUANTILES: Final = ("p50", "p99")


@dataclass(frozen=True, slots=True)
class Sample:
    """One trial's value of a metric."""

    block: int
    order: int
    value: float


Samples = Mapping[str, list[Sample]]


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric with each server's samples in the order they ran, and what is shown for each server."""

    name: str
    metric: Metric
    samples: Samples
    shown: Mapping[str, float]

    @property
    def ranked(self) -> list[str]:
        """The servers that have it, the best one first."""
        return sorted(self.shown, key=lambda name: self.shown[name], reverse=self.metric.better == "higher")


def merged(report: Report, server: str, name: str) -> Any | None:
    """The sum of all histograms called ``name`` of ``server``'s trials; None where it has none."""
    trials = [trial for trial in report.trials_of(server) if name in trial.histograms]
    return added(decode(trial.histograms[name], f"{report.id}: trial {trial.order}") for trial in trials)


def figures(report: Report) -> list[Figure]:
    """Everything of ``report`` that can be compared: its metrics and the percentiles, primary ones first."""
    found = [
        _plain(report, name, metric) for name, metric in report.metrics.items() if metric.better != "none"
    ]
    found += _percentiles(report)
    found = [figure for figure in found if figure.samples]
    return sorted(found, key=lambda figure: not figure.metric.primary)


def _plain(report: Report, name: str, metric: Metric) -> Figure:
    samples = {
        server.name: values
        for server in report.servers
        if (values := _collect(report.trials_of(server.name), lambda t: t.values.get(name)))
    }
    shown = {server: statistics.median(s.value for s in values) for server, values in samples.items()}
    return Figure(name, metric, samples, shown)


def _percentiles(report: Report) -> list[Figure]:
    result = []
    for name, kind in report.histograms.items():
        decoded = {
            server.name: [
                (trial, decode(trial.histograms[name], f"{report.id}: trial {trial.order}"))
                for trial in report.trials_of(server.name)
                if name in trial.histograms
            ]
            for server in report.servers
        }
        totals = {server: merged(report, server, name) for server, trials in decoded.items() if trials}
        scale = kind.unit_seconds * 1e6
        for label, q in QUANTILES.items():
            samples: dict[str, list[Sample]] = {}
            shown: dict[str, float] = {}
            for server, total in totals.items():
                if (value := sure_quantile(total, q)) is None:
                    continue
                shown[server] = value * scale
                each = [(trial, sure_quantile(histogram, q)) for trial, histogram in decoded[server]]
                samples[server] = [Sample(t.block, t.order, v * scale) for t, v in each if v is not None]
            primary = kind.open_schedule and label in _PRIMARY_QUANTILES
            title = f"{kind.title}, {label}"
            metric = Metric(unit="µs", better="lower", title=title, primary=primary)
            result.append(Figure(f"{name}_{label}", metric, samples, shown))
    return result


def _collect(trials: Sequence[Trial], pick: Any) -> list[Sample]:
    return [
        Sample(trial.block, trial.order, float(value))
        for trial in trials
        if (value := pick(trial)) is not None
    ]


def by_block(samples: Iterable[Sample]) -> dict[int, float]:
    """One value a block: the geometric mean of its trials (a block may hold ABBA). Blocks with a value of 0
    or less, which no ratio can be taken of, are left out.
    """
    blocks: dict[int, list[float]] = {}
    for sample in samples:
        blocks.setdefault(sample.block, []).append(sample.value)
    return {
        block: math.exp(statistics.fmean(map(math.log, values)))
        for block, values in blocks.items()
        if min(values) > 0
    }


def saturated(report: Report, server: str) -> bool:
    """Whether the server was the bottleneck in every one of its trials."""
    trials = report.trials_of(server)
    return bool(trials) and all(trial.saturated for trial in trials)


def failures(report: Report, server: str) -> tuple[int, int]:
    """How many of a server's requests failed, and how many there were."""
    trials = report.trials_of(server)
    failed = sum(sum(trial.errors.values()) for trial in trials)
    return failed, failed + sum(trial.messages for trial in trials)
