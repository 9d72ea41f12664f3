"""The command line: ``python -m benchmarks list | run | compare | show | history | demo``."""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

PARAMETERS: dict[str, tuple[type, str]] = {
    "connections": (int, "connections held"),
    "blocks": (int, "blocks; each measures every server once"),
    "seconds": (float, "length of the measurement, in seconds"),
    "slices": (int, "turns a server takes within a block; 1 measures the servers one after the other"),
    "warmup": (float, "load before the measurement, in seconds"),
    "size": (int, "bytes of a message without its terminator"),
    "depth": (int, "messages under way on a connection"),
}


def _run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from benchmarks import runner
    from benchmarks.report import Report, Trial
    from benchmarks.scenarios import SCENARIOS
    from benchmarks.servers import SERVERS, Server, find

    scenario = SCENARIOS[arguments.scenario]
    parameters: dict[str, Any] = dict(scenario.defaults)
    if arguments.quick:
        parameters |= scenario.quick
    if arguments.full:
        parameters |= scenario.full
    for name in PARAMETERS:
        value = getattr(arguments, name)
        if value is not None:
            parameters[name] = value
    servers = (
        [find(name) for name in arguments.servers.split(",")] if arguments.servers else list(SERVERS.values())
    )
    console = Console(stderr=True)

    def done(report: Report, trial: Trial | None) -> None:
        if trial:
            figures = "  ".join(
                f"{trial.values[name]:.2f} {m.unit} {name}"
                for name, m in report.metrics.items()
                if name in trial.values
            )
            console.print(f"block {trial.block} {trial.server:20} {figures}")

    report = runner.run(scenario, servers, parameters, Path(arguments.output), done=done)
    _table(report)
    return 0 if report.complete else 1


def _table(report: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{report.scenario} {report.parameters}")
    table.add_column("server")
    primary = next(name for name, metric in report.metrics.items() if metric.primary)
    for name, metric in report.metrics.items():
        table.add_column(f"{metric.title} [{metric.unit}]", justify="right")
    table.add_column(f"ratio to {report.servers[0].name}", justify="right")
    table.add_column("server/gen busy", justify="right")
    base = {t.block: t.values.get(primary) for t in report.trials_of(report.servers[0].name)}
    for server in report.servers:
        trials = report.trials_of(server.name)
        if not trials:
            continue
        cells = [server.name]
        for name in report.metrics:
            values = [t.values[name] for t in trials if name in t.values]
            cells.append(f"{statistics.median(values):,.2f}" if values else "")
        ratios = [
            t.values[primary] / base[t.block] for t in trials if base.get(t.block) and primary in t.values
        ]
        cells.append(
            f"{statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})" if ratios else ""
        )
        busy = [
            f"{statistics.median(t.cpu[k] for t in trials):.0%}"
            for k in ("server", "generator")
            if k in trials[0].cpu
        ]
        cells.append("/".join(busy))
        table.add_row(*cells)
    Console(width=160).print(table)
    for fired in report.warnings:
        print(f"warning: {fired.check}: {fired.server or ''} {fired.message}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    from benchmarks.scenarios import SCENARIOS

    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("scenario", choices=list(SCENARIOS))
    run.add_argument("--servers")
    run.add_argument("--quick", action="store_true")
    run.add_argument("--full", action="store_true")
    run.add_argument("--output", required=True)
    for name, (kind, text) in PARAMETERS.items():
        run.add_argument(f"--{name}", type=kind, help=text)
    arguments = parser.parse_args(argv)
    return _run(arguments)
