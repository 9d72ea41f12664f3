"""Starts a server for one trial and ends it: a fresh process, pinned, known to be ready by its own word."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable
from typing import Self

from benchmarks.measure import launch
from benchmarks.measure.probe import descendants
from benchmarks.measure.servers import Server


class ServerFailed(RuntimeError):
    """A server did not start, or ended by itself; the text has the end of what it wrote to standard error."""


def placed(command: Iterable[str], host: str, port: int) -> list[str]:
    """A user's command with ``{host}`` and ``{port}`` filled in."""
    return [word.replace("{host}", host).replace("{port}", str(port)) for word in command]


def free_port() -> int:
    """A port that is free, below those that the kernel gives to clients: it must be free again later."""
    while True:
        with socket.socket() as each, contextlib.suppress(OSError):
            port = random.randrange(15_000, 30_000)
            each.bind(("127.0.0.1", port))
            return port


class ServerProcess:
    """A running server; a context manager that ends it.

    Raises ServerFailed: it has not said that it is ready within ``seconds``.
    """

    def __init__(
        self,
        server: Server,
        cores: Iterable[int] | None = None,
        options: Iterable[str] = (),
        environment: dict[str, str] | None = None,
        seconds: float = 30,
    ) -> None:
        self.server = server
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self.host, self.port = "127.0.0.1", free_port() if server.own else 0
        command = [*server.command(), "--host", self.host, "--port", "0", *options]
        if server.own:
            command = placed(server.command(), self.host, self.port)
        with launch.pinned(cores):
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if server.own else subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
                start_new_session=True,
                env=launch.environment(environment, server.packages),
            )
        try:
            if server.own:
                self._wait_until_it_accepts(seconds)
            else:
                self.host, self.port = self._wait_until_ready(seconds)
        except BaseException:  # Ctrl-C as well: nobody else knows of the process yet
            self.close()
            raise
        self.pids = descendants(self._process.pid)

    def _wait_until_ready(self, seconds: float) -> tuple[str, int]:
        assert self._process.stdout
        readable = select.select([self._process.stdout], [], [], seconds)[0]
        line = self._process.stdout.readline().decode().strip() if readable else ""
        if not line.startswith("ready "):
            why = f"said {line!r}" if line else "said nothing"
            raise ServerFailed(f"{self.server.name} is not ready: it {why}; {self.error_output()}")
        host, _, port = line.removeprefix("ready ").partition("://")[2].rpartition(":")
        return host, int(port)

    def _wait_until_it_accepts(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.running() and time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1):
                return
            time.sleep(0.01)
        why = "does not accept" if self.running() else f"ended with status {self._process.returncode}"
        raise ServerFailed(f"{self.server.name} is not ready: it {why} ({self.port}); {self.error_output()}")

    def error_output(self) -> str:
        """The last line of its standard error."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing on its standard error"

    @property
    def pid(self) -> int:
        """Process id of its first process."""
        return self._process.pid

    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it: SIGTERM, and SIGKILL for the whole group where that takes over a few seconds."""
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
