"""The whole story in about a minute: serve, load with Locust, measure, compare, chat. ``make demo`` runs it.

It starts this project's server and puts 500 Locust users on it, does the same with a server that has
a thread per client, measures both side by side, compares them, and fills a chat room. Every command is
shown before it runs, so that each can be repeated by hand. All that it starts, it stops, also on Ctrl-C.
``--quick`` takes the same steps with 20 users for a second: to see that all of it works.

Each part ends with what it can stand for. Fresh servers that are measured in turn, in several blocks, give a
verdict; one run of Locust on each server, and one room, give figures, which are called that.
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
from urllib.parse import urlsplit

from rich.console import Console
from rich.rule import Rule
from rich.status import Status

from benchmarks.commands import labels
from benchmarks.judge.compare import compare
from benchmarks.measure import chat_room
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
    members: int
    speakers: int
    talk: float


FULL: Final = Size(500, 250, "8s", 1000, 6, 1, 0.3, 200, 20, 4)
QUICK: Final = Size(20, 20, "1s", 20, 1, 0.2, 0, 10, 3, 0.5)

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
        line = process.stdout.readline() if select.select([process.stdout], [], [], 60)[0] else ""
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


def _verdict(path: str) -> str:
    """What ``compare`` says first of a report."""
    return wording.headline(compare([Report.load(path)], labels([path])))


def _figures(paths: dict[str, str], size: Size) -> str:
    """What one run of Locust on each server was, and that it is no verdict."""
    found = []
    for name, path in paths.items():
        trials = Report.load(path).trials  # parts of the one run
        rate = sum(each.messages for each in trials) / sum(each.seconds for each in trials)
        found.append(f"{rate:,.0f} a second with {name}")
    return (
        f"messages of {size.users} Locust users: {' and '.join(found)}. Figures of one run each, no verdict: "
        "two runs of the same server differ too."
    )


def _chat(size: Size) -> str:
    """Fill a room of the chat service, and have some talk; returns what was heard. Raises StepFailed."""
    server = [_tool("chat-gevent"), "serve", "--handler", "chat_gevent.rooms:Rooms", "--port", "0"]
    with _server(server) as address:
        url = urlsplit(address)
        assert url.hostname
        assert url.port
        try:
            talk = chat_room.talk(url.hostname, url.port, size.members, size.speakers, size.talk)
        except OSError as error:
            raise StepFailed(f"the chat room: {error}") from None
    console.print("what ann sees:", style="dim")
    for line in (*talk.seen[:4], "...", *talk.seen[-3:]):
        console.print(f"  {line}", markup=False, soft_wrap=True)
    if talk.missing:
        raise StepFailed(
            f"the chat room: {talk.missing:,} of {talk.said * talk.members:,} lines did not arrive"
        )
    return (
        f"{talk.said:,} lines said by {talk.speakers} of {talk.members} in a room: all {len(talk.late):,} "
        f"deliveries arrived, half of them within {talk.lateness(0.5) * 1000:.1f} ms and 99% within "
        f"{talk.lateness(0.99) * 1000:.1f} ms. Figures of one run."
    )


def _steps(reports: Path, size: Size) -> list[str]:
    """Take all steps; returns what each part can say."""
    reports.mkdir(exist_ok=True)
    servers = {
        "threads": python("-m", "benchmarks.measure.servers.threads", "--port", "0"),
        "chat_gevent": [_tool("chat-gevent"), "serve", "--port", "0"],
    }
    ends: list[str] = []
    for name in ("chat_gevent", "threads"):
        console.print(Rule(f"{name}: {size.users} Locust users"))
        with _server(servers[name]) as address:
            report = str(reports / f"locust-{name}.json")
            locust = python("-m", "loadtest", "--host", address, "--headless")
            users = ["-u", str(size.users), "-r", str(size.spawn_rate), "-t", size.run_time]
            _run([*locust, *users, "--report", report], live="Aggregated")
    both = {name: str(reports / f"locust-{name}.json") for name in ("chat_gevent", "threads")}
    _end_part(ends, "Locust", _figures(both, size))
    console.print(Rule(f"side by side: {size.connections:,} clients, fresh servers in turn"))
    report = str(reports / "confirm.json")
    page = str(reports / "confirm.html")
    side_by_side = ["--servers", ",".join(servers), *_measure(size), "--output", report]
    _run(python("-m", "benchmarks", "run", "confirm", *side_by_side))
    _run(python("-m", "benchmarks", "compare", report, "--html", page), statuses=(0, 1, 3))
    _end_part(ends, "Side by side", _verdict(report))
    console.print(Rule(f"a chat room: {size.members} clients, {size.speakers} of them speak"))
    _end_part(ends, "Chat room", _chat(size))
    console.print(Rule())
    console.print("Reports:", *(str(path) for path in sorted(reports.iterdir())), sep="\n  ")
    return ends


def _end_part(ends: list[str], part: str, said: str) -> None:
    """Say how a part ends, and keep it for the end of all."""
    ends.append(f"{part}: {said}")
    console.print(ends[-1], style="bold", markup=False)


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
        ends = _steps(reports, size)
    except StepFailed as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped; so is all that it started", file=sys.stderr)
        return 130
    console.print(f"done in {time.monotonic() - started:.0f} s\n")
    # Once more, because tables and warnings have moved them off the screen.
    for said in ends:
        console.print(said, style="bold", markup=False)
    return 0
