"""Reports made up with known ratios, noise and drift, for the tests of what reads reports."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from benchmarks.reports.report import (
    Fired,
    HistogramKind,
    Metric,
    Plateau,
    Report,
    Revision,
    SeriesKind,
    Server,
    Trial,
)

CPU = Metric(unit="µs", better="lower", title="server CPU per confirmation", primary=True)
RATE = Metric(unit="1/s", better="higher", title="confirmations a second", primary=True, when_saturated=True)
USER = Metric(unit="µs", better="lower", title="server CPU per confirmation, user")


def encoded(values: list[int]) -> str:
    """An HDR histogram of microseconds."""
    from hdrh.histogram import HdrHistogram

    histogram = HdrHistogram(1, 60_000_000, 3)
    for value in values:
        histogram.record_value(value)
    text: str = histogram.encode().decode()
    return text


def make(
    costs: Mapping[str, float],
    *,
    blocks: int = 10,
    noise: float = 0.01,
    drift: float = 0.05,
    seed: int = 1,
    rich: bool = False,
    saturated: bool = True,
    **changes: Any,
) -> Report:
    """A report of servers that cost ``costs`` microseconds a message, with a drift that blocks share.

    ``rich`` adds memory, a series, a histogram and a warning; ``changes`` replace fields of the report.
    """
    source = random.Random(seed)
    report = Report(
        id=f"made-{seed}",
        scenario="confirm",
        parameters={"connections": 200, "size": 32, "blocks": blocks},
        environment={
            "kernel": "Linux 6.1",
            "cpu": "A processor",
            "cores": 2,
            "python": "CPython 3.11.7",
            "pinning": {"server": [0], "generator": [1]},
            "packages": {"gevent": "26.9.0"},
        },
        servers=[Server(name=name, version="1", command=["serve", name], source_hash=name) for name in costs],
        metrics={"cpu": CPU, "rate": RATE, "user": USER},
        revision=Revision(commit="0123456789abcdef", dirty=False),
        harness="h",
        created="2026-11-23T15:44:25Z",
        complete=True,
    )
    if rich:
        report.histograms["latency"] = HistogramKind(
            title="latency from the intended start", open_schedule=True
        )
        report.series["rate"] = SeriesKind(title="confirmations over time", unit="1/s")
        report.warnings.append(Fired(check="steal", message="the host took 3% of a core", server=min(costs)))
    for name, value in changes.items():
        setattr(report, name, value)
    for block in range(blocks):
        shared = source.gauss(0, drift)
        for name, cost in costs.items():
            value = cost * math.exp(shared + source.gauss(0, noise))
            trial = Trial(
                server=name,
                block=block,
                order=len(report.trials),
                seconds=1.0,
                messages=round(1e6 / value),
                values={"cpu": value, "rate": 1e6 / value, "user": value / 3},
                saturated=saturated,
            )
            if rich:
                _enrich(trial, value, source)
            report.trials.append(trial)
    return report


def _enrich(trial: Trial, cost: float, source: random.Random) -> None:
    trial.memory = [
        Plateau(connections=n, user_bytes=4e7 + n * 900 * cost, kernel_bytes=n * 3700.0)
        for n in (50, 100, 150, 200)
    ]
    trial.series = {"rate": [(t / 4, 1e6 / cost * (1 + source.gauss(0, 0.03))) for t in range(8)]}
    latencies = [round(cost * 20 * math.exp(source.gauss(0, 0.4))) for _ in range(1200)]
    trial.histograms = {"latency": encoded(latencies)}
