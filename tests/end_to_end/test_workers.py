"""``serve --workers``: several processes that an operator sees, and clients feel, as one server."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from chat_gevent.command.master import SPARE_SLOTS
from tests.conftest import command
from tests.operate import ServerProcess, certificate, exchange, receive, rest, until

FLOOD = Path(__file__).parent.parent / "flood.py"

CLIENTS = int(os.environ.get("TEST_CLIENTS", "200"))
"""How many send flat out under a signal; set it to 2000 on a quiet machine."""

HANDLER = """
import os, sys
import gevent
def tell_process(message, client):
    if message == "wait":
        print("at work", file=sys.stderr, flush=True)
        gevent.sleep(60)
    return str(os.getpid())
"""

PATIENT = ("--linger-timeout", "60")
"""For clients that have much to do before they read the last word: none is reset meanwhile."""

Operate = Callable[..., ServerProcess]


@pytest.fixture
def tells(operate: Operate, tmp_path: Path) -> Operate:
    """Start servers whose workers answer with the number of their process."""
    (tmp_path / "tells.py").write_text(HANDLER)

    def start(*arguments: str, workers: int = 4, prefix: tuple[str, ...] = ()) -> ServerProcess:
        handler = ("--handler", "tells:tell_process", "--framing", "line")
        options = ("--port", "0", "--workers", str(workers), *handler, *arguments)
        return operate(*options, cwd=tmp_path, prefix=prefix)

    return start


def children(server: ServerProcess) -> set[int]:
    """The processes that the server's process has started, and that have not ended."""
    pid = server.process.pid
    found = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return {each for each in found if runs(each)}


def runs(pid: int) -> bool:
    """Whether a process has not ended, nor waits to be reaped."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def worker_of(client: socket.socket) -> int:
    """The process that serves a client."""
    client.sendall(b"who\n")
    data = b""
    while not data.endswith(b"\n"):
        more = client.recv(64)
        assert more, f"closed after {data!r}"
        data += more
    return int(data)


def a_client_of(server: ServerProcess, worker: int) -> socket.socket:
    """A client that this worker serves."""

    def try_one() -> socket.socket | None:
        client = server.connect()
        if worker_of(client) == worker:
            return client
        client.close()
        return None

    found: socket.socket = until(try_one)
    return found


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_so_many_workers_serve(operate: Operate, workers: int) -> None:
    """The ready line comes once; 0 means one for each core; one worker is a process without children."""
    server = operate("--port", "0", "--workers", str(workers))
    expected = workers or len(os.sched_getaffinity(0))
    assert len(children(server)) == (0 if expected == 1 else expected)
    with server.connect() as client:
        exchange(client, b"hello")
    assert server.stop() == 0
    assert server.process.stdout is not None
    assert server.process.stdout.read() == b""


def test_clients_are_spread_evenly_and_ports_are_one(tells: Operate) -> None:
    """Of 2,000 clients no worker of four has more than 1.25 of the mean (more than six deviations above it),
    and the master has started no event loop: it has no epoll descriptor."""
    server = tells()
    kernel = Path(f"/proc/{server.process.pid}/fd")
    assert not [each for each in kernel.iterdir() if "eventpoll" in str(each.readlink())]
    found: Counter[int] = Counter()
    for _ in range(20):
        clients = [server.connect() for _ in range(100)]
        for each in clients:
            each.sendall(b"who\n")
        found.update(int(each.makefile().readline()) for each in clients)
        for each in clients:
            each.close()
    assert set(found) == children(server)
    assert max(found.values()) <= 1.25 * 500
    second = subprocess.run(
        command("serve", "--workers", "2", "--port", str(server.port)),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert second.returncode == 1
    assert "Address already in use" in second.stderr


def test_a_killed_worker_is_replaced_and_only_its_clients_notice(tells: Operate) -> None:
    """After kill -9 another worker is there without a pause, on the same sockets; other clients stay."""
    server = tells()
    before = children(server)
    killed = min(before)
    clients = {each: a_client_of(server, each) for each in before}
    os.kill(killed, signal.SIGKILL)
    until(lambda: len(children(server) - before) == 1)
    [new] = children(server) - before
    waiting = [server.connect() for _ in range(40)]
    assert {worker_of(each) for each in waiting} == before - {killed} | {new}
    server.logged("is dead; another one starts in 0 s")
    for pid, client in clients.items():
        if pid != killed:
            assert worker_of(client) == pid
    with pytest.raises((ConnectionError, AssertionError)):
        worker_of(clients[killed])
    for each in (*clients.values(), *waiting):
        each.close()
    assert server.stop() == 0


def await_beat(worker: int) -> None:
    """Wait until a worker says once more that its loop runs, by the time of a file that it shares with the
    master."""

    def last() -> float:
        files = Path(f"/proc/{worker}/fd").iterdir()
        return max(each.stat().st_mtime for each in files if "wgunicorn-" in str(each.readlink()))

    before = last()
    until(lambda: last() != before, what="a beat")


def test_what_a_killed_worker_answered_is_counted(tells: Operate) -> None:
    """The line at the end leaves out no more than its last second."""
    server = tells(workers=2)
    with server.connect() as client:
        for _ in range(100):
            worker = worker_of(client)
        await_beat(worker)
        await_beat(worker)  # what comes with the first one has been written by now
        os.kill(worker, signal.SIGKILL)
        server.logged("is dead; another one starts in 0 s")
    assert server.stop() == 0
    server.logged("stopped: 100 messages answered, 0 clients cut off")


def flood(server: ServerProcess, number: int) -> tuple[dict[str, object], float]:
    """What clients saw that send flat out while the server gets a signal, and how long that took."""
    host, port = server.address()
    flooding = subprocess.Popen(
        [sys.executable, str(FLOOD), host, str(port), str(CLIENTS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert flooding.stdout is not None
        assert select.select([flooding.stdout], [], [], 60)[0]
        assert flooding.stdout.readline() == b"flooding\n"
        began = time.monotonic()
        server.process.send_signal(number)
        out, err = flooding.communicate(timeout=90)
    finally:
        if flooding.poll() is None:
            flooding.kill()
            flooding.communicate()
    assert not err
    seen: dict[str, object] = json.loads(out)
    return seen, time.monotonic() - began


@pytest.mark.timeout(180)
def test_sigterm_under_load_loses_nothing(operate: Operate) -> None:
    """All workers count as many messages as confirmations arrived; every client is told, none is reset."""
    server = operate("--port", "0", "--workers", "4", "--drain-timeout", "60", *PATIENT)
    seen, _ = flood(server, signal.SIGTERM)
    assert seen["ends"] == {"told": CLIENTS}
    assert server.process.wait(30) == 0
    stopped = re.search(r"stopped: (\d+) messages answered, 0 clients cut off", server.log)
    assert stopped
    assert int(stopped[1]) == seen["confirmed"]
    assert int(stopped[1]) > CLIENTS


@pytest.mark.timeout(180)
def test_sighup_under_load_loses_nothing(operate: Operate) -> None:
    """A new generation serves, the old one's clients are told over ``reload_interval``, and none is reset."""
    server = operate("--port", "0", "--workers", "4", "--reload-interval", "1.5", *PATIENT)
    before = children(server)
    seen, took = flood(server, signal.SIGHUP)
    assert seen["ends"] == {"told": CLIENTS}
    assert took > 1
    server.logged("SIGHUP: 4 workers are replaced")
    until(lambda: len(children(server)) == 4)
    assert not children(server) & before
    with server.connect() as client:
        exchange(client, b"hello")
    assert server.stop() == 0
    stopped = re.search(r"stopped: (\d+) messages answered, 0 clients cut off", server.log)
    assert stopped
    assert int(stopped[1]) == int(str(seen["confirmed"])) + 1


def test_new_clients_never_fail_while_generations_change(tells: Operate) -> None:
    """Who connects while SIGHUP replaces the workers is served at once."""
    server = tells(workers=2)
    before = children(server)
    server.process.send_signal(signal.SIGHUP)

    def replaced() -> bool:
        with server.connect() as client:
            worker_of(client)
        return "2 workers are replaced" in server.log

    until(replaced)
    until(lambda: not children(server) & before)


def test_sighup_reads_settings_and_keeps_the_old_workers_where_they_are_wrong(
    operate: Operate, tmp_path: Path
) -> None:
    """A file's new limit holds, and its new number of workers; a wrong one, or a handler that fails, changes
    nothing; what the master holds needs a restart, and is named."""
    file = tmp_path / "chat.toml"
    file.write_text("max_message_bytes = 10\nworkers = 2\n")
    server = operate("--port", "0", "--config", str(file), cwd=tmp_path)
    first = children(server)
    assert len(first) == 2

    def confirmed(message: bytes) -> bool:
        with server.connect() as client:
            client.sendall(message + b"\n")
            return rest_of_line(client).startswith(b"Received")

    assert not confirmed(b"x" * 20)
    file.write_text("max_message_bytes = 30\nworkers = 3\nbacklog = 7\n")
    server.process.send_signal(signal.SIGHUP)
    server.logged("these settings change with a restart only: backlog")
    server.logged("SIGHUP: 3 workers are replaced")
    second = until(lambda: len(children(server)) == 3 and children(server))
    assert not first & second
    assert confirmed(b"x" * 20)
    file.write_text("max_message_bytes = 0\nworkers = 3\n")
    server.process.send_signal(signal.SIGHUP)
    server.logged("SIGHUP: the workers stay as they are: .*max_message_bytes")
    (tmp_path / "broken.py").write_text("raise ImportError('no such thing')\n")
    file.write_text("handler = 'broken:answer'\nworkers = 3\n")
    server.process.send_signal(signal.SIGHUP)
    server.logged("this worker can't start: handler broken:answer: no such thing")
    server.logged("SIGHUP: the workers stay as they are, because a new one can't start")
    until(lambda: children(server) == second)
    assert confirmed(b"x" * 20)
    assert server.stop() == 0


def test_a_reload_never_outgrows_the_memory_for_addresses(operate: Operate, tmp_path: Path) -> None:
    """More clients than it was made for need a restart, and the reload that asks for them changes nothing;
    what has room is taken over."""
    file = tmp_path / "chat.toml"
    text = "workers = 2\nmax_connections_per_address = 5\nmax_connections = {}\n"
    file.write_text(text.format(100))
    server = operate("--port", "0", "--config", str(file))
    before = children(server)
    file.write_text(text.format(10_000))
    server.process.send_signal(signal.SIGHUP)
    server.logged("SIGHUP: the workers stay as they are: 10000 clients are too many .* without a restart")
    assert children(server) == before
    file.write_text(text.format(120))
    server.process.send_signal(signal.SIGHUP)
    server.logged("SIGHUP: 2 workers are replaced")
    until(lambda: len(children(server)) == 2 and not children(server) & before)
    with server.connect() as client:
        exchange(client, b"hello")
    assert server.stop() == 0


def test_a_reload_without_memory_leaves_the_old_settings(tells: Operate, tmp_path: Path) -> None:
    """One line says so, and a worker that is replaced afterwards has the settings of before."""
    file = tmp_path / "chat.toml"
    file.write_text("max_message_bytes = 30\n")
    server = tells("--config", str(file), workers=2)
    before, pid = children(server), server.process.pid
    file.write_text("max_message_bytes = 10\nmax_connections = 1000000\nmax_connections_per_address = 5\n")
    limits = resource.prlimit(pid, resource.RLIMIT_AS)
    used = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (used + 2**26, limits[1]))
    server.process.send_signal(signal.SIGHUP)
    problem = os.strerror(errno.ENOMEM)
    server.logged(f"ERROR SIGHUP: the workers stay as they are: max_connections_per_address: {problem}")
    resource.prlimit(pid, resource.RLIMIT_AS, limits)
    assert children(server) == before
    os.kill(min(before), signal.SIGKILL)
    [new] = until(lambda: children(server) - before)
    with a_client_of(server, new) as client:
        client.sendall(b"x" * 20 + b"\n")
        assert rest_of_line(client) == b"%d\n" % new
    assert "Traceback" not in server.log
    assert server.stop() == 0


def rest_of_line(client: socket.socket) -> bytes:
    """What comes up to the end of a line, or of the stream."""
    with client.makefile("rb") as stream:
        return stream.readline()


def test_ttin_and_ttou(tells: Operate) -> None:
    """One worker more takes its share; one less tells its clients, and nobody waits in its sockets."""
    server = tells(workers=2)
    before = children(server)
    server.process.send_signal(signal.SIGTTIN)
    server.logged("SIGTTIN: 3 workers")
    [third] = until(lambda: children(server) - before)
    client = a_client_of(server, third)
    server.process.send_signal(signal.SIGTTOU)
    server.logged("SIGTTOU: 2 workers")
    assert rest(client).startswith(b"Error: shutting-down: ")
    client.close()
    until(lambda: children(server) == before)
    for _ in range(50):
        with server.connect() as each:
            assert worker_of(each) in before
    server.process.send_signal(signal.SIGTTOU)
    server.logged("SIGTTOU: 1 workers")
    server.process.send_signal(signal.SIGTTOU)
    server.logged("SIGTTOU: one worker is left, and stays")
    assert server.stop() == 0


def test_usr1_usr2_and_quit(tells: Operate) -> None:
    """The same words as of one process; SIGQUIT drains as SIGINT does."""
    server = tells(workers=2)
    before = children(server)
    for name in ("SIGUSR1", "SIGUSR2"):
        server.process.send_signal(getattr(signal, name))
        server.logged(f"INFO {name}: ")
    assert children(server) == before
    with server.connect() as client:
        worker_of(client)
        server.process.send_signal(signal.SIGQUIT)
        assert rest(client).startswith(b"Error: shutting-down: ")
    assert server.process.wait(30) == 0


def test_a_worker_that_dies_at_once_is_tried_again_less_and_less_often(tells: Operate) -> None:
    """The others serve all new clients meanwhile: its sockets are closed, so that nobody waits in them."""
    server = tells(workers=2)
    stays = max(children(server))

    def killed_again() -> bool:
        for each in children(server) - {stays}:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        return "another one starts in 2 s" in server.log

    until(killed_again)
    delays = re.findall(r"another one starts in (\S+) s", server.log)
    assert delays[-4:] == ["0", "0.5", "1", "2"]
    for _ in range(30):
        with server.connect() as client:
            found = worker_of(client)
        assert found == stays or len(children(server)) == 2  # the 2 s are over
    until(lambda: len(children(server)) == 2)
    a_client_of(server, min(children(server) - {stays})).close()


def test_what_a_terminal_sends_to_all_of_them_is_the_masters(tells: Operate) -> None:
    """Ctrl-C signals the whole group: the workers leave it to the master, and drain once."""
    server = tells(workers=2, prefix=("setsid",))
    with server.connect() as client:
        worker_of(client)
        for number in (signal.SIGHUP, signal.SIGINT):
            os.killpg(server.process.pid, number)
            if number == signal.SIGHUP:
                server.logged("SIGHUP: 2 workers are replaced")
        assert rest(client).startswith(b"Error: shutting-down: ")
    assert server.process.wait(30) == 0
    assert "Traceback" not in server.log
    assert "0 clients cut off" in server.log


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", range(2))
def test_whatever_comes_in_whatever_order(tells: Operate, seed: int) -> None:
    """After any mixture of HUP, TTIN, TTOU, kill -9 and TERM to single workers there are as many workers as
    there should be, all of the last generation; they serve, and no client is left waiting."""
    random = Random(seed)
    server = tells("--linger-timeout", "0.1", workers=2)
    wanted, most = 2, 2 * max(2, os.cpu_count() or 1)
    for _ in range(25):
        action = random.choice(["HUP", "HUP", "TTIN", "TTOU", "kill", "term"])
        if action in ("kill", "term"):
            number = signal.SIGKILL if action == "kill" else signal.SIGTERM
            for each in random.sample(found := sorted(children(server)), min(1, len(found))):
                with suppress(ProcessLookupError):
                    os.kill(each, number)
        else:
            lines = server.log.count(f"SIG{action}")
            server.process.send_signal(getattr(signal, f"SIG{action}"))
            if action != "HUP":
                server.logged(f"(?s)(SIG{action}.*){{{lines + 1}}}")
                wanted = min(most, wanted + 1) if action == "TTIN" else max(1, wanted - 1)
        time.sleep(random.choice([0, 0, 0.05, 0.2]))  # the moment is what is tested
    before = children(server)
    server.process.send_signal(signal.SIGHUP)
    until(lambda: len(children(server)) == wanted and not children(server) & before, 90)
    serving = set()
    for _ in range(30 * wanted):
        with server.connect() as client:
            serving.add(worker_of(client))
    assert serving == children(server)
    assert server.stop() == 0


def test_a_limit_per_address_is_of_all_workers(tells: Operate) -> None:
    """Two are let in with four workers, also after the worker of one of them was killed."""
    server = tells("--max-connections-per-address", "2")

    def try_one() -> socket.socket | None:
        client = server.connect()
        client.sendall(b"who\n")
        if rest_of_line(client).strip().isdigit():
            return client
        client.close()
        return None

    first = until(try_one)
    for _ in range(3):
        second = until(try_one)
        while worker_of(second) == worker_of(first):
            second.close()
            second = until(try_one)
        assert not any(try_one() for _ in range(20))
        os.kill(worker_of(second), signal.SIGKILL)
        third = until(try_one)
        assert not any(try_one() for _ in range(20))
        second.close()
        third.close()
    first.close()
    assert server.stop() == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_tls_session_is_resumed_by_any_worker(
    tells: Operate, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """A ticket of one worker is good with the others, and with one that took the place of a killed one."""
    certificate(tmp_path, "server")
    files = ("--tls-certificate", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.key"))
    server = tells("--workers", "2", *files)
    context = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
    context.minimum_version = context.maximum_version = version

    def connect(session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        return context.wrap_socket(server.connect(), server_hostname="localhost", session=session)

    with connect() as first:
        served = {worker_of(first)}
        session = first.session  # a ticket of TLS 1.3 comes with the first data
    for _ in range(20):
        with connect(session) as again:
            assert again.session_reused
            served.add(worker_of(again))
            session = again.session
    assert len(served) == 2
    os.kill(min(served), signal.SIGKILL)
    until(lambda: len(children(server) - served) == 1, what="a new worker")

    def by_the_new_one() -> bool:
        with connect(session) as again:
            assert again.session_reused
            return worker_of(again) not in served

    until(by_the_new_one)


def test_tls_with_reload_over_all_workers(operate: Operate, tmp_path: Path) -> None:
    """After SIGHUP new connections get the new certificate; with wrong files the old workers stay."""
    for name in ("first", "second"):
        certificate(tmp_path, name)
    used, key = tmp_path / "used.pem", tmp_path / "used.key"

    def use(name: str) -> None:
        used.write_bytes((tmp_path / f"{name}.pem").read_bytes())
        key.write_bytes((tmp_path / f"{name}.key").read_bytes())

    use("first")
    files = ("--tls-certificate", str(used), "--tls-key", str(key))
    server = operate("--port", "0", "--workers", "2", *files)
    assert server.urls[0].startswith("tls://")

    def served_by(name: str) -> bool:
        context = ssl.create_default_context(cafile=str(tmp_path / f"{name}.pem"))
        try:
            with context.wrap_socket(server.connect(), server_hostname="localhost") as client:
                exchange(client, b"hello")
                return True
        except ssl.SSLError:
            return False

    assert served_by("first")
    use("second")
    server.process.send_signal(signal.SIGHUP)
    server.logged("SIGHUP: new connections get the certificate that was read from")
    assert all(served_by("second") for _ in range(10))
    used.write_text("nothing")
    server.process.send_signal(signal.SIGHUP)
    server.logged("ERROR SIGHUP: the workers stay as they are: .*no usable certificate")
    assert served_by("second")


def test_all_kinds_of_listeners(operate: Operate, tmp_path: Path) -> None:
    """UNIX sockets with their mode, abstract ones, and TCP behind a proxy are served by all workers; the file
    is gone at the end, and each worker's log lines name it."""
    path = tmp_path / "socket"
    server = operate(
        *("--listen", f"unix://{path},tcp://127.0.0.1:0", "--unix-mode", "0600", "--workers", "3"),
        *("--proxy-from", "127.0.0.0/8", "--access-log", "--log-format", "json", "--admin", ":0"),
    )
    assert path.stat().st_mode & 0o777 == 0o600
    for _ in range(10):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(path))
            exchange(client, b"hello")
        with server.connect(1) as client:
            client.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.9 1 2\r\n")
            exchange(client, b"hello")
    until(lambda: server.log.count('"client": "192.0.2.7:1"') == 10)
    lines = [json.loads(each) for each in server.log.splitlines()]
    assert {each["worker"] for each in lines if each["message"] == "closed"} <= {0, 1, 2}
    assert server.stop() == 0
    assert not path.exists()


def test_readyz_while_it_drains_and_exit_status_3(tells: Operate) -> None:
    """During ``drain_delay`` the pages say 503 and clients are admitted; a second signal begins the drain,
    the third ends it, and the status is 3, as of one process."""
    server = tells("--admin", ":0", "--drain-delay", "30", "--drain-timeout", "30", workers=2)
    assert server.ask("/readyz")[0] == 200
    server.process.send_signal(signal.SIGTERM)
    server.logged("draining in 30 s; until then clients are admitted")
    until(lambda: {server.ask("/readyz")[0] for _ in range(10)} == {503})
    client = server.connect()
    worker_of(client)
    client.sendall(b"wait\n")
    server.logged("at work")
    server.process.send_signal(signal.SIGTERM)
    server.logged("draining [01] clients for at most 30 s")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 3
    server.logged("stopped: 1 messages answered, 1 clients cut off")
    client.close()


def test_the_workers_end_with_their_master(tells: Operate) -> None:
    """Killed, the master can't tell them: they see it, have their clients leave, and end."""
    server = tells(workers=2)
    workers = children(server)
    client = server.connect()
    worker_of(client)
    server.process.kill()
    server.process.wait()
    assert rest(client).startswith(b"Error: shutting-down: ")
    client.close()
    until(lambda: not any(map(runs, workers)))


def test_limits_are_shared_out(operate: Operate) -> None:
    """Five clients are let in with ``max_connections = 5``, however they are spread; the start says how."""
    server = operate("--port", "0", "--workers", "2", "--max-connections", "5")
    server.logged("serving .* to at most 5 clients")
    server.logged("each of 2 workers takes 2 of these clients")
    inside = []
    for _ in range(40):
        client = server.connect()
        client.sendall(b"hello\n")
        if rest_of_line(client) == b"Received: hello\n":
            inside.append(client)
        else:
            client.close()
    assert len(inside) == 5
    for each in inside:
        each.close()


def test_sockets_of_systemd_and_notifications(operate: Operate, tmp_path: Path) -> None:
    """A socket that is handed over is served by all; the master tells READY, RELOADING and STOPPING."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(30)
    listener = socket.create_server(("127.0.0.1", 0))
    script = 'exec 3<&"$0"; export LISTEN_PID=$$; exec "$@"'
    server = operate(
        *("--workers", "2"),
        prefix=("bash", "-c", script, str(listener.fileno())),
        env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "LISTEN_FDS": "1"},
        pass_fds=(listener.fileno(),),
    )
    assert server.port == listener.getsockname()[1]

    def told(what: bytes) -> None:
        while what not in manager.recv(4096).split(b"\n"):
            pass

    told(b"READY=1")
    for _ in range(5):
        with server.connect() as client:
            exchange(client, b"hello")
    server.process.send_signal(signal.SIGHUP)
    told(b"RELOADING=1")
    told(b"READY=1")
    with server.connect() as client:
        exchange(client, b"hello")
    server.process.send_signal(signal.SIGTERM)
    told(b"STOPPING=1")
    assert server.process.wait(30) == 0
    listener.close()
    manager.close()


def failed_start(*arguments: str, cwd: Path | None = None, **environment: str) -> tuple[int, str]:
    """Exit status and standard error of a server that can't start."""
    done = subprocess.run(
        command("serve", "--port", "0", *arguments),
        capture_output=True,
        text=True,
        timeout=30,
        cwd=cwd,
        env={**os.environ, **environment},
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_what_can_not_start_says_so_once(tmp_path: Path) -> None:
    """Statuses and words as of one process: a handler that is not there, one whose module fails, a limit that
    leaves a worker without clients, gunicorn not installed, a library that is patched too early."""
    status, told = failed_start("--workers", "4", "--handler", "missing:answer", cwd=tmp_path)
    assert (status, told.count("\n")) == (2, 1), told
    assert told.startswith("chat-gevent serve: error: handler missing:answer: No module")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    status, told = failed_start("--workers", "4", "--handler", "broken:answer", cwd=tmp_path)
    assert (status, told.count("ZeroDivisionError")) == (1, 1), told
    status, told = failed_start("--workers", "4", "--max-connections", "3")
    assert (status, told.count("\n")) == (2, 1), told
    (tmp_path / "gunicorn.py").write_text("raise ImportError('none', name='gunicorn')\n")
    status, told = failed_start("--workers", "2", PYTHONPATH=str(tmp_path))
    assert (status, told) == (
        1,
        "chat-gevent serve: error: workers needs gunicorn: pip install 'chat-gevent[workers]'\n",
    )


def sockets(pid: int) -> int:
    """How many sockets a process holds."""
    return sum("socket:" in str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir())


def test_files_for_the_admin_pages_are_made_for_them_only_and_counted(operate: Operate) -> None:
    """Without pages workers hold their listeners; with them one end of a pair for each worker that there may
    be, and as many clients fewer are promised."""
    slots = 4 * max(2, os.cpu_count() or 1) + SPARE_SLOTS
    promised = []
    for pages in ((), ("--admin", ":0")):
        server = operate("--port", "0", "--workers", "2", *pages, files=200 + 3 * slots)
        promised.append(int(server.logged(r"to at most (\d+) clients")[1]))
        for worker in children(server):
            held = sockets(worker)
            assert (slots < held < slots + 10) if pages else held < 10
        assert server.stop() == 0
    assert promised[0] - promised[1] >= 2 * slots


def test_no_files_for_the_admin_pages_is_one_line(operate: Operate, tmp_path: Path) -> None:
    """The start ends with status 1, and leaves no file of a socket behind."""
    path = tmp_path / "socket"
    options = ("--listen", f"unix://{path}", "--workers", "64", "--admin", ":0")
    server = operate(*options, files=200, ready=False)
    assert server.process.wait(30) == 1
    problem = "chat-gevent serve: error: can't make the memory and the {} files that 64 workers share: {}\n"
    slots = 4 * max(64, os.cpu_count() or 1) + SPARE_SLOTS
    assert server.log == problem.format(2 * slots, os.strerror(errno.EMFILE))
    assert not path.exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_each_worker_patches_for_itself(operate: Operate, tmp_path: Path, workers: int) -> None:
    """With ``--monkey`` handlers may use what blocks elsewhere; the master is not patched, has no loop."""
    (tmp_path / "sleeps.py").write_text(
        "import os, time\n"
        "from gevent import monkey\n"
        "def answer(text, client):\n"
        "    with open('arrived', 'a') as file:\n"
        "        file.write('x')\n"
        "    while os.path.getsize('arrived') < 20:\n"  # all are here, so none has held up another
        "        time.sleep(0.01)\n"
        "    return str(monkey.is_module_patched('socket'))\n"
    )
    server = operate(
        *("--port", "0", "--workers", str(workers), "--monkey"),
        *("--handler", "sleeps:answer", "--framing", "line"),
        cwd=tmp_path,
    )
    clients = [server.connect() for _ in range(20)]
    for each in clients:
        each.sendall(b"hello\n")
    for each in clients:
        assert receive(each, 5) == b"True\n"
        each.close()
    kernel = Path(f"/proc/{server.process.pid}/fd")
    assert workers == 1 or not [each for each in kernel.iterdir() if "eventpoll" in str(each.readlink())]
    assert server.stop() == 0


def test_a_service_without_a_backplane_is_warned_of(operate: Operate) -> None:
    """Rooms of several workers are apart: the start says so once, and not where that is wanted."""
    rooms = ("--port", "0", "--workers", "2", "--handler", "chat_gevent.rooms:Rooms")
    server = operate(*rooms)
    assert server.log.count("2 workers can't share rooms without a backplane") == 1
    assert server.stop() == 0
    server = operate(*rooms, "--backplane", "none")
    assert "backplane" not in server.log
    assert server.stop() == 0


def test_print_config() -> None:
    """The settings are there, with their origin."""
    done = subprocess.run(
        command("serve", "--workers", "3", "--reload-interval", "1m", "--print-config"),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert re.search(r"^workers = 3 +# command line --workers$", done.stdout, re.MULTILINE)
    assert re.search(r"^reload_interval = 60 +# command line --reload-interval$", done.stdout, re.MULTILINE)
