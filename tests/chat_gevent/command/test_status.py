"""``/status.json``: totals, history, and the busiest and slowest clients of a running server."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest

from chat_gevent.command import status
from tests.operate import ServerProcess, exchange, rest, until

Operate = Callable[..., ServerProcess]


def told(server: ServerProcess, query: str = "") -> dict[str, Any]:
    """What the server says of itself."""
    code, body = server.ask(f"/status.json{query}")
    assert code == 200
    found: dict[str, Any] = json.loads(body, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    return found


def test_every_key_is_told_and_every_told_key_is_there(operate: Operate) -> None:
    """The docstring's table and the answer have the same keys, and the history is of seconds."""
    server = operate("--port", "0", "--admin", ":0", "--framing", "line")
    with server.connect() as client:
        for _ in range(30):
            exchange(client, b"hello")
        found = until(lambda: len((now := told(server))["history"]["series"]["connections"]) > 2 and now)
    table = (status.__doc__ or "").split("====\n")[1]
    assert set(found) == set(re.findall(r"^(\w+)", table, re.MULTILINE))
    assert found["totals"]["messages"] == found["workers"][0]["messages"] == 30
    assert found["totals"]["connections"] == 1
    assert (found["ready"], found["drain"], found["backplane"], found["handler"]) == (True, None, None, None)
    assert found["workers"][0]["pid"] == server.process.pid
    assert set(found["refused"]) == {"server-full", "address-full"}
    series = found["history"]["series"]
    for name, key in (("totals", found["totals"]), ("workers", found["workers"][0]), ("history", series)):
        assert all(f"``{each}``" in (status.__doc__ or "") for each in key), name
    assert len({len(each) for each in series.values()}) == 1
    assert series["connections"][-1] == 1
    assert 0 <= series["loop_lag_p50_seconds"][-1] <= series["loop_lag_p99_seconds"][-1]
    later = until(
        lambda: (
            (more := told(server, f"?after={found['history']['newest']}"))["history"]["series"]["connections"]
            and more
        )
    )
    assert len(later["history"]["series"]["connections"]) < 3


def test_the_busiest_client_comes_first(operate: Operate) -> None:
    """Ten at most, by messages a second since the last look, the one with most of them first."""
    server = operate("--port", "0", "--admin", ":0", "--framing", "line")
    clients = [server.connect() for _ in range(12)]
    for number, each in enumerate(clients, 1):
        each.sendall(b"x\n" * 10 * number)
        size = len("Received: x\n") * 10 * number
        while size:
            size -= len(each.recv(size))
    busiest = told(server)["busiest"]
    assert [each["messages"] for each in busiest] == [10 * number for number in range(12, 2, -1)]
    assert busiest[0]["messages_per_second"] > 0

    def the_first_has_changed() -> bool:
        exchange(clients[0], b"more")
        found = told(server)["busiest"]
        return len(found) == 1 and found[0]["messages"] > 10  # who was silent since is not there

    until(the_first_has_changed)
    for each in clients:
        each.close()


def _stuck(server: ServerProcess) -> socket.socket:
    """A client that sends until nothing moves, and reads nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(server.address())
    client.settimeout(0.3)
    with contextlib.suppress(TimeoutError):
        while True:
            client.sendall(b"x" * 1000 + b"\n")
    return client


def test_slow_clients_are_those_with_bytes_due(operate: Operate) -> None:
    """Clients that don't read are told with what is due to them; those that read are not among them."""
    server = operate("--port", "0", "--admin", ":0", "--write-timeout", "60")
    with server.connect() as reads:
        exchange(reads, b"hello")
        stuck = _stuck(server)
        slowest = until(lambda: told(server)["slowest"])
        assert {each["address"] for each in slowest} == {"{}:{}".format(*stuck.getsockname())}
        assert slowest[0]["due_bytes"] > 0
        stuck.close()


def test_a_drain_is_told_with_those_left(operate: Operate) -> None:
    """While it drains it is not ready, and says how many clients are left and since when."""
    server = operate("--port", "0", "--admin", ":0", "--drain-timeout", "30", "--linger-timeout", "30")
    with server.connect() as stays:
        exchange(stays, b"hello")
        server.process.send_signal(signal.SIGTERM)
        found = until(lambda: told(server)["drain"])
        assert found["clients_left"] == 1
        assert found["seconds"] >= 0
        assert rest(stays).startswith(b"Error: shutting-down: ")
    assert server.process.wait(30) == 0


@pytest.mark.parametrize("after", ["x", "nan", "inf", "-inf", ""])
def test_a_time_that_is_none_is_refused(operate: Operate, after: str) -> None:
    """Only numbers are times; nothing that is not JSON comes back."""
    server = operate("--port", "0", "--admin", ":0")
    assert server.ask(f"/status.json?after={after}")[0] == (200 if not after else 400)
