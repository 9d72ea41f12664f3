"""The noise floor: how far apart the same server measured twice may lie.

A *slower* or *faster* must lie beyond it, whatever margin was asked for.
"""

from __future__ import annotations

import itertools
import math
from typing import Final

from benchmarks.judge.statistics import spread
from benchmarks.reports.figures import Figure, by_block
from benchmarks.reports.report import Report

_MIN_RATIOS: Final = 5
_BOTH_SIDES: Final = 1.96  # of a normal distribution, 95% within


def within(report: Report, figure: Figure, baseline: str, candidate: str) -> float:
    """The floor, as a fraction, between two servers of one run with as many blocks as it has.

    From what is the same server twice (equal command and source, or several trials in a block) where the
    report has at least 5 such ratios; else from how the ratios of the two servers themselves scatter.
    """
    first, second = by_block(figure.samples[baseline]), by_block(figure.samples[candidate])
    blocks = sorted(first.keys() & second.keys())
    if len(blocks) < 2:
        return 0.0
    ratios = _same_server(report, figure)
    if len(ratios) >= _MIN_RATIOS:
        noise = spread(ratios, centered=True)
    else:
        noise = spread([math.log(second[b] / first[b]) for b in blocks])
    return math.expm1(_BOTH_SIDES * noise / math.sqrt(len(blocks)))


def between(figure: Figure, server: str) -> float:
    """The floor between two runs: 95% of the server's own blocks lie within this fraction of their median.

    Not divided by their number: what made this run's blocks differ may differ between runs as a whole.
    """
    blocks = by_block(figure.samples[server])
    return math.expm1(_BOTH_SIDES * spread([math.log(v) for v in blocks.values()])) if blocks else 0.0


def _same_server(report: Report, figure: Figure) -> list[float]:
    """Logarithms of ratios that are 1 but for noise, as wide as the ratio of two servers in a block."""
    ratios: list[float] = []
    for one, two in itertools.combinations(report.servers, 2):
        if (one.command, one.source_hash) == (two.command, two.source_hash):
            first = by_block(figure.samples.get(one.name, ()))
            second = by_block(figure.samples.get(two.name, ()))
            ratios += [math.log(second[b] / first[b]) for b in first.keys() & second.keys()]
    for samples in figure.samples.values():
        trials: dict[int, list[float]] = {}
        for sample in samples:
            if sample.value > 0:
                trials.setdefault(sample.block, []).append(math.log(sample.value))
        # The mean of k trials is compared in the end, and is the square root of k less noisy.
        ratios += [(v[1] - v[0]) / math.sqrt(len(v)) for v in trials.values() if len(v) > 1]
    return ratios
