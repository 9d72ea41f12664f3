"""Sockets handed over, and the words a service manager is told."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chat_gevent.command.systemd import inherited_sockets, notify, watchdog_seconds
from tests.conftest import command, require_tool
from tests.operate import ServerProcess, certificate, exchange, kept_port, until

Operate = Callable[..., ServerProcess]

HAND_OVER = """
import os, sys
for number, fd in enumerate(map(int, sys.argv[1].split(","))):
    os.dup2(fd, 3 + number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(number + 1), LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
"""


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path.replace("@", "\0", 1))
        self.socket.settimeout(30)

    def told(self) -> dict[str, str]:
        """The next datagram."""
        return dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """A service manager that listens at a path, or under an abstract name."""
    made = Manager(str(tmp_path / "notify") if request.param == "file" else f"@notify-{os.getpid()}")
    yield made
    made.socket.close()


def test_readiness_reload_and_stop_are_told(operate: Operate, manager: Manager) -> None:
    """READY=1 once it accepts, RELOADING=1 and READY=1 around a SIGHUP, STOPPING=1 when it drains."""
    server = operate("--port", "0", env={"NOTIFY_SOCKET": manager.path})
    first = manager.told()
    assert first["READY"] == "1"
    assert first["STATUS"] == f"serving {server.urls[0]}"
    server.process.send_signal(signal.SIGHUP)
    reloading = manager.told()
    assert reloading["RELOADING"] == "1"
    assert int(reloading["MONOTONIC_USEC"]) > 0
    assert manager.told() == {"READY": "1"}
    assert server.stop() == 0
    assert manager.told()["STOPPING"] == "1"


def test_the_watchdog_is_fed(operate: Operate, manager: Manager) -> None:
    """Twice as often as the manager asks; by the event loop, so that a stuck one is noticed."""
    environment = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "2000000"}
    operate("--port", "0", env=environment)
    assert manager.told()["READY"] == "1"
    assert manager.told() == {"WATCHDOG": "1"}
    assert manager.told() == {"WATCHDOG": "1"}


def hand_over(operate: Operate, names: str, sockets: list[socket.socket], *arguments: str) -> ServerProcess:
    """A server that gets ``sockets`` as a service manager would hand them over."""
    for each in sockets:
        each.set_inheritable(True)
    fds = ",".join(str(each.fileno()) for each in sockets)
    keep = [sys.executable, "-c", HAND_OVER, fds, names]
    server = operate(
        *arguments, prefix=tuple(keep), ready=False, pass_fds=[each.fileno() for each in sockets]
    )
    server.await_ready()
    return server


def test_sockets_are_taken_over(operate: Operate, tmp_path: Path) -> None:
    """TCP, UNIX and, by its name, TLS; instead of host and port. The file stays: it is the manager's."""
    certificate(tmp_path, "server")
    path = tmp_path / "chat.sock"
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(path))
    unix.listen()
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.create_server(("127.0.0.1", 0)) as tls, unix:
        server = hand_over(
            *(operate, "web:tls:local", [tcp, tls, unix]),
            *("--tls-certificate", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.key")),
        )
        ports = [each.getsockname()[1] for each in (tcp, tls)]
        assert server.urls == [f"tcp://127.0.0.1:{ports[0]}", f"tls://127.0.0.1:{ports[1]}", f"unix://{path}"]
        with server.connect() as client:
            exchange(client, b"hello")
        assert server.stop() == 0
    assert path.exists()


def test_the_queue_of_an_inherited_socket_outlives_the_server(operate: Operate) -> None:
    """Who connects between two servers is served by the second: a restart refuses nobody."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        first = hand_over(operate, "", [listener])
        assert first.stop() == 0
        with socket.create_connection(listener.getsockname(), 30) as client:
            client.sendall(b"hello\n")
            hand_over(operate, "", [listener])
            assert client.recv(100) == b"Received: hello\n"


def test_systemd_socket_activate() -> None:
    """systemd's own tool starts the server when the first client connects, and that client is served."""
    tool = require_tool("systemd-socket-activate")
    address = ("127.0.0.1", kept_port())
    activator = subprocess.Popen(
        [tool, "--listen", f"127.0.0.1:{address[1]}", *command("serve")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:

        def connected() -> socket.socket | None:
            try:
                return socket.create_connection(address, 30)
            except ConnectionRefusedError:  # the tool does not listen yet
                return None

        with until(connected) as client:
            exchange(client, b"hello")
        activator.send_signal(signal.SIGTERM)
        out, err = activator.communicate(timeout=30)
        assert out.decode() == f"ready tcp://127.0.0.1:{address[1]}\n"
        assert re.search(rb"stopped: 1 messages answered, 0 clients cut off", err)
        assert activator.returncode == 0
    finally:
        if activator.poll() is None:
            activator.kill()
            activator.communicate()


def test_what_is_not_meant_for_this_process_is_left_alone() -> None:
    """Another process's LISTEN_PID, no number, nothing at all."""
    for environment in (
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"},
    ):
        before = dict(environment)
        assert inherited_sockets(environment) == []
        assert environment == before


def test_a_descriptor_that_does_not_listen_is_an_error(operate: Operate) -> None:
    """The line names the descriptor; exit status 1."""
    with socket.socket() as idle:
        idle.set_inheritable(True)
        prefix = (sys.executable, "-c", HAND_OVER, str(idle.fileno()), "")
        server = operate(prefix=prefix, ready=False, pass_fds=[idle.fileno()])
        assert server.process.wait(30) == 1
    assert "descriptor 3, which was handed over, is no listening stream socket" in server.log


def test_without_a_manager_nobody_is_told() -> None:
    """No NOTIFY_SOCKET: nothing happens; a dead one: a warning and no exception."""
    assert not notify("READY=1", environment={})
    assert not notify("READY=1", environment={"NOTIFY_SOCKET": "/no/such/socket"})
    assert watchdog_seconds({}) == 0
    assert watchdog_seconds({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}) == 0
    assert watchdog_seconds({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}) == 1.5
