"""The load generator: builds the C program, starts it, and talks to it.

``generator.c`` says what it does and which commands it takes. Where no compiler is, the same
commands are understood by ``fallback.py``, in Python, which costs more CPU than some of the servers;
a report says which one was used. One process holds at most as many connections as it may open files,
so a trial spreads them over several.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.measure.compiler import BuildFailed, cc, compiled
from benchmarks.measure.launch import environment, pinned, python

SOURCE: Final = Path(__file__).with_name("generator.c")
PUSH_SOURCE: Final = Path(__file__).with_name("push.c")
CONNECTIONS_PER_PROCESS: Final = 19_000
"""A limit of 20,000 files a process is common; some are for other things."""
ADDRESS_CONNECTIONS: Final = 25_000
"""From one source address to one destination: fewer than the 28,232 ports of Linux's default range."""


class GeneratorFailed(RuntimeError):
    """The generator ended, or did not answer in time."""


def _command(tls: bool, source: Path, target: Path) -> list[str]:
    libraries = ["-DWITH_TLS", "-lssl", "-lcrypto"] if tls else []
    return [cc() or "cc", "-O2", "-o", str(target), str(source), *libraries, "-lm"]


def program(tls: bool = False) -> list[str]:
    """The command line of the generator: compiled C where that is possible, else Python.

    BENCHMARKS_GENERATOR=python in the environment asks for Python.
    """
    if cc() and os.environ.get("BENCHMARKS_GENERATOR") != "python":
        try:
            return [str(compiled(SOURCE, partial(_command, tls)))]
        except BuildFailed:
            if not tls:  # without OpenSSL's headers the Python generator does TLS
                raise
    return python("-m", "benchmarks.measure.generator.fallback")


def push_program() -> list[str]:
    """The command line of the generator of deliveries, which is there in C only. Raises BuildFailed."""
    return [str(compiled(PUSH_SOURCE, partial(_command, False)))]


class Generator:
    """One generator process."""

    def __init__(
        self, command: list[str], options: dict[str, object], cores: Iterable[int] | None = None
    ) -> None:
        arguments = [f"{name}={value}" for name, value in options.items()]
        with pinned(cores):
            self._process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                env=environment(),
            )
        self._buffer = b""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, command: str) -> None:
        """Give it a command. Raises GeneratorFailed."""
        assert self._process.stdin
        try:
            self._process.stdin.write(command.encode() + b"\n")
        except BrokenPipeError:
            raise GeneratorFailed(
                f"the load generator has ended with status {self._process.wait()}"
            ) from None

    def expect(self, event: str, seconds: float) -> dict[str, Any]:
        """Wait for its next line, which must be ``event``. Raises GeneratorFailed."""
        assert self._process.stdout
        chunks = [self._buffer]
        while b"\n" not in chunks[-1]:
            if not select.select([self._process.stdout], [], [], seconds)[0]:
                raise GeneratorFailed(f"the load generator has not said '{event}' within {seconds:g} s")
            data = os.read(self._process.stdout.fileno(), 1 << 20)
            if not data:
                raise GeneratorFailed(f"the load generator has ended with status {self._process.wait()}")
            chunks.append(data)
        line, _, self._buffer = b"".join(chunks).partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if answer["event"] != event:
            raise GeneratorFailed(f"the load generator said {answer['event']!r} instead of {event!r}")
        return answer

    def ask(self, command: str, event: str, seconds: float = 60) -> dict[str, Any]:
        """Give it a command and wait for its answer. Raises GeneratorFailed."""
        self.send(command)
        return self.expect(event, seconds)

    def close(self) -> None:
        """End it; its connections close with it."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
