"""The whole story in about a minute: serve, load with Locust, measure, compare. ``make demo`` runs it.

It starts this project's server and puts 500 Locust users on it, does the same with the
thread-per-client server that it replaces, measures both side by side, and compares the reports. Every
command is shown before it runs, so that each can be repeated by hand. All that it starts, it stops,
also on Ctrl-C.
"""

from __future__ import annotations

import contextlib
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.rule import Rule

REPORTS: Final = Path("demo-reports")
USERS: Final = ["--headless", "-u", "500", "-r", "250", "-t", "8s"]
MEASURE: Final = ["--connections", "1000", "--blocks", "6", "--seconds", "1", "--warmup", "0.3"]

console = Console(highlight=False)


class StepFailed(RuntimeError):
    """A command of the demo ended with an error; the message says which."""


def _tool(name: str) -> str:
    """The path of a command that is installed beside this interpreter."""
    return str(Path(sys.executable).with_name(name))


def _show(command: list[str]) -> None:
    words = [Path(command[0]).name, *command[1:]]
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
def _server(command: list[str]) -> Iterator[str]:
    """Start a server; yields the address that its ready line names."""
    _show(command)
    # A session of its own: Ctrl-C is for the demo, which then ends what it started, in order.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout
        line = process.stdout.readline() if select.select([process.stdout], [], [], 20)[0] else ""
        if not line.startswith("ready "):
            raise StepFailed(f"{shlex.join(command)} did not get ready")
        console.print(line.rstrip())
        yield line.split()[1]
    finally:
        _end(process)


def _run(command: list[str], live: str = "", statuses: tuple[int, ...] = (0,)) -> None:
    """Run a command to its end. With ``live``, only the line that begins so is shown, as it changes.

    Raises StepFailed: its exit status is none of ``statuses``.
    """
    _show(command)
    output = subprocess.PIPE if live else None
    process = subprocess.Popen(
        command, stdout=output, stderr=subprocess.STDOUT if live else None, text=True, start_new_session=True
    )
    said = []
    try:
        if process.stdout:
            last = ""
            with console.status("starting ...") as status:
                for line in process.stdout:
                    said.append(line)
                    if line.lstrip().startswith(live) and "|" in line:
                        last = " ".join(line.split()[1:])
                        status.update(last)
            if last:
                console.print(
                    "requests, failures | average, min, max, median [ms] | requests/s, failures/s",
                    style="dim",
                )
                console.print(last)
        code = process.wait()
    finally:
        _end(process)
    if code not in statuses:
        console.print("".join(said[-20:]), markup=False)
        raise StepFailed(f"{shlex.join(command)} ended with status {code}")


def _steps() -> None:
    python = sys.executable
    REPORTS.mkdir(exist_ok=True)
    servers = {
        "threads": [python, "-m", "benchmarks.servers.threads", "--port", "0"],
        "chat_gevent": [_tool("chat-gevent"), "serve", "--port", "0"],
    }
    for name in ("chat_gevent", "threads"):
        console.print(Rule(f"{name}: 500 Locust users"))
        with _server(servers[name]) as address:
            report = str(REPORTS / f"locust-{name}.json")
            locust = [_tool("locust"), "-f", "loadtest/locustfile.py", "--host", address, *USERS]
            _run([*locust, "--report", report], live="Aggregated")
    both = [str(REPORTS / f"locust-{name}.json") for name in servers]
    console.print(Rule("the two Locust runs"))
    _run([python, "-m", "benchmarks", "compare", *both], statuses=(0, 1, 3))
    console.print(Rule("side by side: 1,000 clients, fresh servers in turn"))
    report = str(REPORTS / "confirm.json")
    page = str(REPORTS / "confirm.html")
    _run(
        [
            python,
            "-m",
            "benchmarks",
            "run",
            "confirm",
            "--servers",
            ",".join(servers),
            *MEASURE,
            "--output",
            report,
        ]
    )
    _run([python, "-m", "benchmarks", "compare", report, "--html", page], statuses=(0, 1, 3))
    console.print(Rule())
    console.print("Reports:", *(str(path) for path in sorted(REPORTS.iterdir())), sep="\n  ")


def run() -> int:
    """Run the demo: 0; 1 where a step failed; 130 after Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    try:
        _steps()
    except StepFailed as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped; so is all that it started", file=sys.stderr)
        return 130
    console.print(f"done in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(run())
