"""Several runs of one server as one side of a comparison, where a sample is a run.

The windows of a Locust run, and all else that one run has in common, are not independent: however many there
are, they say nothing of how far apart two runs of the same server lie. So each run is made one trial (its
histograms added, its figures those of the whole run), and runs are what a comparison counts.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks.reports.document import ReportError
from benchmarks.reports.histograms import added, decode, encode
from benchmarks.reports.report import Report, Server, Trial


def pool(reports: Sequence[Report]) -> Report:
    """One report with a trial for each server in each of ``reports``, under the names of the first.

    Raises ``ReportError`` where a run is there twice, which is no second sample, where the runs are of
    different servers, or where a histogram is damaged.
    """
    first = reports[0]
    if len({report.id for report in reports}) < len(reports):
        raise ReportError(f"{first.id}: the same run is given twice among the runs of one side")
    trials: list[Trial] = []
    for block, report in enumerate(reports):
        for server, theirs in _servers(first, report):
            if windows := report.trials_of(theirs):
                trials.append(_whole(report, server.name, windows, block, len(trials)))
    return dataclasses.replace(
        first,
        trials=trials,
        complete=all(report.complete for report in reports),
        revision=dataclasses.replace(first.revision, dirty=any(report.revision.dirty for report in reports)),
        warnings=[
            dataclasses.replace(fired, block=block)
            for block, report in enumerate(reports)
            for fired in report.warnings
            if fired.check != "one-run"  # windows that are taken for samples; here they are not
        ],
    )


def _servers(first: Report, report: Report) -> list[tuple[Server, str]]:
    """The servers of ``first`` with their names in ``report``. Locust knows one, by its address."""
    if first.kind == report.kind == "locust" and len(first.servers) == len(report.servers) == 1:
        return [(first.servers[0], report.servers[0].name)]
    names = {server.name for server in report.servers}
    if names != {server.name for server in first.servers}:
        raise ReportError(f"{report.id}: the runs of one side must be of the same servers")
    return [(server, server.name) for server in first.servers]


def _whole(report: Report, server: str, parts: Sequence[Trial], block: int, order: int) -> Trial:
    seconds = sum(part.seconds for part in parts)
    names = dict.fromkeys(name for part in parts for name in part.values)
    return Trial(
        server=server,
        block=block,
        order=order,
        seconds=seconds,
        messages=sum(part.messages for part in parts),
        errors=dict(sum((Counter(part.errors) for part in parts), Counter())),
        values={name: _value(report, name, [p for p in parts if name in p.values]) for name in names},
        saturated=all(part.saturated for part in parts),
        memory=[plateau for part in parts for plateau in part.memory],
        series=_series(parts) if report.kind == "locust" else {},
        histograms={
            name: _added(report, [part for part in parts if name in part.histograms], name)
            for name in dict.fromkeys(name for part in parts for name in part.histograms)
        },
    )


def _value(report: Report, name: str, parts: Sequence[Trial]) -> float:
    """The run's own figure: over the time of a Locust run's windows, else the median of fresh processes."""
    values = [part.values[name] for part in parts]
    if report.kind == "locust":
        return statistics.fmean(values, [part.seconds for part in parts])
    return statistics.median(values)


def _series(parts: Sequence[Trial]) -> dict[str, list[tuple[float, float]]]:
    """A Locust run's series over all its windows; their times count from the run's begin."""
    names = dict.fromkeys(name for part in parts for name in part.series)
    return {name: [point for part in parts for point in part.series.get(name, [])] for name in names}


def _added(report: Report, parts: Sequence[Trial], name: str) -> str:
    if len(parts) == 1:
        return parts[0].histograms[name]
    total: Any = added(decode(part.histograms[name], f"{report.id}: trial {part.order}") for part in parts)
    return encode(total)
