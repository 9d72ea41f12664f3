"""What does a request cost the load generator: its own CPU time, for several kinds of Locust user.

Each kind runs in a fresh Locust, in turn and in several blocks, against equally trivial servers on another
core. Printed is the CPU time per request of each, and the ratios:

``bare``   the leanest hand-written socket user: ``send``, ``recv``, ``request.fire`` in a loop
``task``   the same as one Locust task per request, as people write it
``tcp``    ``loadtest.tcp_user.ConfirmUser`` with all it does: every reply compared, time-outs, histograms
``own``    a ``TcpUser`` of one's own: ``client.request(message, name=..., expect=...)`` in a loop
``push``   a ``TcpUser`` that takes and counts what the server sends as fast as it goes; pushes, not requests
``http``   Locust's ``FastHttpUser`` and an HTTP server that answers as much

Latency and rate play no part: CPU time per request is how many requests a core can make.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.experiments import ExperimentFailed
from benchmarks.measure.launch import environment, pinned, python

KINDS: Final = ("bare", "task", "tcp", "own", "push", "http")
LOCUSTFILE: Final = Path(__file__).parent / "locustfiles" / "cost.py"
USERS: Final = 100


def measure(kind: str, seconds: float) -> float:
    """Microseconds of the generator's CPU per request, in a fresh pair of processes."""
    cores = sorted(os.sched_getaffinity(0))
    scheme = "http" if kind == "http" else "tcp"
    serves = "push" if kind == "push" else scheme
    serve = python("-m", "benchmarks.experiments.programs.trivial_server", serves)
    with tempfile.TemporaryDirectory() as folder, pinned(cores[:1]):
        figures = Path(folder, "figures.json")
        with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True, env=environment()) as server:
            try:
                assert server.stdout is not None
                host = f"{scheme}://127.0.0.1:{server.stdout.readline().strip()}"
                users = ["-u", str(USERS), "-r", str(USERS), "--host", host]
                variables = {"COST_KIND": kind, "COST_SECONDS": str(seconds), "COST_FIGURES": str(figures)}
                with pinned(cores[-1:]):
                    done = subprocess.run(
                        python("-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary", *users),
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT,
                        text=True,
                        check=False,
                        timeout=seconds + 60,
                        env=environment(variables),
                        cwd=LOCUSTFILE.parent,  # Locust looks for modules in the current folder first
                    )
            finally:
                server.kill()
        if not figures.exists():
            raise ExperimentFailed(f"{kind} ended with exit status {done.returncode}:\n{done.stdout}")
        found = json.loads(figures.read_text())
    if found["failures"] or not found["requests"]:
        raise ExperimentFailed(f"{kind}: {found['failures']} failures, {found['requests']} requests")
    return float(found["cpu"] / found["requests"] * 1e6)


def kinds(text: str) -> list[str]:
    """The kinds in ``text``, which commas separate."""
    chosen = text.split(",")
    if unknown := set(chosen) - set(KINDS):
        raise argparse.ArgumentTypeError(
            f"unknown kinds: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}"
        )
    return chosen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--blocks", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement (%(default)s)")
    parser.add_argument("--kinds", type=kinds, default=",".join(KINDS), help="(%(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Measure in blocks and print medians, and ratios taken block by block."""
    costs: dict[str, list[float]] = {kind: [] for kind in arguments.kinds}
    for block in range(arguments.blocks):
        for kind in arguments.kinds if block % 2 == 0 else arguments.kinds[::-1]:
            costs[kind].append(measure(kind, arguments.seconds))
            print(f"block {block}: {kind:<5} {costs[kind][-1]:6.2f} µs a request", file=sys.stderr)
    for kind in arguments.kinds:
        median = statistics.median(costs[kind])
        row = f"{kind:<5} {median:6.2f} µs a request, {1e6 / median:9,.0f} requests a second and core"
        if "bare" in costs:
            ratios = [one / bare for one, bare in zip(costs[kind], costs["bare"], strict=True)]
            row += f", {statistics.median(ratios):.2f} of bare ({min(ratios):.2f} to {max(ratios):.2f})"
        print(row)
    return 0
