"""Running the real ``locust`` command from a test, while servers of the test's process go on serving."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from gevent import subprocess as gevent_subprocess

from benchmarks.reports.report import Report

ROOT = Path(__file__).parents[2]
LOCUSTFILE = ROOT / "loadtest" / "locustfile.py"
LIMIT: Final = 150
"""Seconds within which a run of a few seconds ends, on a machine that is busy with other things."""
LOCUST = (sys.executable, "-W", "ignore", "-m", "locust")
PATIENT = (
    *(sys.executable, "-W", "ignore", "-c"),
    "import sys, locust.runners; locust.runners.HEARTBEAT_LIVENESS = 100; sys.argv[0] = 'locust'; "
    "from locust.main import main; main()",
)
"""The same command, but for one number: its master waits 100 s for a worker's heartbeat. After the usual 3 s
it takes a worker that a busy machine lets wait for one that is lost, and stops the test when all are."""
HASTY = (
    *(sys.executable, "-W", "ignore", "-c"),
    "import sys, locust.runners; locust.runners.HEARTBEAT_DEAD_INTERNAL = -3; sys.argv[0] = 'locust'; "
    "from locust.main import main; main()",
)
"""The same command, but for one number: its master gives a missing worker up after 3 s and not 60."""


class Run:
    """A finished run: exit status, everything it printed, and its report where it wrote one."""

    def __init__(self, status: int, output: str, path: Path) -> None:
        self.status = status
        self.output = output
        self._path = path

    @property
    def report(self) -> Report:
        """The report, read as ``python -m benchmarks compare`` reads it."""
        return Report.load(self._path)

    def total(self, name: str) -> float:
        """A figure summed over the report's trials."""
        if name in ("messages", "failed"):
            trials = self.report.trials
            return sum(t.messages if name == "messages" else sum(t.errors.values()) for t in trials)
        return sum(trial.values.get(name, 0.0) for trial in self.report.trials)

    @property
    def errors(self) -> dict[str, int]:
        """Errors by entry and group."""
        found: dict[str, int] = {}
        for trial in self.report.trials:
            for group, count in trial.errors.items():
                found[group] = found.get(group, 0) + count
        return found


def start(
    host: str,
    *options: str,
    locustfile: Path = LOCUSTFILE,
    prefix: tuple[str, ...] = (),
    own_group: bool = False,
    locust: tuple[str, ...] = PATIENT,
) -> Any:
    """Start Locust without a page; ``communicate`` gives what it printed. In ``own_group`` it is interrupted
    with all its processes by ``os.killpg``, as at a terminal. ``locust`` is one of the commands above."""
    command = [
        *prefix,
        *locust,
        "-f",
        str(locustfile),
        "--host",
        host,
        "--headless",
        "--only-summary",
        *options,
    ]
    return gevent_subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=dict(os.environ),
        start_new_session=own_group,
    )


def run(folder: Path, host: str, *options: str, locustfile: Path = LOCUSTFILE, name: str = "report") -> Run:
    """Run Locust to its end."""
    path = folder / f"{name}.json"
    process = start(host, "--report", str(path), *options, locustfile=locustfile)
    try:
        output, _ = process.communicate(timeout=LIMIT)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return Run(process.returncode, output, path)
