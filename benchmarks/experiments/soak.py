"""Everything at once for half an hour: what grows, and whether both sides count the same.

Two servers, one with the built-in confirmation and one with a handler of its own that groups, pushes, blocks
and fails, each over TCP and TLS. Clients of every kind come to them:

* those that stay and send, some pipelined, some a byte at a time, some with messages that are no UTF-8;
* those that come, send a few messages and leave, in order, with ``/exit``, or by a reset;
* subscribers that are sent pushes, and some of them that never read and are closed for it;
* those that send too long a message, say nothing, or fail in the TLS handshake.

Every ``--every`` seconds the servers' memory (USS), open files, greenlets (leased and free), and epoll
watches are read. After the first fifth, the warm-up, none of them may grow by more than ``--most-growth``:
that is the line of least squares through the samples, from its one end to the other. A change of less than
256 KiB, 8 files or 8 greenlets is none. At the end the clients leave, and the messages that the servers count
must be the answers that the clients had, plus at most those that clients had sent when they reset the
connection.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import gevent
from gevent import socket
from gevent import ssl as gevent_ssl

from benchmarks.experiments import ExperimentFailed
from benchmarks.experiments.faults import NotHere
from benchmarks.experiments.faults.links import certificate
from benchmarks.experiments.faults.served import Served, own_handler, reset, until, uss
from benchmarks.measure.probe import descendants
from chat_gevent.files import raise_file_limit

SERVICE: Final = """
import gevent
from chat_gevent import Service

class Mixed(Service):
    def started(self, server):
        self.server = server
        self.news = server.group("news")
        server.every(0.05, lambda: server.broadcast("News: " + "n" * 200, self.news))

    def message(self, message, client):
        if message == "subscribe":
            self.news.add(client)
        elif message == "block":
            gevent.sleep(0.02)
        elif message == "fail":
            raise RuntimeError("as asked")
        return "Received: " + message

handle = Mixed
"""
IDLE_SECONDS: Final = 8
"""The servers' idle time-out: longer than any that behaves takes to go on where the machine is busy."""
LEAST: Final = {"uss": 2**18, "files": 8, "leased": 8, "free": 8, "watches": 8}
"""Growth that is none: of so many bytes, files, greenlets, watches at most."""


@dataclass
class Counts:
    """What all clients of one server have seen."""

    answered: int = 0
    pushed: int = 0
    unsure: int = 0
    """Messages that were sent to a server and reset before the answer: it may have counted them."""
    clients: int = 0
    wrong: list[str] = field(default_factory=list)


class Crowd:
    """The clients of one server. ``seed`` decides what each does."""

    def __init__(self, server: Served, context: Any, seed: int, own: bool) -> None:
        self.server = server
        self.counts = Counts()
        self.ends = False
        self._context = context
        self._random = random.Random(seed)
        self._own = own
        kinds = [*[self._stay] * 20, *[self._come_and_go] * 6, *[self._misbehave] * 3]
        kinds += [*[self._subscribe] * 8, self._never_read, self._never_read] if own else []
        self.greenlets = [gevent.spawn(self._again, kind) for kind in kinds]

    def _again(self, kind: Any) -> None:
        while not self.ends:
            self.counts.clients += 1
            try:
                kind()
            except OSError as error:
                if kind not in (self._misbehave, self._never_read):
                    self.counts.wrong.append(f"{kind.__name__}: {error!r}")
            gevent.sleep(0.01 + self._random.random() / 20)

    def _connect(self) -> Any:
        index = self._random.randrange(2)
        client = self.server.connect(index)
        return self._context.wrap_socket(client, server_hostname="localhost") if index else client

    def _ask(self, client: Any, messages: list[bytes]) -> None:
        """Send at once, and count the answers; pushes in between are counted as such."""
        client.sendall(b"".join(each + b"\n" for each in messages))
        due, data = len(messages), b""
        while due:
            more = client.recv(65536)
            if not more:
                raise ConnectionError(f"{due} answers are missing, after {data[-100:]!r}")
            *lines, data = (data + more).split(b"\n")
            for line in lines:
                if line.startswith(b"News: "):
                    self.counts.pushed += 1
                    continue
                message = messages[len(messages) - due]
                refused = message in (b"fail", b"\xff\xfe")
                if not line.startswith(b"Error: " if refused else b"Received: "):
                    self.counts.wrong.append(f"{message!r} was answered {line!r}")
                due -= 1
                self.counts.answered += not refused

    def _messages(self) -> list[bytes]:
        words = [b"hello", b"x" * 300, "gr\u00fc\u00df dich".encode(), b"", b"y" * 5000]
        words += [b"\xff\xfe"] if self._random.random() < 0.1 else []
        words += [b"block", b"fail"] if self._own and self._random.random() < 0.05 else []
        return self._random.choices(words, k=self._random.choice((1, 1, 1, 4, 16)))

    def _stay(self) -> None:
        with contextlib.closing(self._connect()) as client:
            for _ in range(self._random.randrange(20, 400)):
                if self.ends:
                    break
                self._ask(client, self._messages())
                gevent.sleep(self._random.random() / 50)

    def _come_and_go(self) -> None:
        client = self._connect()
        with contextlib.closing(client):
            for _ in range(self._random.randrange(4)):
                self._ask(client, self._messages())
            way = self._random.randrange(4)
            if way == 0:
                client.sendall(b"/exit\n")
                while client.recv(4096):
                    pass
            elif way == 1:
                client.sendall(b"under way\n")
                self.counts.unsure += 1
                raw = socket.socket(fileno=client.detach())
                reset(raw)
            elif way == 2 and not isinstance(client, gevent_ssl.SSLSocket):
                for each in b"slow":
                    client.send(bytes([each]))
                    gevent.sleep(0.001)
                self._ask(client, [b""])

    def _misbehave(self) -> None:
        way = self._random.randrange(4)
        with contextlib.closing(self.server.connect(1 if way == 0 else 0)) as client:
            if way == 0:
                client.sendall(random.Random(way).randbytes(100))  # no TLS
            elif way == 1:
                client.sendall(b"z" * 70_000)
            elif way == 2:
                client.sendall(b"half a line")
                reset(client)
                return
            client.settimeout(IDLE_SECONDS + 1)
            while client.recv(65536):
                pass

    def _subscribe(self) -> None:
        with contextlib.closing(self._connect()) as client:
            self._ask(client, [b"subscribe"])
            for _ in range(100):
                if self.ends:
                    break
                self._ask(client, [b"hello"])
                gevent.sleep(0.1)

    def _never_read(self) -> None:
        with contextlib.closing(socket.socket()) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.settimeout(10)
            client.connect(self.server.address())
            self._ask(client, [b"subscribe"])
            end = time.monotonic() + 20
            while time.monotonic() < end and not self.ends:
                gevent.sleep(0.5)


def sample(server: Served) -> dict[str, float]:
    """What a server has and holds now, its workers included."""
    pids = descendants(server.pid)
    found = {"uss": 0.0, "files": 0.0, "watches": 0.0}
    for pid in pids:
        with contextlib.suppress(OSError):
            found["uss"] += uss(pid)
            found["files"] += len(list(Path(f"/proc/{pid}/fd").iterdir()))
            for info in Path(f"/proc/{pid}/fdinfo").iterdir():
                with contextlib.suppress(OSError):
                    found["watches"] += info.read_text().count("tfd:")
    for state in ("leased", "free"):
        found[state] = server.metric(f'chat_gevent_greenlets{{state="{state}"}}')
    return found


def growth(values: list[float]) -> tuple[float, float]:
    """How much the line of least squares through ``values`` rises, and what it begins with."""
    count = len(values)
    mean = sum(values) / count
    middle = (count - 1) / 2
    weight = sum((place - middle) ** 2 for place in range(count))
    slope = sum((place - middle) * (value - mean) for place, value in enumerate(values)) / weight
    return slope * (count - 1), mean - slope * middle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add = parser.add_argument
    add("--minutes", type=float, default=30, help="(default: %(default)s)")
    add("--every", type=float, default=5, help="seconds between two samples (default: %(default)s)")
    add("--workers", type=int, default=0, help="of each server; 0: one process without --workers (default)")
    add("--most-growth", type=float, default=2, help="percent, after the warm-up (default: %(default)s)")
    add("--seed", type=int, default=1, help="what the clients do (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Soak, and print the figures; returns 1 where something grew or the counts differ."""
    raise_file_limit()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        try:
            certificate(folder, "server")
        except NotHere as error:
            raise ExperimentFailed(f"needs {error}") from None
        context = gevent_ssl.create_default_context(cafile=f"{folder}/server.pem")
        options = [
            "--listen",
            "tcp://127.0.0.1:0,tls://127.0.0.1:0",
            "--framing",
            "line",
            "--write-timeout",
            "3",
        ]
        options += ["--tls-certificate", f"{folder}/server.pem", "--tls-key", f"{folder}/server.key"]
        options += ["--idle-timeout", str(IDLE_SECONDS), "--linger-timeout", "1", "--outbox-bytes", "32KiB"]
        if arguments.workers:
            options += ["--workers", str(arguments.workers)]
        handler = ["--handler", own_handler(folder, SERVICE)]
        servers = {
            "confirmation": stack.enter_context(Served(*options)),
            "own service": stack.enter_context(Served(*options, *handler, folder=folder)),
        }
        crowds = {
            title: Crowd(server, context, arguments.seed + number, title == "own service")
            for number, (title, server) in enumerate(servers.items())
        }
        samples = _watch(arguments, servers, crowds)
        for crowd in crowds.values():
            gevent.joinall(crowd.greenlets, timeout=30)
        wrong = [
            problem
            for title, server in servers.items()
            for problem in _report(arguments, title, server, crowds[title], samples[title])
        ]
    for problem in wrong:
        print(f"**{problem}**")
    return 1 if wrong else 0


def _watch(
    arguments: argparse.Namespace, servers: dict[str, Served], crowds: dict[str, Crowd]
) -> dict[str, list[Any]]:
    samples: dict[str, list[Any]] = {title: [] for title in servers}
    end = time.monotonic() + arguments.minutes * 60
    while time.monotonic() < end:
        gevent.sleep(min(arguments.every, max(0.0, end - time.monotonic())))
        for title, server in servers.items():
            if server.process.poll() is not None:
                raise ExperimentFailed(f"the server with the {title} ended: {server.log[-500:]}")
            samples[title].append(sample(server))
    for crowd in crowds.values():
        crowd.ends = True
    return samples


def _report(
    arguments: argparse.Namespace, title: str, server: Served, crowd: Crowd, samples: list[dict[str, float]]
) -> list[str]:
    """Print the figures of one server; returns what is wrong."""
    counts = crowd.counts
    wrong = [f"{title}: {each}" for each in counts.wrong[:3]]
    until(lambda: server.metric("chat_gevent_connections") == 0, "all clients are gone", 40)
    gevent.sleep(1.1)  # metrics may be a second old
    counted = server.metric("chat_gevent_messages_total")
    least, most = counts.answered, counts.answered + counts.unsure
    print(
        f"{title}: {counts.clients:,} clients, {counts.answered:,} answers, {counts.pushed:,} pushes; "
        f"the server counts {counted:,.0f} messages "
        f"({counts.unsure:,} were sent by clients that reset before the answer)"
    )
    if not least <= counted <= most:
        wrong.append(f"{title}: the server counts {counted:.0f} messages, the clients {least} to {most}")
    warm = samples[len(samples) // 5 :]
    for name in LEAST:
        rise, start = growth([each[name] for each in warm]) if len(warm) > 2 else (0.0, 0.0)
        percent = 100 * rise / start if start else 0.0
        print(f"  {name}: {start:,.0f} after the warm-up, {rise:+,.0f} ({percent:+.2f}%) to the end")
        if rise > LEAST[name] and percent > arguments.most_growth:
            wrong.append(f"{title}: {name} grew by {percent:.1f}%")
    server.stop(failure="RuntimeError: as asked")
    return wrong
