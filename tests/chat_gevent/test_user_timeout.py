"""How long the kernel leaves a client that acknowledges nothing: never less than what is set elsewhere."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from chat_gevent.listeners import tune
from chat_gevent.settings import Settings


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({}, 120),
        ({"keepalive_idle": 2, "keepalive_interval": 1, "keepalive_probes": 6}, 30),
        ({"keepalive_idle": 2, "keepalive_interval": 1, "keepalive_probes": 6, "write_timeout": 1}, 8),
        ({"write_timeout": "5m"}, 300),
        ({"write_timeout": 0}, 0),
        ({"keepalive_idle": 0}, 60),
        ({"tcp_user_timeout": 5}, 5),
        ({"tcp_user_timeout": 0, "write_timeout": 500}, 0),
    ],
)
def test_it_covers_the_probes_and_the_write_timeout(given: dict[str, Any], seconds: int) -> None:
    """It is the longer of both; what is set by hand counts, also on a listener that had another value."""
    with socket.socket() as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1)
        tune(listener, Settings(**given))
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == seconds * 1000


def test_what_is_cut_short_by_hand() -> None:
    """Each time above a user time-out that was set by hand is named; without one nothing is."""
    assert Settings().cut_short() == []
    assert Settings(tcp_user_timeout=0).cut_short() == []
    assert Settings(tcp_user_timeout=120).cut_short() == []
    assert Settings(tcp_user_timeout=60).cut_short() == ["the probes of keepalive (120 s)"]
    assert Settings(tcp_user_timeout=120, write_timeout=0).cut_short() == ["write_timeout (inf s)"]
