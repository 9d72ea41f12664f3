"""How a server stops: by signals, with clients of every kind connected."""

from __future__ import annotations

import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import wait_until
from tests.operate import ServerProcess, certificate, exchange, receive, rest, stuff, until
from tests.protocol import without_hint

Operate = Callable[..., ServerProcess]

TOLD = b"Error: shutting-down: the server is going away\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("park_after", ["0", "never"])
def test_every_kind_of_client_is_asked_to_leave(
    operate: Operate, number: int, park_after: str, tmp_path: Path
) -> None:
    """Idle, in mid-message, in a handler, with unread pipelined input, silent: all that was sent is answered,
    each that has spoken is told, and the exit status is 0."""
    (tmp_path / "slow.py").write_text(
        "import sys, gevent\n"
        "def answer(text, client):\n"
        "    if text == 'slow':\n"
        "        print('at work', file=sys.stderr, flush=True)\n"
        "        gevent.sleep(0.4)\n"
        "    return 'Received: ' + text\n"
    )
    server = operate(
        *("--port", "0", "--handler", "slow:answer", "--park-after", park_after, "--framing", "line"),
        *("--drain-timeout", "30", "--linger-timeout", "0.5"),
        cwd=tmp_path,
    )
    names = ("idle", "half", "busy", "piped", "silent")
    clients = {name: server.connect() for name in names}
    for name in names[:-1]:
        exchange(clients[name], b"hello")
    clients["half"].sendall(b"unfinished")
    clients["busy"].sendall(b"slow\n")
    clients["piped"].sendall(b"slow\n" + b"x\n" * 500)
    until(lambda: server.log.count("at work") == 2, what="two handlers at work")
    server.process.send_signal(number)
    assert without_hint(rest(clients["idle"])) == TOLD
    assert without_hint(rest(clients["half"])) == TOLD
    assert without_hint(rest(clients["busy"])) == b"Received: slow\n" + TOLD
    assert without_hint(rest(clients["piped"])) == b"Received: slow\n" + b"Received: x\n" * 500 + TOLD
    assert without_hint(rest(clients["silent"])) == TOLD
    for each in clients.values():
        each.close()
    assert server.process.wait(30) == 0
    assert "0 clients cut off" in server.log


def test_clients_of_tls_and_unix_sockets_are_told_as_well(operate: Operate, tmp_path: Path) -> None:
    """The last words come through TLS, and the stream ends in order."""
    import ssl

    pem = certificate(tmp_path, "server")
    path = tmp_path / "chat.sock"
    server = operate(
        *("--listen", f"tls://127.0.0.1:0,unix://{path}"),
        *("--tls-certificate", str(pem), "--tls-key", str(tmp_path / "server.key")),
    )
    context = ssl.create_default_context(cafile=str(pem))
    with (
        context.wrap_socket(
            server.connect(), server_hostname="localhost", suppress_ragged_eofs=False
        ) as secure,
        socket.socket(socket.AF_UNIX) as local,
    ):
        local.connect(str(path))
        exchange(secure, b"hello")
        exchange(local, b"hello")
        server.process.send_signal(signal.SIGTERM)
        assert without_hint(rest(secure)) == TOLD
        assert without_hint(rest(local)) == TOLD
    assert server.process.wait(30) == 0


def test_who_waits_in_the_queue_is_served(operate: Operate) -> None:
    """100 clients that connected and sent while the server stood still: each is confirmed, then told."""
    server = operate("--port", "0", "--framing", "line", "--drain-timeout", "30")
    server.process.send_signal(signal.SIGSTOP)
    clients = [server.connect() for _ in range(100)]
    for each in clients:
        each.sendall(b"hello\n")
    server.process.send_signal(signal.SIGTERM)
    server.process.send_signal(signal.SIGCONT)
    for each in clients:
        assert without_hint(rest(each)) == b"Received: hello\n" + TOLD
        each.close()
    assert server.process.wait(30) == 0


def test_clients_that_keep_coming_see_no_reset(operate: Operate) -> None:
    """While the server stops, a new client is served, or refused, or not answered: never cut off."""
    server = operate("--port", "0", "--framing", "line", "--drain-timeout", "30")
    address = server.address()
    ends: dict[str, int] = {"served": 0, "refused": 0}
    wrong: list[str] = []

    def keep_coming() -> None:
        while True:
            try:
                client = socket.create_connection(address, 15)
            except (ConnectionRefusedError, TimeoutError):
                ends["refused"] += 1
                return
            with client:
                try:
                    client.settimeout(30)
                    client.sendall(b"hello\n")
                    got = receive(client, 16)
                    ends["served"] += 1
                except OSError as error:
                    wrong.append(str(error))
                    return
                if got != b"Received: hello\n":
                    wrong.append(repr(got))

    threads = [threading.Thread(target=keep_coming) for _ in range(4)]
    for each in threads:
        each.start()
    until(lambda: ends["served"] > 200)
    assert server.stop() == 0
    for each in threads:
        each.join(30)
    assert wrong == []
    assert ends["refused"] == 4


def test_clients_are_asked_to_leave_one_after_the_other(operate: Operate) -> None:
    """300 clients are told over 3 s, not all in the same moment, so that they don't come back as a herd."""
    server = operate("--port", "0", "--framing", "line", "--drain-timeout", "30")
    clients = [server.connect() for _ in range(300)]
    for each in clients:
        exchange(each, b"hello")
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    told = []
    for each in clients:
        assert without_hint(rest(each)) == TOLD
        told.append(time.monotonic() - began)
        each.close()
    assert server.process.wait(30) == 0
    assert told[-1] > 2.9
    # However late this process reads what the first was told, some are told after that.
    assert told[-1] - told[0] > 0.2


def hold(operate: Operate, tmp_path: Path, *arguments: str) -> ServerProcess:
    """A server with a handler that takes a minute."""
    (tmp_path / "stuck.py").write_text(
        "import sys, gevent\n"
        "def answer(text, client):\n"
        "    print('at work', file=sys.stderr, flush=True)\n"
        "    gevent.sleep(60)\n"
    )
    return operate("--port", "0", "--handler", "stuck:answer", *arguments, cwd=tmp_path)


def test_the_second_signal_ends_it_at_once(operate: Operate, tmp_path: Path) -> None:
    """And the exit status says that somebody was cut off."""
    server = hold(operate, tmp_path, "--drain-timeout", "60")
    with server.connect() as client:
        client.sendall(b"hello\n")
        server.logged("at work")
        server.process.send_signal(signal.SIGTERM)
        server.logged("draining 1 clients")
        assert server.stop() == 3  # long before the time to drain, or the handler's, is over
        assert rest(client) == b""
    server.logged("1 clients cut off")
    assert "Traceback" not in server.log


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_second_signal_waits_for_no_hook(operate: Operate, tmp_path: Path, workers: str) -> None:
    """It comes while ``stopping`` is still at work, before anybody is told: the same end, and status."""
    (tmp_path / "waits.py").write_text(
        "import sys, gevent\n"
        "from chat_gevent import Service\n"
        "class Waits(Service):\n"
        "    def message(self, message, client):\n"
        "        print('at work', file=sys.stderr, flush=True)\n"
        "        gevent.sleep(600)\n"
        "    def stopping(self, server):\n"
        "        print('about to stop', file=sys.stderr, flush=True)\n"
        "        gevent.sleep(600)\n"
    )
    options = ("--workers", workers, "--drain-timeout", "600", "--handler", "waits:Waits")
    server = operate("--port", "0", *options, cwd=tmp_path)
    with server.connect() as client:
        client.sendall(b"hello\n")
        server.logged("at work")
        server.process.send_signal(signal.SIGTERM)
        server.logged("about to stop")
        assert server.stop() == 3
        assert rest(client) == b""
    assert server.log.count("second signal: the drain ends now") == 1
    server.logged("1 clients cut off")
    assert "SIGKILL" not in server.log  # no worker had to be killed
    assert "Traceback" not in server.log


def test_the_time_to_drain_is_a_limit(operate: Operate, tmp_path: Path) -> None:
    """Whoever is not done by then is cut off: exit status 3."""
    server = hold(operate, tmp_path, "--drain-timeout", "2")
    with server.connect() as client, server.connect() as idle:
        client.sendall(b"hello\n")
        server.logged("at work")
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert without_hint(rest(idle)) == TOLD
        assert server.process.wait(30) == 3
        assert time.monotonic() - began > 1.9
    assert "Traceback" not in server.log


def test_one_who_never_reads_is_cut_off_and_counted(operate: Operate) -> None:
    """Replies that were due and could not be sent: the exit status says so."""
    server = operate("--port", "0", "--framing", "line", "--drain-timeout", "1", "--admin", ":0")
    [client] = stuff(server, 1, b"x" * 1000 + b"\n")
    with client:
        assert server.stop() == 3


def test_one_who_talks_on_is_not_waited_for(operate: Operate) -> None:
    """After its last reply a client that keeps sending is closed when ``linger_timeout`` is over: exit 0."""
    server = operate("--port", "0", "--framing", "line", "--linger-timeout", "0.3", "--drain-timeout", "30")
    with server.connect() as client:
        exchange(client, b"hello")
        server.process.send_signal(signal.SIGTERM)
        assert without_hint(rest(client)) == TOLD
        try:
            for _ in range(2000):
                client.sendall(b"more\n")
                time.sleep(0.002)
                if server.process.poll() is not None:
                    break
        except (ConnectionResetError, BrokenPipeError):
            pass
        assert server.process.wait(30) == 0


@pytest.mark.parametrize("how", ["proxy", "tls"])
def test_who_has_just_begun_is_served_and_told(operate: Operate, tmp_path: Path, how: str) -> None:
    """A PROXY header or a TLS handshake may still be due when the signal comes: what had been sent is
    answered, and all are told; nobody sees a reset or an end without a word."""
    if how == "proxy":
        options: tuple[str, ...] = ("--port", "0", "--proxy-from", "127.0.0.1")
    else:
        certificate(tmp_path, "server")
        options = ("--listen", "tls://127.0.0.1:0", "--tls-certificate", str(tmp_path / "server.pem"))
        options += ("--tls-key", str(tmp_path / "server.key"))
    server = operate(*options)
    server.process.send_signal(signal.SIGSTOP)
    replies: list[bytes] = []

    def client() -> None:
        with server.connect() as plain:
            if how == "proxy":
                plain.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 5001\r\nhello\n")
                replies.append(rest(plain))
                return
            context = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
            with context.wrap_socket(plain, server_hostname="localhost") as secure:
                secure.sendall(b"hello\n")
                replies.append(rest(secure))

    threads = [threading.Thread(target=client) for _ in range(5)]
    for thread in threads:
        thread.start()
    queue = f":{server.port:04X} 00000000:0000 0A 00000000:00000005"
    until(lambda: queue in Path("/proc/net/tcp").read_text(), what="five clients in the queue")
    server.process.send_signal(signal.SIGTERM)
    server.process.send_signal(signal.SIGCONT)
    for thread in threads:
        thread.join(30)
    assert len(replies) == 5
    for reply in replies:
        if how == "tls":  # whose message comes after the handshake, and perhaps after the server has gone
            assert without_hint(reply) in (TOLD, b"Received: hello\n" + TOLD)
        else:
            assert without_hint(reply) == b"Received: hello\n" + TOLD
    assert server.process.wait(30) == 0


def test_a_library_server_drains_with_stop(serve: Callable[..., object]) -> None:
    """``ChatServer.stop(seconds)`` does the same, and returns how many were cut off."""
    import gevent

    from tests.peers import Peer

    at_work: list[str] = []

    def answer(text: str, client: object) -> str:
        if text == "stuck":
            at_work.append(text)
            gevent.sleep(30)
        return text

    server: Any = serve(answer)
    with Peer(server.address) as idle, Peer(server.address) as stuck:
        idle.send(b"a\n")
        idle.expect(b"a\n")
        stuck.send(b"stuck\n")
        wait_until(lambda: at_work)
        stopping = gevent.spawn(server.stop, 2)
        assert without_hint(idle.rest()) == TOLD
        assert stopping.get(timeout=30) == 1
