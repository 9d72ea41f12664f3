"""How many connections can Locust users hold, and what does each take of the generator's memory?

With one process, a fresh ``python -m loadtest`` holds a quarter, a half, three quarters and all of the users,
and the growth of its anonymous memory per user is fitted (heap and stacks, by /proc/PID/smaps_rollup; its
share of files' pages depends on what else is running). With ``--processes 3 --users 50000`` the users are
spread over worker processes, and what is printed is how many connections were open at a time and how many
messages on them were confirmed.
The server is as small as one can be, in several processes that share a port.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.experiments import ExperimentFailed
from benchmarks.measure.launch import environment, python
from benchmarks.measure.probe import anonymous_bytes
from benchmarks.reports.report import Report

STEPS: Final = 4
CLIENTS_PER_SERVER: Final = 15_000
RAMP_SECONDS: Final = 120
"""How long users may take to connect."""


@contextmanager
def servers(clients: int) -> Iterator[int]:
    """Server processes for so many clients, on one port, which this gives."""
    processes: list[subprocess.Popen[str]] = []
    port = 0
    try:
        for _ in range(clients // CLIENTS_PER_SERVER + 1):
            command = python("-m", "benchmarks.experiments.programs.shared_port_server", str(port))
            processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()))
            output = processes[-1].stdout
            assert output is not None
            port = int(output.readline())
        yield port
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def command(port: int, users: int, pause: float, report: Path, *options: str) -> list[str]:
    """Locust with users that hold their connections, and say something every ``pause`` seconds."""
    load = ["--host", f"tcp://127.0.0.1:{port}", "-u", str(users), "-r", "1500", "--hold", f"{pause:g}"]
    load += ["--source-addresses", "127.0.0.2-127.0.0.5", "--connect-timeout", "20", "--report", str(report)]
    return python("-m", "loadtest", "--headless", "--only-summary", *load, *options)


def memory(port: int, users: int, pause: float, report: Path) -> int:
    """The anonymous memory of one process with so many users that all have said something, in bytes."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command(port, users, pause, report), stdout=output, stderr=output, env=environment()
        )
        try:
            files = Path(f"/proc/{process.pid}/fd")
            deadline = time.monotonic() + RAMP_SECONDS
            while process.poll() is None and sum(1 for _ in files.iterdir()) < users:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.1)
            time.sleep(1.5 * pause)  # every user has had its turn to send
            used = anonymous_bytes([process.pid]) if process.poll() is None else 0
        finally:
            process.terminate()
            process.wait()
        if process.returncode or not used:
            output.seek(0)
            raise ExperimentFailed(f"Locust ended with exit status {process.returncode}:\n{output.read()}")
    return used


def one_process(users: int, pause: float) -> dict[str, Any]:
    """Memory per user in one process."""
    held = [users * step // STEPS for step in range(1, STEPS + 1)]
    with servers(users) as port, tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        used = [memory(port, number, pause, report) for number in held]
        found = counts(report)
    return {**found, "kib_per_user": statistics.linear_regression(held, used).slope / 1024}


def many_processes(users: int, processes: int, seconds: int) -> dict[str, Any]:
    """Users over several processes."""
    with servers(users) as port, tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        options = ["--processes", str(processes), "-t", f"{seconds}s"]
        done = subprocess.run(
            command(port, users, 20, report, *options),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=environment(),
        )  # fmt: skip
        if done.returncode:
            raise ExperimentFailed(f"Locust ended with exit status {done.returncode}:\n{done.stdout}")
        return counts(report)


def counts(path: Path) -> dict[str, Any]:
    """What the report of a run says of its connections and messages."""
    report = Report.load(path)
    return {
        "open": int(max(trial.values["connections"] for trial in report.trials)),
        "messages": sum(trial.messages for trial in report.trials),
        "failures": sum(sum(trial.errors.values()) for trial in report.trials),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add = parser.add_argument
    add("--users", type=int, default=15_000, help="(%(default)s)")
    add("--processes", type=int, default=1, help="(%(default)s)")
    add("--seconds", type=int, default=75, help="length of a run over several processes (%(default)s)")
    add("--pause", type=float, default=5.0, help="seconds between two messages of a user (%(default)s)")
    add("--json", action="store_true", help="print the figures as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    if arguments.processes > 1:
        found = many_processes(arguments.users, arguments.processes, arguments.seconds)
    else:
        found = one_process(arguments.users, arguments.pause)
    if arguments.json:
        print(json.dumps(found))
        return 0
    print(f"{found['open']:,} connections held in {arguments.processes} process(es)")
    print(f"{found['messages']:,} messages confirmed on them, {found['failures']:,} requests failed")
    if "kib_per_user" in found:
        print(f"{found['kib_per_user']:.1f} KiB of the generator's memory for each user")
    return 0
