"""How well the verdicts do: real runs of a server against itself and against itself slowed, and simulations.

    python -m benchmarks.study measure     20 runs, a report each, into benchmarks/results/study (20 minutes)
    python -m benchmarks.study verdicts    what `compare` says of them
    python -m benchmarks.study noise       what slices buy: the noise of a ratio with them and without
    python -m benchmarks.study coverage    how often intervals hold the true ratio, by simulation

A run measures four servers in each of 10 blocks: ``c_epoll``, the same again, and ``c_epoll`` with a busy loop
of 262 ns and of 800 ns for each message. The verdicts compare two of them at a time, as if only these
had been measured: all 10 blocks as a full run, and the first 5 as a quick one. So the three full
comparisons of a run share the trials of its baseline.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.compare import compare
from benchmarks.report import Report
from benchmarks.statistics import Verdict, geometric_mean

RESULTS: Final = Path(__file__).parent / "results" / "study"
SERVER: Final = "c_epoll"
BUSY_NS: Final = {"slowed by 262 ns": 262, "slowed by 800 ns": 800}
QUICK_BLOCKS: Final = 5
PARAMETERS: Final[dict[str, Any]] = {
    "connections": 200,
    "warmup": 0.2,
    "seconds": 0.6,
    "slices": 10,
    "blocks": 10,
}


def measure(directory: Path, runs: int, limit: int) -> int:
    """Measure up to ``limit`` of the ``runs`` that ``directory`` lacks; returns how many it then still lacks."""
    from benchmarks import runner
    from benchmarks.scenarios import SCENARIOS
    from benchmarks.servers import slowed

    base = slowed(SERVER, 0)
    servers = [dataclasses.replace(base, name=name) for name in ("baseline", "again")]
    servers += [dataclasses.replace(slowed(SERVER, ns), name=name) for name, ns in BUSY_NS.items()]
    scenario = SCENARIOS["confirm"]
    missing = [path for path in _paths(directory, runs) if not _complete(path)]
    for path in missing[:limit]:
        report = runner.run(scenario, servers, {**scenario.defaults, **PARAMETERS}, path)
        for trial in report.trials:  # closed loop: no verdict rests on them, and they are most of the file
            trial.histograms = {}
        report.save(path)
    return max(0, len(missing) - limit)


def _paths(directory: Path, runs: int) -> list[Path]:
    return [directory / f"run-{number:02}.json" for number in range(1, runs + 1)]


def _complete(path: Path) -> bool:
    return path.exists() and Report.load(path).complete


def subset(report: Report, servers: Sequence[str], blocks: int) -> Report:
    """The report as if only ``servers`` had been measured, in its first ``blocks`` blocks."""
    part = copy.copy(report)
    part.servers = [report.server(name) for name in servers]
    part.trials = [t for t in report.trials if t.server in servers and t.block < blocks]
    part.warnings = []
    return part


def main(argv: list[str] | None = None) -> int:
    """Run a part of the study; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=["measure", "verdicts", "noise", "coverage"])
    parser.add_argument("--directory", type=Path, default=RESULTS, help="where the reports are")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--limit", type=int, default=1000, help="measure at most so many runs now")
    arguments = parser.parse_args(argv)
    if arguments.part == "measure":
        arguments.directory.mkdir(parents=True, exist_ok=True)
        left = measure(arguments.directory, arguments.runs, arguments.limit)
        print(f"{left} runs left to measure")
    return 0


if __name__ == "__main__":
    sys.exit(main())
