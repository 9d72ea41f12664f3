"""How often `history` raises a false alarm, and finds a step, on simulated histories of 60 runs.

The noise is that of the project's own runs of a server against itself (benchmarks/results/verdict_quality),
as it is and scaled to standard deviations of 1, 2 and 4%. Steps come 5 runs before the end: found is what
is placed at most 2 runs beside the step.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.experiments.verdict_quality import RESULTS, measured, subset
from benchmarks.judge.change_points import change_points, false_alarms
from benchmarks.judge.compare import compare

RUNS: Final = 60
AFTER: Final = 5
STEPS: Final = (0.03, 0.05, 0.10)
DEVIATIONS: Final = (0.01, 0.02, 0.04)


def own_noise(directory: Path = RESULTS) -> list[float]:
    """Logarithms of the ratio of a server to itself, one a run, as deviations from their mean.

    Raises ExperimentFailed where there are no runs.
    """
    ratios = []
    for report in measured(directory):
        result = compare([subset(report, ["baseline", "again"], 10)], [report.id])
        ratios.append(math.log(result.comparisons[0].estimate.ratio))
    values = np.asarray(ratios)
    scale = math.sqrt(len(values) / (len(values) - 1))
    return [float(each) for each in (values - values.mean()) * scale]


def found(noise: list[float], step: float, histories: int) -> float:
    """Share of simulated histories in which a step is found within :data:`AFTER` runs."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(histories):
        logs = rng.choice(noise, RUNS)
        logs[-AFTER:] += math.log1p(step)
        hits += any(
            abs(c.at - (RUNS - AFTER)) <= 2 and c.ratio > 1 for c in change_points(np.exp(logs).tolist())
        )
    return hits / histories


def table(histories: int) -> str:
    """Rates of false alarms and of steps found, as a Markdown table."""
    noise = own_noise()
    own = float(np.std(noise, ddof=1))
    steps = " | ".join(f"step of {step:.0%} found within {AFTER} runs" for step in STEPS)
    lines = [
        f"| standard deviation of a run | false alarms | {steps} |",
        "|---:|---:" + "|---:" * len(STEPS) + "|",
    ]
    for deviation in (own, *DEVIATIONS):
        scaled = [each * deviation / own for each in noise]
        name = f"{deviation:.1%}" + (" (measured here)" if deviation == own else "")
        powers = " | ".join(f"{found(scaled, step, histories):.0%}" for step in STEPS)
        lines.append(f"| {name} | {false_alarms(scaled, RUNS, 1, histories):.1%} | {powers} |")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--histories", type=int, default=1000, help="simulated for each figure (%(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    print(table(arguments.histories))
    return 0
