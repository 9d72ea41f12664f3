"""The whole server under load, operated as an operator does."""

from __future__ import annotations

import json
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.operate import ServerProcess, certificate, exchange, receive, until

PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc0\x00\x02\x09\0\1\0\2"

FLOOD = Path(__file__).parent.parent / "flood.py"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("park_after", ["0", "never"])
def test_sigterm_under_2000_clients_that_send_flat_out(
    operate: Callable[..., ServerProcess], park_after: str
) -> None:
    """The server's count of messages equals the confirmations that arrived, every client is told and sees the
    end of the stream, none a reset; exit status 0."""
    server = operate(
        *("--port", "0", "--park-after", park_after),
        # The clients are told over 0.8 of the one; and none is reset that reads late what it was told.
        *("--drain-timeout", "12", "--linger-timeout", "60"),
    )
    host, port = server.address()
    flood = subprocess.Popen(
        [sys.executable, str(FLOOD), host, str(port), "2000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert flood.stdout is not None
        assert select.select([flood.stdout], [], [], 60)[0]
        assert flood.stdout.readline() == b"flooding\n"
        server.process.send_signal(signal.SIGTERM)
        out, err = flood.communicate(timeout=90)
    finally:
        if flood.poll() is None:
            flood.kill()
            flood.communicate()
    assert not err
    seen = json.loads(out)
    assert seen["ends"] == {"told": 2000}
    assert server.process.wait(30) == 0
    stopped = re.search(r"stopped: (\d+) messages answered, 0 clients cut off", server.log)
    assert stopped
    assert int(stopped[1]) == seen["confirmed"] > 2000


def test_a_handler_that_patches_everything(operate: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """A handler's module may call ``gevent.monkey.patch_all``: all listeners, TLS, logs and pages go on."""
    certificate(tmp_path, "server")
    (tmp_path / "patched.py").write_text(
        "import warnings\n"
        "from gevent import monkey\n"
        "with warnings.catch_warnings():\n"
        "    warnings.simplefilter('ignore')  # that ssl is imported already\n"
        "    monkey.patch_all()\n"
        "import os, time\n"
        "def answer(text, client):\n"
        "    with open('arrived', 'a') as file:\n"
        "        file.write('x')\n"
        "    while os.path.getsize('arrived') < 51:\n"  # all are here, so none has held up another
        "        time.sleep(0.01)\n"
        "    return 'patched ' + text\n"
    )
    server = operate(
        *("--listen", "tcp://127.0.0.1:0,tls://127.0.0.1:0", "--admin", ":0", "--access-log"),
        *("--tls-certificate", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.key")),
        *("--handler", "patched:answer", "--framing", "line"),
        cwd=tmp_path,
    )
    clients = [server.connect() for _ in range(50)]
    context = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
    clients.append(context.wrap_socket(server.connect(1), server_hostname="localhost"))
    for each in clients:
        each.sendall(b"hello\n")
    for each in clients:
        assert receive(each, 14) == b"patched hello\n"
        each.close()
    assert server.metric("chat_gevent_handler_calls_total") == 51
    assert server.stop() == 0
    assert "Traceback" not in server.log


@pytest.mark.alone
@pytest.mark.timeout(180)
def test_abuse_harms_neither_the_well_behaved_nor_the_memory(tmp_path: Path) -> None:
    """The abuse benchmark, small: who behaves gets every reply, and once the never-readers are stuck the
    memory stays where it is. (How little the p99 changes is measured by the benchmark, not tested here.)"""
    file = tmp_path / "abuse.json"
    command = [sys.executable, "-m", "benchmarks", "experiment", "abuse"]
    options = "--clients 40 --loris 300 --interval 1 --never-readers 30 --settle 1.5 --turns 2 --seconds 0.5"
    done = subprocess.run(
        [*command, *options.split(), "--limit", "99", "--output", str(file)],
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(file.read_text())
    assert len(figures["alone"]["p99_ms"]) == len(figures["abused"]["p99_ms"]) == 2
    assert figures["bytes_of_slow_loris"] > 0
    _, settled, *turns = (each["server"] for each in figures["memory_mib"])
    assert turns[-1] - settled < 8


def misbehave(random: Random, server: ServerProcess, context: ssl.SSLContext) -> None:
    """One client that does something out of order, chosen by chance, and goes in one of four ways."""
    index = random.randrange(3)
    header = random.choice(
        [b"", b"PROXY TCP4 192.0.2.%d 192.0.2.9 1 1\r\n" % random.randrange(4), b"PROXY TCP4 19", PROXY_V2]
    )
    deeds = [
        b"",
        b"hello\n",
        random.randbytes(random.randrange(300)),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"x" * 70_000,
        b"\n" * 60_000,
        b"\xff\n/exit\nmore\n",
        b"y" * 1000 + b"\n",
    ]
    client: socket.socket = server.connect(index)
    client.settimeout(0.5)
    try:
        if index == 2:
            client.sendall(header)
        if index == 1 and random.random() < 0.5:
            client = context.wrap_socket(client, server_hostname="localhost")
        for _ in range(random.randrange(4)):
            client.sendall(random.choice(deeds))
            if random.random() < 0.3:
                client.recv(random.choice([1, 65536]))
        if random.random() < 0.2:
            client.shutdown(socket.SHUT_WR)
        if random.random() < 0.3:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if random.random() < 0.2:
            time.sleep(random.random() / 10)
    except OSError:
        pass  # the server has a right to close
    finally:
        client.close()


@pytest.mark.parametrize("park_after", ["0", "never"])
@pytest.mark.timeout(180)
def test_chaos_leaves_nothing_behind(
    operate: Callable[..., ServerProcess], tmp_path: Path, park_after: str
) -> None:
    """480 clients that misbehave by chance on TCP, TLS and proxied listeners, with limits that refuse some
    of them and certificates read again meanwhile: no traceback, good clients are served, and at the end
    no connection, greenlet or place is left over."""
    certificate(tmp_path, "server")
    server = operate(
        *(
            "--listen",
            "tcp://127.0.0.1:0,tls://127.0.0.1:0,tcp://[::1]:0",
            "--proxy-from",
            "::1",
            "--admin",
            ":0",
        ),
        *("--tls-certificate", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.key")),
        *("--max-connections", "30", "--max-connections-per-address", "20", "--handshake-timeout", "0.5"),
        *(
            "--linger-timeout",
            "0.3",
            "--write-timeout",
            "1",
            "--idle-timeout",
            "10",
            "--park-after",
            park_after,
        ),
    )
    context = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
    seed = Random().randrange(2**32)
    print(f"seed {seed}")  # shown when the test fails

    def some(number: int) -> None:
        random = Random(seed + number)
        for _ in range(80):
            misbehave(random, server, context)

    threads = [threading.Thread(target=some, args=(number,)) for number in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        while each.is_alive():
            each.join(0.3)
            server.process.send_signal(signal.SIGHUP)
    until(lambda: server.metric("chat_gevent_connections") == 0)
    until(lambda: server.metric('chat_gevent_greenlets{state="leased"}') == 0)
    until(lambda: server.metric("process_open_fds") < 25)
    good = [server.connect() for _ in range(20)]
    for client in good:
        exchange(client, b"hello")
        client.close()
    assert server.stop() == 0
    assert "Traceback" not in server.log
