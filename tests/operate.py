"""For tests of the running command: start it with any arguments, read its log, ask its admin pages."""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.conftest import command, require_tool


class ServerProcess:
    """``chat-gevent serve`` in a process of its own, ready; ``urls`` is where it listens.

    ``files`` is a hard limit of open files, ``prefix`` a command that starts the server in its stead.
    """

    def __init__(
        self,
        *arguments: str,
        env: dict[str, str] | None = None,
        files: int = 0,
        prefix: tuple[str, ...] = (),
        ready: bool = True,
        stderr: int | None = None,
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        started = command("serve", *arguments)
        if files:
            prefix = ("sh", "-c", f'ulimit -n {files} && exec "$@"', "sh", *prefix)
        self.process = subprocess.Popen(
            [*prefix, *started],
            stdout=subprocess.PIPE,
            stderr=self._log if stderr is None else stderr,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            pass_fds=pass_fds,
        )
        self.urls: list[str] = []
        if ready:
            self.await_ready()

    def await_ready(self) -> None:
        """Wait for the line that says where it listens."""
        assert self.process.stdout is not None
        came = select.select([self.process.stdout], [], [], 40)[0]
        line = self.process.stdout.readline().decode() if came else ""
        assert line.startswith("ready "), f"not ready: {line!r}\n{self.log}"
        self.urls = line.split()[1:]

    def address(self, index: int = 0) -> tuple[str, int]:
        """Host and port of a listener."""
        url = urlsplit(self.urls[index])
        assert url.hostname is not None
        assert url.port is not None
        return url.hostname, url.port

    @property
    def host(self) -> str:
        """The host of the first listener."""
        return self.address()[0]

    @property
    def port(self) -> int:
        """The port of the first listener."""
        return self.address()[1]

    def connect(self, index: int = 0, timeout: float = 30) -> socket.socket:
        """A client of the listener, over TCP."""
        return socket.create_connection(self.address(index), timeout)

    @property
    def log(self) -> str:
        """All that it has written to standard error so far."""
        return os.pread(self._log.fileno(), 2**24, 0).decode()

    def logged(self, pattern: str, seconds: float = 30) -> re.Match[str]:
        """Wait until a line of the log matches."""
        found: re.Match[str] = until(lambda: re.search(pattern, self.log), seconds, f"{pattern} in the log")
        return found

    def ask(self, target: str, method: str = "GET") -> tuple[int, str]:
        """Status and body of an admin page."""
        host, port = self.logged(r"admin pages at http://(\S+):(\d+)").groups()
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        try:
            connection.request(method, target)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        """The value of one of the metrics, with its labels as they are shown; 0 where it isn't there."""
        for line in self.ask("/metrics")[1].splitlines():
            if line.startswith(f"{name} "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def clients(self) -> list[dict[str, Any]]:
        """The first page of the clients."""
        found: list[dict[str, Any]] = json.loads(self.ask("/clients")[1])["clients"]
        return found

    def stop(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        """Send a signal and wait; returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def close(self) -> None:
        """End it, whatever it is doing."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()


_kept: list[socket.socket] = []


def kept_port() -> int:
    """A port of 127.0.0.1 that nobody else is given while these tests run.

    What is started may listen there, one after the other, if it sets ``SO_REUSEADDR``. A port that was
    free a moment ago may be the own port of any client by now.
    """
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind(("127.0.0.1", 0))
    _kept.append(keeper)
    return int(keeper.getsockname()[1])


def until(condition: Callable[[], Any], seconds: float = 30, what: str = "") -> Any:
    """Wait until ``condition()`` is true, and return what it was; fails after ``seconds``."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {what or condition}"
        time.sleep(0.005)
    return found


def stuff(server: ServerProcess, count: int, line: bytes) -> list[socket.socket]:
    """``count`` clients that send lines and never read, until the server can answer none of them."""
    clients = []
    for _ in range(count):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(server.address())
        client.setblocking(False)
        clients.append(client)

    def all_are_stuck() -> bool:
        for each in clients:
            try:
                while each.send(line):
                    pass
            except BlockingIOError:
                pass
        time.sleep(0.02)
        return [each["state"] for each in server.clients()] == ["busy"] * count

    until(all_are_stuck)
    return clients


def exchange(client: socket.socket, message: bytes) -> None:
    """Send a line and see it confirmed."""
    client.sendall(message + b"\n")
    expected = b"Received: " + message + b"\n"
    got = receive(client, len(expected))
    assert got == expected


def receive(client: socket.socket, size: int) -> bytes:
    """Read ``size`` bytes, or fewer where the stream ends before."""
    data = b""
    while len(data) < size and (more := client.recv(size - len(data))):
        data += more
    return data


def rest(client: socket.socket) -> bytes:
    """Read to the end of the stream."""
    data = b""
    while more := client.recv(65536):
        data += more
    return data


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu(pid: int) -> float:
    """CPU seconds that a process has used."""
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e9


def certificate(folder: Path, name: str, *, signer: str = "", ca: bool = False) -> Path:
    """Make ``NAME.pem`` and ``NAME.key`` for localhost with openssl, signed by ``signer`` or by itself."""
    made, key = folder / f"{name}.pem", folder / f"{name}.key"
    arguments = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    arguments += ["-days", "2", "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(made)]
    if ca:  # Python 3.13 takes no CA that does not say that it may sign certificates
        arguments += ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    else:
        arguments += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        arguments += ["-addext", "basicConstraints=critical,CA:FALSE"]
    if signer:
        arguments += ["-CA", str(folder / f"{signer}.pem"), "-CAkey", str(folder / f"{signer}.key")]
    subprocess.run([require_tool("openssl"), *arguments], check=True, capture_output=True, timeout=30)
    return made
