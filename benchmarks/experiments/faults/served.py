"""A server that faults are made in, and the clients beside them that behave."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, Final, Self
from urllib.parse import urlsplit

import gevent
from gevent import socket

from benchmarks.experiments import ExperimentFailed
from benchmarks.measure import launch

WAIT: Final = 30.0
"""Longest wait for what must come, in seconds."""


def hold(truth: object, what: str) -> None:
    """Raise ExperimentFailed unless ``truth``."""
    if not truth:
        raise ExperimentFailed(what)


def until(condition: Callable[[], Any], what: str, seconds: float = WAIT) -> Any:
    """Let gevent run until ``condition()`` is true, and return that. Raises ExperimentFailed."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        hold(time.monotonic() < end, f"not within {seconds:g} s: {what}")
        gevent.sleep(0.01)
    return found


class Served:
    """``chat-gevent serve`` with admin pages, ready; a context manager that ends it.

    It listens on a port that the kernel chooses, unless ``options`` say where to listen.

    :param prefix: a command that starts it in its stead.
    :param log: where standard error goes, if not to a file of its own.
    """

    def __init__(
        self,
        *options: str,
        prefix: Iterable[str] = (),
        environment: dict[str, str] | None = None,
        log: IO[bytes] | int | None = None,
        folder: Path | None = None,
    ) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the exit
        listen = () if "--listen" in options else ("--port", "0")
        command = [*prefix, *launch.python("-m", "chat_gevent", "serve"), "--admin", "127.0.0.1:0"]
        command += [*listen, *options]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._log if log is None else log,
            env=launch.environment(environment, folder or launch.PACKAGES),
        )
        assert self.process.stdout
        with gevent.Timeout(WAIT, ExperimentFailed("the server is not ready")):
            while not (found := _line_of(self.process.stdout)):
                hold(self.process.poll() is None, f"the server did not start: {self.log[-300:]}")
                gevent.sleep(0.02)
        self.urls = found.split()[1:]

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid

    @property
    def log(self) -> str:
        """What it wrote to standard error, where that is the file of its own."""
        return os.pread(self._log.fileno(), 2**24, 0).decode(errors="replace")

    def address(self, index: int = 0) -> tuple[str, int]:
        """Host and port of a listener."""
        url = urlsplit(self.urls[index])
        assert url.hostname
        assert url.port
        return url.hostname, url.port

    def connect(self, index: int = 0) -> socket.socket:
        """A client of a listener."""
        return socket.create_connection(self.address(index), WAIT)

    def ask(self, target: str) -> str:
        """The body of an admin page."""
        found = re.search(r"admin pages at http://(\S+):(\d+)", self.log)
        assert found, "the log is elsewhere"
        with socket.create_connection((found[1], int(found[2])), WAIT) as client:
            client.sendall(f"GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            return rest(client).decode().partition("\r\n\r\n")[2]

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels, or one with its label; 0 where it isn't there."""
        total = 0.0
        for line in self.ask("/metrics").splitlines():
            if line.startswith((f"{name} ", f"{name}{{")):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def uss(self) -> int:
        """Memory that only this process has, in bytes."""
        return uss(self.pid)

    def files(self) -> int:
        """Files that it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def stop(self, status: int = 0, failure: str = "") -> None:
        """End it by SIGTERM and look at how it ended; tracebacks may only be of ``failure``."""
        self.process.send_signal(signal.SIGTERM)
        until(lambda: self.process.poll() is not None, "the server ends", 60)
        hold(
            self.process.returncode == status,
            f"it ended with status {self.process.returncode}: {self.log[-500:]}",
        )
        traces = self.log.split("Traceback (most recent call last)")[1:]
        wrong = [each for each in traces if not failure or failure not in each]
        hold(not wrong, f"a traceback: {wrong[:1]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()
        self._log.close()


def uss(pid: int) -> int:
    """Memory in bytes that a process has written to and shares with no other.

    The pages of files are left out: whether they are one's alone depends on what else is running.
    """
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(size) * 1024 for size in re.findall(r"Private_Dirty: +(\d+) kB", rollup))


def _line_of(stream: IO[bytes]) -> str:
    """The line ``ready``, or nothing while it has not come."""
    os.set_blocking(stream.fileno(), False)
    line = stream.readline().decode()
    return line if line.startswith("ready ") else ""


def rest(client: socket.socket) -> bytes:
    """All to the end of the stream."""
    data = b""
    while more := client.recv(65536):
        data += more
    return data


class WellBehaved:
    """Clients that send a line at a time, ``pause`` seconds apart, and check every reply.

    Each is a greenlet of this process. ``confirmed`` counts, ``slowest`` is the longest wait for a reply in
    seconds. What ended a client before its time is in ``lost``.
    """

    def __init__(self, server: Served, count: int, pause: float = 0.01, index: int = 0) -> None:
        self.confirmed = 0
        self.slowest = 0.0
        self.lost: list[str] = []
        self._ends = False
        self._pause = pause
        self._clients = [server.connect(index) for _ in range(count)]
        self._greenlets = [
            gevent.spawn(self._talk, each, number) for number, each in enumerate(self._clients)
        ]

    def _talk(self, client: socket.socket, number: int) -> None:
        turn = 0
        try:
            while not self._ends:
                turn += 1
                message = f"client {number} line {turn}"
                began = time.monotonic()
                client.sendall(message.encode() + b"\n")
                reply = b""
                while not reply.endswith(b"\n"):
                    more = client.recv(4096)
                    if not more:
                        self.lost.append(f"the stream ended after {reply!r}")
                        return
                    reply += more
                if reply.decode() != f"Received: {message}\n":
                    self.lost.append(f"{message!r} was answered {reply[:200]!r}")
                    return
                self.confirmed += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
                gevent.sleep(self._pause)
        except OSError as error:
            self.lost.append(str(error))

    def goes_on(self, what: str) -> None:
        """Wait until each is answered again. Raises ExperimentFailed."""
        before = self.confirmed
        until(lambda: self.confirmed >= before + 2 * len(self._clients) or self.lost, f"{what}: replies")
        hold(not self.lost, f"{what}: {self.lost[:1]}")

    def end(self) -> int:
        """Have them leave once they are answered; returns how many confirmations they got in all."""
        self._ends = True
        gevent.joinall(self._greenlets, timeout=WAIT)
        for each in self._clients:
            each.close()
        hold(not self.lost, f"who behaves was lost: {self.lost[:1]}")
        return self.confirmed


def reset(client: socket.socket) -> None:
    """Close with a reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()


def settle(server: Served, connections: int, files: int) -> None:
    """Wait until no more clients and files than these are left, and none has a greenlet."""
    until(lambda: server.metric("chat_gevent_connections") == connections, f"{connections} clients are left")
    until(
        lambda: server.metric('chat_gevent_greenlets{state="leased"}') == 0 or connections,
        "no greenlet is leased",
    )
    until(lambda: server.files() <= files, f"{files} files are left, not {server.files()}")


def same_counts(server: Served, confirmed: int, seconds: float = WAIT) -> None:
    """Raise ExperimentFailed unless the server comes to count as many messages as there were confirmations.

    It shows its metrics as they were up to a second ago.
    """
    count = 0.0
    end = time.monotonic() + seconds
    while (count := server.metric("chat_gevent_messages_total")) != confirmed and time.monotonic() < end:
        gevent.sleep(0.1)
    hold(count == confirmed, f"the server counts {count:.0f} messages, the clients {confirmed} confirmations")


def own_handler(folder: Path, text: str) -> str:
    """Write a module ``fault_handler`` in ``folder``; returns what ``--handler`` takes."""
    (folder / "fault_handler.py").write_text(text)
    return "fault_handler:handle"
