"""Faults that were found by attack, or by users: real processes, real connections, broken on purpose."""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from chat_gevent.listeners import HANDSHAKE_SECONDS
from tests.cables import Cable, cable
from tests.conftest import require, require_tool
from tests.operate import ServerProcess, certificate, exchange, receive, rest, until

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


@pytest.mark.timeout(180)
def test_lost_probes_end_no_client_before_their_number(operate: Operate, hosts: Cable) -> None:
    """Probes after 2 s of silence, ten of them a second apart: 5 s without a link lose no client.

    A cut cable is found by the probes, when they are over.
    """
    server = operate(
        *("--listen", "tcp://10.77.0.1:0", "--framing", "line", "--access-log", "--write-timeout", "1"),
        *("--keepalive-idle", "2", "--keepalive-interval", "1", "--keepalive-probes", "10"),
        prefix=hosts.inside_here,
    )
    with FarClient(hosts, server) as client:
        assert client.ask(b"before") == b"Received: before\n"
        hosts.plug("down")
        time.sleep(5)  # the fault itself: at least two probes are lost
        hosts.plug("up")
        began = time.monotonic()
        assert client.ask(b"after") == b"Received: after\n"
        hosts.plug("down")
        server.logged("closed client=.* messages=2 .*reason=lost", 60)
        assert time.monotonic() - began > 11
    assert server.stop() == 0


def test_a_user_timeout_by_hand_is_kept_and_said(operate: Operate, hosts: Cable) -> None:
    """Set shorter than the probes it ends a client at the first of them, as asked, and the log says so."""
    server = operate(
        *("--listen", "tcp://10.77.0.1:0", "--framing", "line", "--access-log", "--tcp-user-timeout", "2"),
        *("--keepalive-idle", "2", "--keepalive-interval", "1", "--keepalive-probes", "98"),
        prefix=hosts.inside_here,
    )
    said = r"cuts short the probes of keepalive \(100 s\) and write_timeout \(30 s\)"
    server.logged(rf"WARNING tcp_user_timeout \(2 s\) {said}")
    with FarClient(hosts, server) as client:
        assert client.ask(b"before") == b"Received: before\n"
        hosts.plug("down")
        server.logged("closed client=.* messages=1 .*reason=lost")
    assert server.stop() == 0


@contextmanager
def failing(server: ServerProcess, call: str, error: str) -> Iterator[None]:
    """Have each ``call`` of a running server end with ``error``; the machine's own limits are left alone."""
    strace = [require_tool("strace"), "-f", "-p", str(server.process.pid), "-o", "/dev/null"]
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:error={error}"]
    with subprocess.Popen([*strace, *inject], stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        while "attached" not in (line := tracer.stderr.readline()):
            assert line, "strace can't attach"
        try:
            yield
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.communicate(timeout=30)


def test_started_without_epoll_watches(operate: Operate) -> None:
    """It does not say ready: it ends with one line that names the limit, and status 1."""
    strace = (require_tool("strace"), "-f", "-o", "/dev/null", "-e", "inject=epoll_ctl:error=ENOSPC")
    server = operate("--port", "0", prefix=strace, ready=False)
    out, _ = server.process.communicate(timeout=30)
    assert out == b""
    assert server.process.returncode == 1
    assert "no epoll watches left (fs.epoll.max_user_watches)" in server.log
    assert "Traceback" not in server.log


def test_out_of_epoll_watches_while_running(operate: Operate) -> None:
    """A client that can't be watched is told server-full; those inside are served, and so is SIGTERM."""
    server = operate("--port", "0", "--framing", "line", "--admin", "127.0.0.1:0")
    with server.connect() as inside:
        exchange(inside, b"hello")
        with failing(server, "epoll_ctl", "ENOSPC"):
            for _ in range(3):
                with server.connect() as refused:
                    assert rest(refused).startswith(b"Error: server-full: ")
            exchange(inside, b"still here")
        server.logged("ERROR out of epoll watches")
        with server.connect() as again:
            exchange(again, b"hello")
        assert server.metric('chat_gevent_refused_total{reason="server-full"}') == 3
        with failing(server, "epoll_ctl", "ENOSPC"):
            exchange(inside, b"and on")
            server.process.send_signal(signal.SIGTERM)
            assert rest(inside).startswith(b"Error: shutting-down: ")
        inside.close()
        assert server.process.wait(30) == 0
    assert "Traceback" not in server.log


@pytest.mark.parametrize("error", ["ENOMEM", "ENOBUFS", "EMFILE"])
def test_accept_fails_for_want_of_memory(operate: Operate, error: str) -> None:
    """The log says so once a second, and clients that waited are served afterwards."""
    server = operate("--port", "0", "--framing", "line")
    began = time.monotonic()
    with failing(server, "accept4", error), server.connect() as client:
        client.sendall(b"hello\n")
        server.logged(r"ERROR out of (memory|file descriptors) \(")
    with client if client.fileno() >= 0 else server.connect() as client:
        exchange(client, b"hello")
    assert server.stop() == 0
    assert "Traceback" not in server.log
    assert server.log.count("ERROR out of") <= time.monotonic() - began + 1


def test_a_page_that_fails_says_so(operate: Operate) -> None:
    """Its figures can't be read: 500, and one traceback, in the log's own form. Health is told meanwhile, and
    pages and samples are there again afterwards."""
    server = operate("--port", "0", "--admin", ":0")
    assert server.ask("/metrics")[0] == 200  # all that it imports is there
    with failing(server, "openat", "EMFILE"):
        assert server.ask("/metrics") == (500, "this page failed; the log says why\n")
        assert server.ask("/healthz") == (200, "ok\n")
        server.logged("WARNING there is no sample of this second: Too many open files")
    server.logged(r"ERROR the admin page /metrics failed\n    Traceback")
    assert server.log.count("Traceback") == 1
    assert server.ask("/metrics")[0] == 200

    def newest() -> float:
        return float(json.loads(server.ask("/status.json")[1])["history"]["newest"] or 0)

    before = newest()
    until(lambda: newest() > before)


class _Filter:
    """A filter that drops every packet that comes to a socket."""

    def __init__(self) -> None:
        self._program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))

    def attach(self, client: socket.socket) -> None:
        client.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HP", 1, ctypes.addressof(self._program)))

    def detach(self, client: socket.socket) -> None:
        client.setsockopt(socket.SOL_SOCKET, 27, 0)


def test_a_handshake_under_way_is_not_reset(operate: Operate) -> None:
    """The server has had the SYN when it is told to stop: the client gets in, and its message is answered."""

    def gets_in() -> bool:
        server = operate("--port", "0", "--framing", "line")
        drop = _Filter()
        with socket.socket() as client:
            client.setblocking(False)
            drop.attach(client)  # the SYN-ACK: the kernel repeats it a second after the first
            client.connect_ex(server.address())
            listening = f":{server.port:04X}"
            until(lambda: re.search(rf"{listening} \S+ 03 ", Path("/proc/net/tcp").read_text()))
            server.process.send_signal(signal.SIGTERM)
            drop.detach(client)
            until(lambda: select.select([], [client], [], 0)[1])
            if client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED:
                return False
            client.settimeout(30)
            client.sendall(b"hello\n")
            assert re.match(b"Received: hello\nError: shutting-down: ", rest(client))
        assert server.process.wait(30) == 0
        return True

    # The server waits 0.2 s longer than the kernel takes to repeat it: too short, at times, if all is busy.
    until(gets_in)


def test_nobody_waits_where_no_handshake_is_under_way(operate: Operate) -> None:
    """A stop without clients takes no time for handshakes, which are waited for as long as this here."""

    def stops_soon() -> bool:
        server = operate("--port", "0")
        began = time.monotonic()
        assert server.stop() == 0
        return time.monotonic() - began < HANDSHAKE_SECONDS

    until(stops_soon)  # in the end: a busy machine takes its time too


def test_drain_delay(operate: Operate) -> None:
    """/readyz says 503 first, while new clients are still admitted; then the server drains."""
    server = operate("--port", "0", "--framing", "line", "--drain-delay", "4", "--admin", "127.0.0.1:0")
    with server.connect() as before:
        exchange(before, b"hello")
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.ask("/readyz")[0] == 503)
        assert server.ask("/healthz")[0] == 200
        with server.connect() as during:
            exchange(during, b"hello")
            for each in (before, during):
                assert rest(each).startswith(b"Error: shutting-down: ")
                each.close()
        assert time.monotonic() - began > 3.9
    assert server.process.wait(30) == 0


def test_a_second_signal_ends_the_delay(operate: Operate) -> None:
    """Whoever asks twice does not wait for it: the drain begins."""
    server = operate("--port", "0", "--framing", "line", "--drain-delay", "1h")
    with server.connect() as client:
        exchange(client, b"hello")
        server.process.send_signal(signal.SIGTERM)
        server.logged("INFO draining in 3600 s")
        server.process.send_signal(signal.SIGTERM)
        assert rest(client).startswith(b"Error: shutting-down: ")
    assert server.process.wait(30) == 0


HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_a_listener_that_another_process_has_shut_down(operate: Operate) -> None:
    """Nobody can connect any more: the log says so, and the server drains and ends with status 1."""
    with socket.create_server(("127.0.0.1", 0)) as shared:
        fd = shared.fileno()
        server = operate(
            *("--framing", "line"), prefix=(sys.executable, "-c", HAND_OVER, str(fd)), pass_fds=(fd,)
        )
        with server.connect() as client:
            exchange(client, b"hello")
            shared.shutdown(socket.SHUT_RDWR)
            server.logged("ERROR nobody can connect to tcp://127.0.0.1:")
            assert rest(client).startswith(b"Error: shutting-down: ")
    assert server.process.wait(30) == 1
    assert "Traceback" not in server.log


def test_one_of_two_listeners_is_shut_down(operate: Operate) -> None:
    """The other one goes on, and /readyz says 503."""
    with socket.create_server(("127.0.0.1", 0)) as shared:
        fd = shared.fileno()
        server = operate(
            *("--framing", "line", "--admin", "127.0.0.1:0", "--listen", "tcp://127.0.0.1:0"),
            prefix=(sys.executable, "-c", HAND_OVER, str(fd)),
            pass_fds=(fd,),
        )
        assert server.ask("/readyz")[0] == 200
        shared.shutdown(socket.SHUT_RDWR)
        until(lambda: server.ask("/readyz")[0] == 503)
        with server.connect(1) as client:
            exchange(client, b"hello")
    assert server.stop() == 0


def _handler(tmp_path: Path, text: str) -> dict[str, Any]:
    (tmp_path / "handling.py").write_text(text)
    return {"cwd": tmp_path}


def test_the_watchdog_goes_by_the_clock(operate: Operate, tmp_path: Path) -> None:
    """A loop that is late by 0.9 s each time is slow, not stuck: the manager hears of it within its 2 s."""
    text = "import gevent, time\ndef handle(message, client):\n    time.sleep(0.9)\n    return message\n"
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with manager, socket.socket() as client:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        server = operate(
            *("--port", "0", "--handler", "handling:handle"),
            env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"},
            **_handler(tmp_path, text),
        )
        client.connect(server.address())
        client.settimeout(30)
        beats: list[float] = []

        def listen() -> None:
            while len(beats) < 5:
                if b"WATCHDOG=1" in manager.recv(4096):
                    beats.append(time.monotonic())

        listening = threading.Thread(target=listen)
        listening.start()
        while listening.is_alive():  # the loop is blocked nearly all the time
            client.sendall(b"x\n")
            assert client.recv(10) == b"x\n"
        assert len(beats) == 5
        # Most of them: one may be late because this process was.
        assert sorted(after - before for before, after in itertools.pairwise(beats))[2] < 2


def test_patched_inside_a_handler(operate: Operate, tmp_path: Path) -> None:
    """A handler that calls patch_all() first when it is called: the process still ends when it is told to."""
    patches = "    monkey.patch_all()\n    return message\n"
    text = f"from gevent import monkey\ndef handle(message, client):\n{patches}"
    server = operate("--port", "0", "--handler", "handling:handle", **_handler(tmp_path, text))
    with server.connect() as client:
        client.sendall(b"hello\n")
        assert client.recv(100) == b"hello\n"
        server.process.send_signal(signal.SIGTERM)
        assert rest(client).startswith(b"Error: shutting-down: ")
    assert server.process.wait(30) == 0


def test_a_second_signal_counts_once(operate: Operate, tmp_path: Path) -> None:
    """Both log lines tell of the same clients: five are cut off, and the status is 3."""
    text = (
        "import gevent, sys\n"
        "def handle(message, client):\n"
        "    print('at work', file=sys.stderr, flush=True)\n"
        "    gevent.sleep(100)\n"
    )
    server = operate("--port", "0", "--handler", "handling:handle", **_handler(tmp_path, text))
    clients = [server.connect() for _ in range(5)]
    for each in clients:
        each.sendall(b"hello\n")
    until(lambda: server.log.count("at work") == 5)
    server.process.send_signal(signal.SIGTERM)
    server.logged("INFO draining 5 clients")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 3
    for each in clients:
        each.close()
    server.logged("WARNING second signal: the drain ends now")
    assert re.findall(r"(\d+) clients (?:are )?cut off", server.log) == ["5"]


PATCHED_HANDLER = """
import socket, gevent.socket
def handle(message, client):
    return str(socket.socket is gevent.socket.socket)
"""


@pytest.mark.parametrize("how", ["gevent.monkey", "--monkey", "environment", "not"])
def test_served_after_patching(operate: Operate, tmp_path: Path, how: str) -> None:
    """Patched by ``python -m gevent.monkey``, by the option or by the variable: it serves, logs and stops."""
    server = operate(
        *("--port", "0", "--handler", "handling:handle", *(["--monkey"] if how == "--monkey" else [])),
        prefix=(sys.executable, "-m", "gevent.monkey") if how == "gevent.monkey" else (),
        env={"CHAT_GEVENT_MONKEY": "yes"} if how == "environment" else {},
        **_handler(tmp_path, PATCHED_HANDLER),
    )
    with server.connect() as client:
        client.sendall(b"hello\n")
        assert client.recv(100) == (b"False\n" if how == "not" else b"True\n")
    assert server.stop() == 0
    assert "INFO stopped: 1 messages answered" in server.log
    assert "Warning" not in server.log


def test_patching_asked_for_too_late(operate: Operate, tmp_path: Path) -> None:
    """In the file it can't be honoured any more, and that is said, with status 2."""
    (tmp_path / "server.toml").write_text("monkey = true\n")
    server = operate("--port", "0", "--config", str(tmp_path / "server.toml"), ready=False)
    assert server.process.wait(30) == 2
    assert "monkey: too late here; give it as --monkey or CHAT_GEVENT_MONKEY=true" in server.log


def _named(tmp_path: Path, address: str) -> tuple[str, ...]:
    """What a command begins with that is to run on a machine whose own name has ``address``."""
    require(os.geteuid() == 0, "root, for namespaces")
    hosts = tmp_path / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{address} own-name\n")
    script = f'hostname own-name && mount --bind {hosts} /etc/hosts && exec "$@"'
    return (require_tool("unshare"), "--uts", "--mount", "sh", "-c", script, "sh")


BY_NAME = """
import socket, sys
client = socket.create_connection((socket.gethostbyname(socket.gethostname()), int(sys.argv[1])), 30)
client.sendall(b"hello")
print(client.recv(1024).decode())
"""


def test_a_client_by_the_own_name_finds_the_server(operate: Operate, tmp_path: Path) -> None:
    """It looks for its machine's name, which is 127.0.1.1 on a stock Debian: the default server is there."""
    prefix = _named(tmp_path, "127.0.1.1")
    server = operate("--port", "0", prefix=prefix)
    assert server.urls == [f"tcp://127.0.0.1:{server.port}", f"tcp://127.0.1.1:{server.port}"]
    seen = subprocess.run(
        [*prefix, sys.executable, "-c", BY_NAME, str(server.port)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout == "Received: hello\n"
    for where in (("--host", "127.0.0.1"), ("--listen", "tcp://127.0.0.1:0")):
        assert len(operate("--port", "0", *where, prefix=prefix).urls) == 1


def test_which_host_clients_by_the_own_name_look_for(operate: Operate, tmp_path: Path) -> None:
    """Where the name has an address that others may connect to, it is not listened on unasked, but named."""
    server = operate("--port", "0", prefix=_named(tmp_path, "192.0.2.1"))
    assert len(server.urls) == 1
    server.logged("INFO for clients that look for this machine by its name, own-name: serve --host 192.0.2.1")


def test_the_address_of_the_own_name_is_taken(operate: Operate, tmp_path: Path) -> None:
    """Somebody else listens there: a warning, and the server serves where it can."""
    with socket.create_server(("127.0.1.1", 0)) as other:
        server = operate("--port", str(other.getsockname()[1]), prefix=_named(tmp_path, "127.0.1.1"))
        assert len(server.urls) == 1
        server.logged("WARNING clients that look for this machine by its name, own-name, find nobody: ")


def test_the_narrowest_limit_is_the_default(operate: Operate) -> None:
    """Most clients are no more than memory carries, however many files may be open."""
    server = operate("--port", "0")
    most = int(server.logged(r"to at most (\d+) clients")[1])
    memory = Path("/proc/meminfo").read_text()
    available = int(re.search(r"MemTotal: +(\d+) kB", memory)[1])  # type: ignore[index]
    assert most <= available / 5.3
    assert most <= int(Path("/proc/sys/fs/epoll/max_user_watches").read_text())


def test_the_sum_of_unfinished_messages(operate: Operate) -> None:
    """Beyond the budget the largest go first, told why; the small ones stay, and memory is counted back."""
    server = operate(
        "--port", "0", "--framing", "line", "--input-total-bytes", "256KiB", "--admin", "127.0.0.1:0"
    )
    small = [server.connect() for _ in range(5)]
    for each in small:
        each.sendall(b"x" * 1000)
    busy = 'chat_gevent_errors_total{code="server-busy"}'
    for _ in range(3):  # the budget is free again each time
        before = server.metric(busy)
        large = [server.connect() for _ in range(6)]
        told = []
        for each in large:
            each.sendall(b"y" * 60_000)
        until(lambda: server.metric(busy) > before)  # noqa: B023 - it is called in this round
        for each in large:
            each.sendall(b"\n")
            told.append(receive(each, 12))
            each.close()
        assert b"Error: serve" in told
        assert b"Received: yy" in told
        until(lambda: server.metric("chat_gevent_connections") == len(small))
    for each in small:
        each.sendall(b"\n")
        assert receive(each, 1011) == b"Received: " + b"x" * 1000 + b"\n"
        each.close()


def _reasons(server: ServerProcess) -> set[str]:
    return set(re.findall(r'closed_total{reason="([a-z-]+)"} [1-9]', server.ask("/metrics")[1]))


@pytest.mark.parametrize("how", ["plain", "tls", "proxy"])
def test_health_checks_are_counted_and_no_more(operate: Operate, tmp_path: Path, how: str) -> None:
    """One that connects and leaves, with a FIN or as HAProxy does with RST: no warning, and no ``reset``."""
    certificate(tmp_path, "server")
    tls = ("--tls-certificate", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.key"))
    more = {"plain": (), "tls": tls, "proxy": ("--proxy-from", "127.0.0.1")}[how]
    server = operate("--port", "0", "--admin", "127.0.0.1:0", *more)
    for reset in (True, False):
        check = server.connect()
        if reset:
            check.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        check.close()
    until(
        lambda: (
            server.metric("chat_gevent_accepted_total") == 2 and server.metric("chat_gevent_connections") == 0
        )
    )
    until(lambda: _reasons(server) == ({"eof", "unused"} if how == "plain" else {"unused"}))
    assert "WARNING" not in server.log


@pytest.mark.parametrize("how", ["send-proxy-v2 check-send-proxy", "check-ssl verify none"])
def test_haproxys_own_check(operate: Operate, tmp_path: Path, how: str) -> None:
    """It ends what it has begun with RST: that is counted as unused, and is no reset and no warning."""
    certificate(tmp_path, "server")
    tls = ("--tls-certificate", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.key"))
    more = tls if "ssl" in how else ("--proxy-from", "127.0.0.1")
    server = operate("--port", "0", "--admin", "127.0.0.1:0", *more)
    file = tmp_path / "haproxy.cfg"
    file.write_text(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n"
        f"listen all\n bind {tmp_path}/front\n server one 127.0.0.1:{server.port} check inter 50ms {how}\n"
    )
    haproxy = subprocess.Popen([require_tool("haproxy"), "-db", "-f", str(file)], stderr=subprocess.DEVNULL)
    try:
        until(lambda: server.metric("chat_gevent_accepted_total") > 5)
        until(lambda: _reasons(server))
        assert _reasons(server) <= {"unused", "eof"}
        assert "WARNING" not in server.log
    finally:
        haproxy.terminate()
        haproxy.wait(30)


@pytest.mark.parametrize("park_after", ["0", "never"])
@pytest.mark.parametrize(("rate", "reason"), [("100000", "write-timeout"), ("0", "")])
def test_a_reader_that_takes_a_little_now_and_then(
    operate: Operate, park_after: str, rate: str, reason: str
) -> None:
    """It stays for ever, unless there is a minimum rate; then it is closed once its grace is over."""
    server = operate(
        *(
            "--port",
            "0",
            "--framing",
            "line",
            "--write-timeout",
            "4",
            "--min-read-rate",
            rate,
            "--access-log",
        ),
        *("--park-after", park_after),
    )
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(server.address())
        client.setblocking(False)
        end = time.monotonic() + (40 if reason else 10)
        while time.monotonic() < end and "reason=" not in server.log:
            with suppress(OSError):
                while True:
                    client.send(b"z\n" * 500)
            with suppress(OSError):
                client.recv(4000)
            time.sleep(0.2)  # the client is slow
        assert re.findall(r"reason=(\S+)", server.log) == ([reason] if reason else [])
