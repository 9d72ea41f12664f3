"""Run the console blocks of a page in order, and compare what they print with what the page shows.

A page is run in a folder of its own, in which the checkout's files are linked, and in a network namespace of
its own, so that ports are the ones that the page names. A ``console`` block has ``$`` before each command and
its output below; an ``sh`` block has commands alone. What stands behind ``  #`` is a comment. A command that
serves until it is stopped stays for the commands after it, until the next one that serves.

In an output a line ``...`` stands for any lines, ``...`` in a line for any text, and each number for any
number. Lines are compared by their words.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.conftest import require, require_tool

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("chat_gevent", "loadtest", "benchmarks")

PAGES: Final = sorted(
    str(page.relative_to(ROOT))
    for page in (*ROOT.glob("*.md"), *(p for name in PACKAGES for p in (ROOT / name).rglob("*.md")))
)
"""All pages, as paths from the top of the checkout."""

SERVES: Final = re.compile(
    r"(\w+=\S+ )*(chat-gevent serve|gunicorn|python -m loadtest record|python store\.py|"
    r"python -m benchmarks\.measure\.servers\.\w+)\b(?!.*--(help|print-config))"
)
"""Commands that go on until they are stopped."""

READY: Final = re.compile(r"^ready |Listening at: |recording ", re.MULTILINE)
"""What such a command says when it is ready."""

SECONDS: Final = 120
"""Most that a command may take on a busy machine. What takes over 10 s has a shorter form in ``SHORTER``."""

LASTS: Final = re.compile(r"(?:-t|--run-time)[ =](\d+)s|--(?:seconds|minutes|hold)[ =]([\d.]+)\b")
"""How a command says that it is to take so long."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a page, and the lines of output that the page shows below it."""

    line: int
    text: str
    output: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shorter:
    """What is run instead of a command: the same options with smaller numbers, and why.

    ``compare`` is whether the output is compared; ``stop`` has the servers stopped after it.
    """

    command: str
    why: str
    compare: bool = False
    stop: bool = False


def commands(text: str) -> list[Command]:
    """The commands of a page's console and sh blocks. Raises ValueError for output before any command."""
    found: list[Command] = []
    kind = ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            kind = line.removeprefix("```").strip() if not kind else ""
            kind = kind or ("other" if line != "```" else "")
        elif kind == "console" and line.startswith("$ "):
            found.append(Command(number, _uncommented(line.removeprefix("$ "))))
        elif kind == "sh" and line.strip() and not line.startswith("#"):
            found.append(Command(number, _uncommented(line)))
        elif kind == "console":
            if not found:
                raise ValueError(f"line {number}: output before any command")
            last = found[-1]
            found[-1] = Command(last.line, last.text, (*last.output, line))
    return found


def _uncommented(line: str) -> str:
    return re.sub(r"\s{2,}#.*$|\s+#\s.*$", "", line).rstrip()


def matches(expected: Sequence[str], printed: str) -> bool:
    """Whether ``printed`` is what the page shows, by the pattern language of this module."""
    parts = []
    for line in (line for line in expected if line.strip()):
        if line.strip() in ("...", "…"):
            parts.append(r"(?:.*\n)*?")
            continue
        words = [
            re.sub(r"\\d", r"\\d", _numbers(re.escape(word))).replace(re.escape("..."), ".*")
            for word in line.split()
        ]
        parts.append(r"\s*" + r"\s+".join(words) + r"\s*\n")
    kept = "".join(line.rstrip() + "\n" for line in printed.splitlines() if line.strip())
    return re.fullmatch("".join(parts), kept) is not None


def _numbers(pattern: str) -> str:
    return re.sub(r"\d+(?:(?:\\\.|,)\d+)*", lambda _: r"\\?[-\d.,]+", pattern)


@dataclass(slots=True)
class Session:
    """The folder and the namespace in which the commands of a page run. It is a context manager."""

    folder: Path
    preamble: list[str] = field(default_factory=list)
    """Lines that hold for all later commands: ``export`` and activation of an environment."""
    _servers: list[tuple[subprocess.Popen[bytes], Path]] = field(default_factory=list)
    _kept: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _namespace: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Session:
        require(os.geteuid() == 0, "root, for a network namespace")
        for tool in ("unshare", "nsenter", "ip"):
            require_tool(tool)
        for each in (*ROOT.iterdir(),):
            if each.name not in (".git", "build", "dist", "demo-reports", ".pytest_cache", "test-output"):
                (self.folder / each.name).symlink_to(each)
        self._namespace = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 100000"],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._namespace.stdout is not None
        if self._namespace.stdout.readline() != b"up\n":
            self._namespace.wait()
            require(False, "a network namespace")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for each in (*self._kept, *([self._namespace] if self._namespace else ())):
            _end(each)

    @property
    def errors(self) -> Path:
        """Where the standard error of the last command is."""
        return self.folder / ".errors"

    def start(self, command: str, output: Path, *, keep: bool = False) -> subprocess.Popen[bytes]:
        """Start a command, its output into a file. With ``keep`` it stays to the end of the page."""
        assert self._namespace is not None
        script = "\n".join([*self.preamble, command])
        environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("CHAT_GEVENT_", "LOCUST_"))
            },
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COLUMNS": "200",
            "PYTHONUNBUFFERED": "1",
        }
        environment.pop("CI", None)
        with output.open("wb") as file, self.errors.open("wb") as errors:
            process = subprocess.Popen(
                ["nsenter", f"--net=/proc/{self._namespace.pid}/ns/net", "bash", "-c", script],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file if keep or SERVES.match(command) else errors,
                start_new_session=True,
            )
        if keep:
            self._kept.append(process)
        return process

    def run(self, command: str, statuses: Sequence[int] = (0,)) -> str:
        """Run a command to its end, or start one that serves; returns what it has printed.

        Raises AssertionError: the status is another one, or it does not get ready or end in time.
        """
        output = self.folder / f".output-{time.monotonic_ns()}"
        if command.startswith((". ", "export ")):
            self.preamble.append(command)
            return ""
        if SERVES.match(command):
            self.stop()
            process = self.start(command, output)
            self._servers.append((process, output))
            for _ in _until(SECONDS):
                printed = output.read_text()
                if READY.search(printed):
                    ready = [line for line in printed.splitlines() if line.startswith("ready ")]
                    return "".join(f"{line}\n" for line in ready)
                assert process.poll() is None, printed
            raise AssertionError(f"not ready: {output.read_text()}")
        process = self.start(command, output)
        try:
            status = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            _end(process)
            raise AssertionError(f"not ended after {SECONDS} s: {output.read_text()}") from None
        assert status in statuses, f"status {status}: {output.read_text()}{self.errors.read_text()}"
        return output.read_text()

    def stop(self) -> None:
        """Stop what serves, as Ctrl-C does."""
        for process, _ in self._servers:
            _end(process, signal.SIGINT)
        self._servers.clear()


def _until(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.02)


def _end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    """Ask a process and its children to end, and see to it that they do."""
    if process.poll() is None:
        os.killpg(process.pid, number)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.stdout:
        process.stdout.close()
