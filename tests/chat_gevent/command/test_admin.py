"""The admin pages over HTTP: what it says, and that nobody can do harm through it."""

from __future__ import annotations

import json
import re
import select
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chat_gevent.command.admin import MOST_CONNECTIONS, MOST_REQUESTS
from tests.operate import ServerProcess, exchange, memory, rest, until

Operate = Callable[..., ServerProcess]


def admin_address(server: ServerProcess) -> tuple[str, int]:
    """Where the admin pages are."""
    host, port = server.logged(r"admin pages at http://(\S+):(\d+)").groups()
    return host, int(port)


def raw(server: ServerProcess, request: bytes) -> bytes:
    """What comes back for ``request``, to the end of the stream."""
    with socket.create_connection(admin_address(server), 15) as client:
        client.sendall(request)
        return rest(client)


def test_it_listens_on_loopback_unless_told_otherwise(operate: Operate) -> None:
    """``:PORT`` is the loopback interface; another host has to be named."""
    assert admin_address(operate("--port", "0", "--admin", ":0"))[0] == "127.0.0.1"
    assert admin_address(operate("--port", "0", "--admin", "0.0.0.0:0"))[0] == "0.0.0.0"
    assert admin_address(operate("--port", "0", "--admin", "[::1]:0"))[0] == "[::1]"


def test_health_and_readiness(operate: Operate) -> None:
    """Both are 200 while it serves; draining is not ready, but healthy. A client that stays shows it."""
    server = operate("--port", "0", "--admin", ":0", "--drain-timeout", "20", "--linger-timeout", "1")
    assert server.ask("/healthz") == (200, "ok\n")
    assert server.ask("/readyz") == (200, "ready\n")
    with server.connect() as stays:
        exchange(stays, b"hello")
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.ask("/readyz") == (503, "draining\n"))
        assert server.ask("/healthz") == (200, "ok\n")
        assert server.metric("chat_gevent_draining") == 1
        assert rest(stays).startswith(b"Error: shutting-down: ")
    assert server.process.wait(30) == 0


def test_clients_are_told_in_pages(operate: Operate) -> None:
    """Every client is on one page exactly; each entry says who, since when, how much, and in which state."""
    server = operate("--port", "0", "--admin", ":0", "--framing", "line")
    clients = [server.connect() for _ in range(25)]
    for number, each in enumerate(clients):
        for _ in range(number):
            exchange(each, b"hello")
    until(lambda: server.metric("chat_gevent_connections") == 25)
    found: list[dict[str, Any]] = []
    after, pages = "", 0
    while True:
        status, body = server.ask(f"/clients?limit=10{after}")
        page = json.loads(body)
        assert (status, page["total"]) == (200, 25)
        found += page["clients"]
        pages += 1
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert pages == 3
    by_address = {each["address"]: each for each in found}
    assert len(by_address) == 25
    for number, client in enumerate(clients):
        entry = by_address["{}:{}".format(*client.getsockname())]
        assert (entry["messages"], entry["received"], entry["sent"]) == (number, 6 * number, 16 * number)
        assert entry["state"] == "parked"
        assert entry["tls"] is False
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", entry["since"])
        client.close()


def test_a_busy_client_is_shown_as_busy(operate: Operate, tmp_path: Path) -> None:
    """One whose handler is at work is ``busy``; one with a greenlet of its own ``waiting``."""
    (tmp_path / "slow.py").write_text(
        "from gevent.event import Event\ndef answer(text, client):\n    Event().wait()\n"
    )
    server = operate("--port", "0", "--admin", ":0", "--handler", "slow:answer", cwd=tmp_path)
    with server.connect() as client:
        client.sendall(b"hello\n")
        until(lambda: [each["state"] for each in server.clients()] == ["busy"])
        assert server.metric("chat_gevent_handler_running") == 1
    server = operate("--port", "0", "--admin", ":0", "--park-after", "never")
    with server.connect() as client:
        exchange(client, b"hello")
        until(lambda: [each["state"] for each in server.clients()] == ["waiting"])


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/clients?limit=0", 400),
        ("/clients?limit=1001", 400),
        ("/clients?limit=x", 400),
        ("/clients?after=-5", 400),
        ("/clients?after=" + "9" * 5000, 400),
        ("/clients?after=" + "9" * 30, 200),
        ("/nothing", 404),
        ("/../../etc/passwd", 404),
    ],
)
def test_targets_that_are_wrong(operate_once: ServerProcess, target: str, status: int) -> None:
    """Bad parameters and unknown pages get their status and a line."""
    found, body = operate_once.ask(target)
    assert found == status
    assert body.count("\n") == 1


def test_methods(operate_once: ServerProcess) -> None:
    """HEAD has no body; what would change something is refused."""
    assert operate_once.ask("/healthz", "HEAD") == (200, "")
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert operate_once.ask("/healthz", method)[0] == 405
    assert operate_once.ask("/healthz", "BREW")[0] == 501


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", b"413"),
        (b"GET /metrics HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 500_000, b"413"),
        (b"GET /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"413"),
        (b"GET /metrics HTTP/1.1\r\nContent-Length: nonsense\r\n\r\n", b"413"),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(500)) + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET http://[::1/ HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else None,
)
def test_requests_that_are_out_of_bounds(
    operate_once: ServerProcess, request_bytes: bytes, status: bytes
) -> None:
    """Bodies, header floods, long lines, nonsense: the right status, nothing in the log, chat goes on."""
    answer = raw(operate_once, request_bytes)
    assert status in answer.split(b"\r\n", 1)[0] + answer[-600:]
    with operate_once.connect() as client:
        exchange(client, b"still here")
    assert "Traceback" not in operate_once.log


@pytest.fixture(scope="module")
def operate_once() -> Any:
    """One server for all tests that change nothing about it."""
    server = ServerProcess("--port", "0", "--admin", ":0")
    yield server
    server.close()


def test_slow_scrapers_harm_nobody(operate: Operate) -> None:
    """50 that never finish a request and 50 that never read: chat goes on, and so do the pages in the end."""
    server = operate("--port", "0", "--admin", ":0")
    address = admin_address(server)
    clients = [server.connect() for _ in range(300)]  # /clients has something to say
    for each in clients:
        exchange(each, b"hello")
    slow = []
    before = memory(server.process.pid)
    for number in range(100):
        scraper = socket.socket()
        scraper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        scraper.connect(address)
        scraper.sendall(b"GET /met" if number % 2 else b"GET /clients?limit=1000 HTTP/1.1\r\n\r\n" * 10)
        slow.append(scraper)
    for each in clients:  # who waited for one of those that never read would wait for ever
        exchange(each, b"hello again")
    assert memory(server.process.pid) - before < 20 * 2**20
    for each in slow:
        each.close()
    assert server.ask("/healthz")[0] == 200
    assert "Traceback" not in server.log
    for each in clients:
        each.close()


def test_requests_that_never_end_are_ended(operate: Operate) -> None:
    """As many as there are places, unfinished and kept open: the next is answered in time all the same."""
    server = operate("--port", "0", "--admin", ":0")
    with ExitStack() as stack:
        for _ in range(MOST_CONNECTIONS):
            client = stack.enter_context(socket.create_connection(admin_address(server), 30))
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: ")
        with socket.create_connection(admin_address(server), 30) as late:
            late.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert late.recv(1024).startswith(b"HTTP/1.1 200 ")


def test_an_admin_address_in_use_is_one_line_and_exit_1(operate: Operate) -> None:
    """The server does not start without the pages it was asked for."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = operate("--port", "0", "--admin", f":{port}", ready=False)
        assert server.process.wait(30) == 1
    problem = "Address already in use; stop what listens there, or listen elsewhere"
    assert server.log == f"chat-gevent serve: error: tcp://127.0.0.1:{port}: {problem}\n"


def test_health_has_a_place_beside_silent_connections(operate: Operate) -> None:
    """It is answered beside as many silent connections as pages are answered at a time, while these stay."""
    server = operate("--port", "0", "--admin", ":0")

    def answered_beside() -> bool:
        with ExitStack() as stack:
            address = admin_address(server)
            silent = [
                stack.enter_context(socket.create_connection(address, 30)) for _ in range(MOST_REQUESTS)
            ]
            assert server.ask("/healthz")[0] == 200
            return not select.select(silent, [], [], 0)[0]  # none of them has had to go first

    until(answered_beside)  # on a machine that stands still for long they go all the same


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"localhost:1", b"200"),
        (b"127.0.0.1", b"200"),
        (b"Admin.example.org:9100", b"200"),
        (b"evil.example.org", b"421"),
        (b"\x1dlocalhost", b"421"),  # which str.strip() would take for white space
        (b"", b"421"),
    ],
)
def test_only_known_hosts_are_answered(operate: Operate, host: bytes, status: bytes) -> None:
    """A name of somebody else's that leads here is refused for what tells of clients, not for health."""
    server = operate("--port", "0", "--admin", ":0", "--admin-hosts", "admin.example.org")
    for page, expected in ((b"/clients", status), (b"/metrics", status), (b"/healthz", b"200")):
        answer = raw(server, b"GET %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (page, host))
        assert answer.split(b" ", 2)[1] == expected


def test_scrapes_that_come_together_are_made_once(operate: Operate) -> None:
    """Of scrapes that wait together many are one, byte for byte, and none is older than its question."""
    server = operate("--port", "0", "--admin", ":0", "--framing", "line")
    question = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with server.connect() as client, ExitStack() as stack:
        for count in range(1, 4):
            exchange(client, b"hello")
            server.process.send_signal(signal.SIGSTOP)  # all wait by the time that it looks
            asking = [
                stack.enter_context(socket.create_connection(admin_address(server), 30)) for _ in range(12)
            ]
            for each in asking:
                each.sendall(question)
            server.process.send_signal(signal.SIGCONT)
            scrapes = [rest(each).partition(b"\r\n\r\n")[2] for each in asking]
            assert len(set(scrapes)) < 12
            assert all(b"chat_gevent_messages_total %d.0\n" % count in text for text in scrapes)
