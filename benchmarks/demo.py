"""The whole story in about a minute: serve, load with Locust, measure, compare. ``make demo`` runs it.

It starts this project's server and puts 500 Locust users on it, does the same with the
thread-per-client server that it replaces, measures both side by side, and compares the reports. Every
command is shown before it runs, so that each can be repeated by hand. All that it starts, it stops,
also on Ctrl-C. ``--quick`` takes the same steps with 20 users for a second: to see that all of it works.
"""

from __future__ import annotations

import contextlib
import importlib.util
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.rule import Rule
from rich.status import Status

from benchmarks.commands import labels
from benchmarks.judge.compare import compare
from benchmarks.measure.launch import environment, python
from benchmarks.reports.report import Report
from benchmarks.show import wording

REPORTS: Final = Path("demo-reports")


@dataclass(frozen=True, slots=True)
class Size:
    """How much load, and for how long (Locust's way of saying it, and seconds)."""

    users: int
    spawn_rate: int
    run_time: str
    connections: int
    blocks: int
    seconds: float
    warmup: float


FULL: Final = Size(500, 250, "8s", 1000, 6, 1, 0.3)
QUICK: Final = Size(20, 20, "1s", 20, 1, 0.2, 0)

console = Console(highlight=False)


class StepFailed(RuntimeError):
    """A command of the demo ended with an error; the message says which."""


def _tool(name: str) -> str:
    """The path of a command that is installed beside this interpreter."""
    return str(Path(sys.executable).with_name(name))


def _show(command: list[str]) -> None:
    words = [Path(command[0]).name, *(word for word in command[1:] if word != "-P")]
    console.print(f"[bold green]$[/] [bold]{shlex.join(words)}[/]", soft_wrap=True)


def _end(process: subprocess.Popen[str]) -> None:
    """Ask a process to end, and see to it that it does."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout:
        process.stdout.close()


@contextlib.contextmanager
def _process(
    command: list[str], stderr: int | None = None, *, quiet: bool
) -> Iterator[subprocess.Popen[str]]:
    """A process that has ended when the ``with`` has; its output is read where it is ``quiet``.

    It has a session of its own: Ctrl-C is for the demo, which then ends what it started, in order. A signal
    that comes while it starts is kept until it is known here, or nobody would end it.
    """
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in numbers}
    process = None
    try:
        try:
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE if quiet else None,
                stderr=stderr,
                text=True,
                start_new_session=True,
                env=environment(),
            )
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if came:
            raise KeyboardInterrupt
        yield process
    finally:
        if process is not None:
            _end(process)


@contextlib.contextmanager
def _server(command: list[str]) -> Iterator[str]:
    """Start a server; yields the address that its ready line names."""
    _show(command)
    with _process(command, quiet=True) as process:
        assert process.stdout
        line = process.stdout.readline() if select.select([process.stdout], [], [], 20)[0] else ""
        if not line.startswith("ready "):
            raise StepFailed(f"{shlex.join(command)} did not get ready")
        console.print(line.rstrip())
        yield line.split()[1]


def _run(command: list[str], live: str = "", statuses: tuple[int, ...] = (0,)) -> None:
    """Run a command to its end. With ``live``, only the line that begins so is shown, as it changes.

    Raises StepFailed: its exit status is none of ``statuses``.
    """
    _show(command)
    said = []
    with _process(command, subprocess.STDOUT if live else None, quiet=bool(live)) as process:
        if process.stdout:
            last = ""
            # Not console.status(), which imports Status only now: Ctrl-C within a class that dataclass()
            # makes is remembered by CPython, and the exit status is then that of a death by SIGINT.
            with Status("starting ...", console=console) as status:
                for line in process.stdout:
                    said.append(line)
                    if line.lstrip().startswith(live) and "|" in line:
                        last = " ".join(line.split()[1:])
                        status.update(last)
            if last:
                console.print(
                    "requests, failures | average, min, max, median \\[ms] | requests/s, failures/s",
                    style="dim",
                )
                console.print(last)
        code = process.wait()
    if code not in statuses:
        console.print("".join(said[-20:]), markup=False)
        raise StepFailed(f"{shlex.join(command)} ended with status {code}")


def _verdict(paths: list[str]) -> str:
    """What ``compare`` says first of these reports."""
    return wording.headline(compare([Report.load(path) for path in paths], labels(paths)))


def _steps(reports: Path, size: Size) -> list[str]:
    """Take all steps; returns the verdict of each comparison."""
    reports.mkdir(exist_ok=True)
    servers = {
        "threads": python("-m", "benchmarks.measure.servers.threads", "--port", "0"),
        "chat_gevent": [_tool("chat-gevent"), "serve", "--port", "0"],
    }
    for name in ("chat_gevent", "threads"):
        console.print(Rule(f"{name}: {size.users} Locust users"))
        with _server(servers[name]) as address:
            report = str(reports / f"locust-{name}.json")
            locust = python("-m", "loadtest", "--host", address, "--headless")
            users = ["-u", str(size.users), "-r", str(size.spawn_rate), "-t", size.run_time]
            _run([*locust, *users, "--report", report], live="Aggregated")
    both = [str(reports / f"locust-{name}.json") for name in servers]
    console.print(Rule("the two Locust runs"))
    _run(python("-m", "benchmarks", "compare", *both), statuses=(0, 1, 3))
    console.print(Rule(f"side by side: {size.connections:,} clients, fresh servers in turn"))
    report = str(reports / "confirm.json")
    page = str(reports / "confirm.html")
    side_by_side = ["--servers", ",".join(servers), *_measure(size), "--output", report]
    _run(python("-m", "benchmarks", "run", "confirm", *side_by_side))
    _run(python("-m", "benchmarks", "compare", report, "--html", page), statuses=(0, 1, 3))
    console.print(Rule())
    console.print("Reports:", *(str(path) for path in sorted(reports.iterdir())), sep="\n  ")
    return [f"The two Locust runs: {_verdict(both)}", f"Side by side: {_verdict([report])}"]


def _measure(size: Size) -> list[str]:
    names = ("connections", "blocks", "seconds", "warmup")
    return [word for name in names for word in (f"--{name}", f"{getattr(size, name):g}")]


def run(reports: Path = REPORTS, size: Size = FULL) -> int:
    """Run the demo: 0; 1 where a step failed; 130 after Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if importlib.util.find_spec("locust") is None:
        print("demo: locust is not installed: pip install 'chat-gevent[loadtest,bench]'", file=sys.stderr)
        return 1
    started = time.monotonic()
    try:
        verdicts = _steps(reports, size)
    except StepFailed as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped; so is all that it started", file=sys.stderr)
        return 130
    console.print(f"done in {time.monotonic() - started:.0f} s\n")
    # Once more, because tables and warnings have moved them off the screen.
    for verdict in verdicts:
        console.print(verdict, style="bold", markup=False)
    return 0
