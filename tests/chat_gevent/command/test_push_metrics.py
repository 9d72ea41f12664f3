"""Pushes and broadcasts in the metrics and on the page of clients, with a service in a real process."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.operate import ServerProcess, until

SERVICE = """
from chat_gevent import Service

class Shouts(Service):
    def started(self, server):
        self.server = server
    def message(self, message, client):
        count, size = map(int, message.split())
        for _ in range(count):
            self.server.broadcast("x" * size, but=client)
        return "done"
"""


def ask(client: socket.socket, message: bytes) -> None:
    """Send a line, and wait for the reply."""
    client.sendall(message + b"\n")
    assert client.recv(5) == b"done\n"


@pytest.mark.parametrize("policy", ["close", "drop-newest"])
def test_pushes_are_counted(operate: Callable[..., ServerProcess], tmp_path: Path, policy: str) -> None:
    """Sent, queued, and closed or dropped as the policy says; broadcasts with their number."""
    (tmp_path / "shouts.py").write_text(SERVICE)
    options = ("--handler", "shouts:Shouts", "--outbox-bytes", "1MiB", "--slow-consumer", policy)
    server = operate("--port", "0", "--admin", ":0", *options, cwd=tmp_path)
    assert server.metric('chat_gevent_closed_total{reason="slow"}') == 0
    assert 'chat_gevent_closed_total{reason="slow"} 0.0' in server.ask("/metrics")[1]
    with server.connect() as speaker, socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(server.address())
        until(lambda: server.metric("chat_gevent_connections") == 2)
        ask(speaker, b"3 100")
        until(lambda: server.metric("chat_gevent_pushes_total") == 3)
        assert server.metric("chat_gevent_broadcasts_total") == 3
        assert server.metric("chat_gevent_pushes_dropped_total") == 0
        assert server.metric("chat_gevent_queued_bytes") == 0
        ask(speaker, b"1 900000")  # more than the kernel takes, and less than the outbox
        queued = until(lambda: server.metric("chat_gevent_queued_bytes"))
        assert 0 < queued <= 900_001
        assert sorted(each["queued_bytes"] for each in server.clients()) == [0, queued]
        ask(speaker, b"2 900000")
        if policy == "close":
            until(lambda: server.metric('chat_gevent_closed_total{reason="slow"}') == 1)
            until(lambda: server.metric("chat_gevent_queued_bytes") == 0)
        else:
            until(lambda: server.metric("chat_gevent_pushes_dropped_total") == 2)
            assert server.metric("chat_gevent_connections") == 2
        assert server.metric("chat_gevent_broadcasts_total") == 6
        assert server.metric("chat_gevent_broadcast_seconds_total") >= 0
