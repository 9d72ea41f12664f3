"""Faults that were found by attack, or by users: real processes, real connections, broken on purpose."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.cables import Cable, cable
from tests.conftest import require_tool
from tests.operate import ServerProcess

Operate = Callable[..., ServerProcess]


@pytest.fixture
def hosts() -> Iterator[Cable]:
    """Two hosts with a cable between them."""
    with cable() as made:
        yield made


class FarClient:
    """``nc`` on the far host, connected to a server on the near one."""

    def __init__(self, hosts: Cable, server: ServerProcess) -> None:
        nc = [*hosts.inside_there, require_tool("nc"), "10.77.0.1", str(server.port)]
        self.process = subprocess.Popen(nc, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, message: bytes) -> bytes:
        """The line that answers a line."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(message + b"\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def __enter__(self) -> FarClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_lost_probes_end_no_client_before_their_number(operate: Operate, hosts: Cable) -> None:
    """Probes after 2 s of silence, six of them a second apart: 5 s without a link lose no client.

    A cut cable is found by the probes, long before the default of tcp_user_timeout was over.
    """
    server = operate(
        *("--listen", "tcp://10.77.0.1:0", "--framing", "line", "--access-log", "--write-timeout", "1"),
        *("--keepalive-idle", "2", "--keepalive-interval", "1", "--keepalive-probes", "6"),
        prefix=hosts.inside_here,
    )
    with FarClient(hosts, server) as client:
        assert client.ask(b"before") == b"Received: before\n"
        hosts.plug("down")
        time.sleep(5)  # the fault itself: at least two probes are lost
        hosts.plug("up")
        assert client.ask(b"after") == b"Received: after\n"
        hosts.plug("down")
        began = time.monotonic()
        server.logged("closed client=.* messages=2 .*reason=lost", 20)
        assert 6 < time.monotonic() - began < 14
    assert server.stop() == 0


def test_a_user_timeout_by_hand_is_kept_and_said(operate: Operate, hosts: Cable) -> None:
    """Set shorter than the probes it ends a client at the first of them, as asked, and the log says so."""
    server = operate(
        *("--listen", "tcp://10.77.0.1:0", "--framing", "line", "--access-log", "--tcp-user-timeout", "2"),
        *("--keepalive-idle", "2", "--keepalive-interval", "1", "--keepalive-probes", "6"),
        prefix=hosts.inside_here,
    )
    said = r"cuts short the probes of keepalive \(8 s\) and write_timeout \(30 s\)"
    server.logged(rf"WARNING tcp_user_timeout \(2 s\) {said}")
    with FarClient(hosts, server) as client:
        assert client.ask(b"before") == b"Received: before\n"
        hosts.plug("down")
        server.logged("closed client=.* messages=1 .*reason=lost", 5)
    assert server.stop() == 0
