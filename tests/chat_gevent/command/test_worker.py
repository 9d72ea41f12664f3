"""Many processes on gunicorn: every worker serves, handlers work, and a stop dismisses all clients."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.operate import certificate

HANDLER = """
import os
def tell_process(message, client):
    return f"{message} {os.getpid()}"
"""
OPTIONS = shlex.split("-k chat_gevent.workers.ChatWorker --workers 2 --graceful-timeout 20")


class Gunicorn:
    """gunicorn with two workers, and the port that it says it listens on."""

    def __init__(self, directory: Path, *options: str, **environment: str) -> None:
        (directory / "workers_handler.py").write_text(HANDLER)
        self.log_file = directory / "log"
        # Workers that each bind can't ask for port 0. This keeps others from the port, not them.
        self._port = socket.socket()
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._port.bind(("127.0.0.1", 0))
        self.address = self._port.getsockname()
        bind = ("--bind", f"127.0.0.1:{self.address[1]}")
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", *OPTIONS, *bind, *options, "workers_handler:tell_process"],
                cwd=directory,
                stderr=log,
                env={**os.environ, **environment},
            )

    @property
    def log(self) -> str:
        """All it has logged so far."""
        return self.log_file.read_text()

    def connect(self) -> socket.socket:
        """Connect a client as soon as all workers listen."""
        workers = 2 if "--reuse-port" in self.process.args else 1  # type: ignore[operator]
        port = f"0100007F:{self.address[1]:04X} 00000000:0000 0A"
        wait_until(lambda: Path("/proc/net/tcp").read_text().count(port) >= workers or self.process.poll())
        assert self.process.poll() is None, self.log
        return socket.create_connection(self.address, 30)

    def close(self) -> None:
        """End it, whatever it does."""
        self._port.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@pytest.fixture(params=[(), ("--reuse-port",)], ids=["shared-listener", "reuse-port"])
def gunicorn(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Gunicorn]:
    """Two workers that tell who they are."""
    started = Gunicorn(tmp_path, *request.param)
    yield started
    started.close()


def _worker_of(client: socket.socket) -> int:
    client.sendall(b"hello\n")
    reply = client.makefile("r").readline()
    assert reply.startswith("hello "), reply
    return int(reply.split()[1])


def test_every_worker_serves(gunicorn: Gunicorn) -> None:
    """Clients are spread over the workers, and each is answered by the handler that gunicorn was given."""
    clients: list[socket.socket] = []
    processes: set[int] = set()

    def both() -> bool:
        clients.append(gunicorn.connect())
        processes.add(_worker_of(clients[-1]))
        return len(processes) == 2

    wait_until(both)
    for client in clients:
        client.close()
    assert gunicorn.process.pid not in processes


def test_a_stop_dismisses_the_clients(gunicorn: Gunicorn) -> None:
    """SIGTERM tells each client ``shutting-down``, and gunicorn ends with status 0."""
    clients = [gunicorn.connect() for _ in range(10)]
    for client in clients:
        _worker_of(client)
    gunicorn.process.send_signal(signal.SIGTERM)
    for client in clients:
        assert client.recv(1024).startswith(b"Error: shutting-down: ")
        assert client.recv(1024) == b""
        client.close()
    assert gunicorn.process.wait(30) == 0


def test_a_stop_resets_nobody(gunicorn: Gunicorn) -> None:
    """Who waits to be accepted when the stop comes is served and dismissed like the others."""
    workers: set[int] = set()
    while len(workers) < 2:
        with gunicorn.connect() as client:
            workers.add(_worker_of(client))
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)  # nobody accepts
    clients = [gunicorn.connect() for _ in range(20)]
    for client in clients:
        client.sendall(b"hello\n")
    gunicorn.process.send_signal(signal.SIGTERM)
    for worker in workers:
        os.kill(worker, signal.SIGCONT)
    for client in clients:
        with client, client.makefile("rb") as replies:
            assert replies.readline().startswith(b"hello ")
            assert replies.readline().startswith(b"Error: shutting-down: ")
            assert replies.read() == b""
    assert gunicorn.process.wait(30) == 0


def test_workers_with_listeners_of_their_own(tmp_path: Path) -> None:
    """With ``--reuse-port`` each worker listens for itself, and clients are spread by the kernel."""
    started = Gunicorn(tmp_path, "--reuse-port")
    clients: list[socket.socket] = []
    try:
        clients += [started.connect() for _ in range(200)]
        served = Counter(map(_worker_of, clients))
        assert len(served) == 2
        assert min(served.values()) > 50
    finally:
        for client in clients:
            client.close()
        started.close()


def test_a_worker_that_dies_is_replaced(gunicorn: Gunicorn) -> None:
    """The arbiter starts another worker for one that was killed, and clients are served again."""
    client = gunicorn.connect()
    killed = _worker_of(client)
    os.kill(killed, signal.SIGKILL)
    client.close()

    def started_again() -> bool:
        return gunicorn.log.count("Booting worker") == 3

    wait_until(started_again)
    with gunicorn.connect() as client:
        assert _worker_of(client) != killed


def test_tls_with_gunicorns_options(tmp_path: Path) -> None:
    """``--certfile`` and ``--keyfile`` make workers speak TLS, and nothing else."""
    certificate(tmp_path, "server")
    options = ("--certfile", str(tmp_path / "server.pem"), "--keyfile", str(tmp_path / "server.key"))
    started = Gunicorn(tmp_path, *options)
    try:
        context = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
        with started.connect() as plain, context.wrap_socket(plain, server_hostname="localhost") as client:
            _worker_of(client)
        with started.connect() as plain:
            plain.sendall(b"in clear\n")
            assert b"in clear" not in plain.recv(1024)
    finally:
        started.close()


@pytest.mark.parametrize(
    ("options", "environment", "said"),
    [
        ((), {"CHAT_GEVENT_IDLE_TIMEOUT": "-1"}, "IDLE_TIMEOUT"),
        ((), {"CHAT_GEVENT_TLS_CERTIFICATE": "file"}, "CHAT_GEVENT_TLS_CERTIFICATE"),
        (("--certfile", "/dev/null"), {}, "/dev/null: no usable certificate"),
    ],
    ids=["out-of-range", "not-a-workers", "bad-certificate"],
)
def test_a_bad_setting_ends_it_at_once(
    tmp_path: Path, options: tuple[str, ...], environment: dict[str, str], said: str
) -> None:
    """A setting that is wrong stops gunicorn with the setting's name; it does not start workers for ever."""
    started = Gunicorn(tmp_path, *options, **environment)
    try:
        assert started.process.wait(30) != 0
        assert said in started.log
    finally:
        started.close()
