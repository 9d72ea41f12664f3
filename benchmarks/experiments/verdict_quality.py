"""How well the verdicts do: real runs of a server against itself and against itself slowed, and simulations.

    measure     20 runs, a report each, into benchmarks/results/verdict_quality (20 minutes)
    verdicts    what ``compare`` says of them
    noise       what slices buy: the noise of a ratio with them and without
    coverage    how often intervals hold the true ratio, by simulation
    few-blocks  how often a quick run of many servers is wrong, and finds a factor of two, by simulation

A run measures four servers in each of 10 blocks: ``c_epoll``, the same again, and ``c_epoll`` with a busy
loop of 262 ns and of 800 ns for each message, which is to slow it by 5% and by something under 20%. The
verdicts compare two of them at a time, as if only these had been measured: all 10 blocks as a full run
would, or the first 5 as a quick one. So the comparisons of one run share the trials of its baseline.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.experiments import ExperimentFailed
from benchmarks.judge.compare import MARGIN, compare
from benchmarks.judge.scatter import prior
from benchmarks.judge.statistics import Estimate, Verdict, bootstrap, decide, holm, paired, unpaired
from benchmarks.reports.report import Report

RESULTS: Final = Path(__file__).parents[1] / "results" / "verdict_quality"
SERVER: Final = "c_epoll"
BUSY_NS: Final = {"slowed by 262 ns": 262, "slowed by 800 ns": 800}
NOISE_SERVER: Final = "asyncio_protocol"
NOISE: Final = {1: "one after the other", 10: "in 10 slices in turn"}
COMPARISONS: Final = (
    ("again", 10),
    ("slowed by 262 ns", 10),
    ("again", 5),
    ("slowed by 262 ns", 5),
    ("slowed by 800 ns", 5),
)
"""(candidate, blocks) that the verdicts are on."""
PARAMETERS: Final[dict[str, Any]] = {
    "connections": 200,
    "warmup": 0.2,
    "seconds": 0.6,
    "slices": 10,
    "blocks": 10,
}


def measure(directory: Path, runs: int, limit: int) -> int:
    """Measure up to ``limit`` of the ``runs`` that ``directory`` lacks; returns how many are left."""
    from benchmarks.measure import runner
    from benchmarks.measure.scenarios import SCENARIOS
    from benchmarks.measure.servers import slowed

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


def judged(report: Report, candidate: str, blocks: int) -> tuple[Verdict, float]:
    """The plainest verdict on ``candidate`` over all primary metrics, and the ratio of the first one."""
    result = compare([subset(report, ["baseline", candidate], blocks)], [report.id])
    found = [c for c in result.comparisons if c.verdict is not None]
    said = {c.verdict for c in found}
    for verdict in (Verdict.SLOWER, Verdict.FASTER, Verdict.UNCLEAR):
        if verdict in said:
            return verdict, found[0].estimate.ratio
    return Verdict.SAME, found[0].estimate.ratio


def measured(directory: Path) -> list[Report]:
    """The runs that are in ``directory``. Raises ExperimentFailed where there is none."""
    reports = [Report.load(path) for path in sorted(directory.glob("run-*.json"))]
    if not reports:
        raise ExperimentFailed(
            f"{directory} has no runs: they are in the sources, not in the installed package; make your own "
            "with python -m benchmarks experiment verdict-quality measure --directory DIR"
        )
    return reports


def verdict_table(directory: Path) -> str:
    """What was said of every run, as a Markdown table. Raises ExperimentFailed where there is none."""
    reports = measured(directory)
    lines = [
        "| candidate | blocks | runs | slower | faster | same | unclear | ratios found | middle |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for candidate, blocks in COMPARISONS:
        found = [judged(report, candidate, blocks) for report in reports]
        counts = Counter(verdict for verdict, _ in found)
        ratios = [ratio for _, ratio in found]
        cells = [counts[v] for v in (Verdict.SLOWER, Verdict.FASTER, Verdict.SAME, Verdict.UNCLEAR)]
        lines.append(
            f"| {candidate} | {blocks} | {len(found)} | {' | '.join(map(str, cells))} "
            f"| {min(ratios):.3f}–{max(ratios):.3f} | {statistics.median(ratios):.3f} |"
        )
    return "\n".join(lines)


def measure_noise(directory: Path) -> None:
    """Measure one server against itself, with slices and without, unless ``directory`` has it already."""
    from benchmarks.measure import runner
    from benchmarks.measure.scenarios import SCENARIOS
    from benchmarks.measure.servers import SERVERS

    scenario = SCENARIOS["confirm"]
    servers = [dataclasses.replace(SERVERS[NOISE_SERVER], name=name) for name in ("baseline", "again")]
    for slices in NOISE:
        path = directory / f"noise-{slices}.json"
        if not _complete(path):
            runner.run(scenario, servers, {**scenario.defaults, **PARAMETERS, "slices": slices}, path)


def noise_table(directory: Path) -> str:
    """How much the ratio of a server with itself scatters from block to block, as a Markdown table."""
    lines = ["| measured | blocks | standard deviation of the ratio in a block |", "|---|---:|---:|"]
    for slices, name in NOISE.items():
        report = Report.load(directory / f"noise-{slices}.json")
        one, two = (
            [trial.values["server_cpu_us_per_message"] for trial in report.trials_of(server)]
            for server in ("baseline", "again")
        )
        logs = [math.log(second / first) for first, second in zip(one, two, strict=True)]
        lines.append(f"| {name} | {len(logs)} | {statistics.stdev(logs):.1%} |")
    return "\n".join(lines)


def coverage(trials: int = 1000) -> str:
    """How often intervals hold the truth under three kinds of noise: those used, and a bootstrap's."""
    rng = np.random.default_rng(1)
    kinds: dict[str, Callable[[int], Any]] = {
        "normal": lambda n: rng.standard_normal(n),
        "heavy tails (Student, 3 degrees)": lambda n: rng.standard_t(3, n),
        "one block in 10 six times as noisy": lambda n: (
            rng.standard_normal(n) * np.where(rng.random(n) < 0.1, 6, 1)
        ),
    }
    lines = ["| noise | blocks | paired | a bootstrap of it | two runs |", "|---|---:|---:|---:|---:|"]
    for name, draw in kinds.items():
        for blocks in (5, 6, 10):
            held: Counter[str] = Counter()
            for _ in range(trials):
                one, two = np.exp(0.02 * draw(blocks)).tolist(), np.exp(0.02 * draw(blocks)).tolist()
                for method, estimate in (("paired", paired(one, two)), ("two runs", unpaired(one, two))):
                    held[method] += estimate.low <= 1 <= estimate.high
                low, high = bootstrap(one, two)
                held["bootstrap"] += low <= 1 <= high
            shares = " | ".join(f"{held[m] / trials:.1%}" for m in ("paired", "bootstrap", "two runs"))
            lines.append(f"| {name} | {blocks} | {shares} |")
    return "\n".join(lines)


SCATTERS: Final[dict[str, Callable[[np.random.Generator, int], Any]]] = {
    "3% each": lambda rng, servers: np.full(servers, 0.03),
    "unlike, 1% to 9%": lambda rng, servers: 0.03 * np.exp(rng.uniform(-1.1, 1.1, servers)),
    "one of 20%, others 3%": lambda rng, servers: np.where(np.arange(servers) == 1, 0.2, 0.03),
}
"""Standard deviations of the servers of a run."""


def quick_run(
    rng: np.random.Generator, deviations: Any, blocks: int, ratio: float = 1.0
) -> tuple[list[Estimate], list[float]]:
    """A simulated run: each other server's estimate against the first, and its corrected p.

    All are the same but for the last, which costs ``ratio`` times as much.
    """
    servers = len(deviations)
    values = np.exp(deviations[:, None] * rng.standard_normal((servers, blocks)) + rng.normal(0, 0.1, blocks))
    values[-1] *= ratio
    pairs = [(values[0].tolist(), other.tolist()) for other in values[1:]]
    scatters = [paired(*pair).scatter for pair in pairs]
    found = []
    for index, (one, two) in enumerate(pairs):
        others = scatters[:index] + scatters[index + 1 :]
        found.append(paired(one, two, servers - 1, prior(others, blocks - 1)))
    return found, holm([estimate.p for estimate in found])


def few_blocks(runs: int = 1000) -> str:
    """How often any of the equal servers of a quick run is called slower or faster, as a Markdown table."""
    lines = [
        "| servers | blocks | scatter of a server | runs with a wrong verdict | twice as slow: found |",
        "|---:|---:|---|---:|---:|",
    ]
    rng = np.random.default_rng(1)
    for servers, blocks in ((3, 3), (5, 3), (9, 3), (14, 3), (9, 5)):
        for name, draw in SCATTERS.items():
            wrong = found = 0
            for _ in range(runs):
                wrong += any(map(differs, *quick_run(rng, draw(rng, servers), blocks)))
                estimates, ps = quick_run(rng, draw(rng, servers), blocks, 2.0)
                found += differs(estimates[-1], ps[-1])
            lines.append(f"| {servers} | {blocks} | {name} | {wrong / runs:.1%} | {found / runs:.1%} |")
    return "\n".join(lines)


def differs(estimate: Estimate, p: float) -> bool:
    """Whether it is called slower or faster: with the default margin, and a noise floor as a run's own."""
    floor = math.expm1(1.96 * estimate.scatter / math.sqrt(estimate.n))
    return decide(estimate, p, MARGIN, floor, True) in (Verdict.SLOWER, Verdict.FASTER)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("part", choices=["measure", "verdicts", "noise", "coverage", "few-blocks"])
    parser.add_argument("--directory", type=Path, default=RESULTS, help="where the reports are")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--limit", type=int, default=1000, help="measure at most so many runs now")
    help = "runs that coverage and few-blocks simulate for a figure (%(default)s)"
    parser.add_argument("--trials", type=int, default=1000, help=help)


def run(arguments: argparse.Namespace) -> int:
    """Run a part; returns the exit status."""
    if arguments.part == "measure":
        arguments.directory.mkdir(parents=True, exist_ok=True)
        left = measure(arguments.directory, arguments.runs, arguments.limit)
        print(f"{left} runs left to measure")
    elif arguments.part == "verdicts":
        print(verdict_table(arguments.directory))
    elif arguments.part == "noise":
        arguments.directory.mkdir(parents=True, exist_ok=True)
        measure_noise(arguments.directory)
        print(noise_table(arguments.directory))
    elif arguments.part == "few-blocks":
        print(few_blocks(arguments.trials))
    else:
        print(coverage(arguments.trials))
    return 0
