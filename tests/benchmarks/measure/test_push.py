"""What one says to many: the small protocol of every server that pushes, and the generator that checks it."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from benchmarks.measure.generator import Generator, GeneratorFailed, push_program
from benchmarks.measure.scenarios import SCENARIOS
from benchmarks.measure.scenarios.base import Bench
from benchmarks.measure.sends import counter
from benchmarks.measure.servers import SERVERS, find
from benchmarks.measure.servers.process import ServerProcess
from tests.conftest import require

PUSH_SERVERS = [name for name, server in SERVERS.items() if "push" in server.variants]


@pytest.fixture(scope="module", params=PUSH_SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """Each server that can push, running."""
    missing = find(request.param).missing()
    require(not missing, f"what {request.param} is made with: {missing}")
    with ServerProcess(find(request.param).variant("push")) as process:
        yield process


class Client:
    """One client that reads whole lines."""

    def __init__(self, process: ServerProcess, stack: ExitStack) -> None:
        self.socket = stack.enter_context(socket.create_connection((process.host, process.port), timeout=30))
        self.file = stack.enter_context(self.socket.makefile("rb"))

    def ask(self, line: bytes) -> bytes:
        """Send a line and read one."""
        self.socket.sendall(line)
        return self.file.readline()


def test_what_one_says_reaches_all_in_order(server: ServerProcess) -> None:
    """Every client gets each text once, the speaker too, in the order said; the rest is confirmed as ever."""
    with ExitStack() as stack:
        clients = [Client(server, stack) for _ in range(5)]
        assert [c.ask(b"hello\n") for c in clients] == [b"Received: hello\n"] * 5
        clients[2].socket.sendall(b"a\n!one\n!tw" + "ö\r\nb\n".encode())
        heard = [c.file.readline() + c.file.readline() for c in clients if c is not clients[2]]
        assert heard == ["one\ntwö\n".encode()] * 4
        mine = b"".join(clients[2].file.readline() for _ in range(4))
        assert mine == "Received: a\none\ntwö\nReceived: b\n".encode()


def test_rooms_are_told_apart(server: ServerProcess) -> None:
    """Who has joined a room tells and hears that room only; who is in none tells all."""
    with ExitStack() as stack:
        clients = [Client(server, stack) for _ in range(5)]
        rooms = [b"#x\n", b"#x\n", b"#y\n", b"#y\n", b"hello\n"]
        for client, words in zip(clients, rooms, strict=True):
            assert client.ask(words) == b"Received: " + words
        clients[0].socket.sendall(b"!in x\n")
        assert [c.file.readline() for c in clients[:2]] == [b"in x\n"] * 2
        clients[4].socket.sendall(b"!to all\n")
        assert [c.file.readline() for c in clients] == [b"to all\n"] * 5


def test_who_leaves_is_not_missed(server: ServerProcess) -> None:
    """After one has gone and one was reset, the next message reaches those who are left."""
    with ExitStack() as stack:
        clients = [Client(server, stack) for _ in range(4)]
        for client in clients:
            assert client.ask(b"#z\n") == b"Received: #z\n"
        assert clients[1].ask(b"/exit\n") == b""
        clients[2].socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        clients[2].file.close()
        clients[2].socket.close()
        for _ in range(3):
            assert [clients[0].ask(b"!still\n"), clients[3].file.readline()] == [b"still\n"] * 2


def test_a_client_that_does_not_read_delays_nobody(server: ServerProcess) -> None:
    """While megabytes wait for one that does not read, the others get each message."""
    with ExitStack() as stack:
        speaker, reader, stuck = (Client(server, stack) for _ in range(3))
        stuck.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for client in (speaker, reader, stuck):
            assert client.ask(b"#s\n") == b"Received: #s\n"
        text = b"t" * 60_000
        for _ in range(200):
            assert speaker.ask(b"!" + text + b"\n") == text + b"\n"
            assert reader.file.readline() == text + b"\n"


@pytest.mark.parametrize("room", [0, 5])
def test_the_generator_counts_deliveries(room: int) -> None:
    """All get all: in each round of a room as many deliveries as it has members times speakers."""
    with (
        ServerProcess(find("c_epoll").variant("push")) as process,
        Generator(push_program(), {"host": process.host, "port": process.port, "room": room}) as generator,
    ):
        assert generator.ask("grow 20", "grown")["open"] == 20
        generator.ask("start", "started")
        generator.ask("mark", "marked")
        stopped = generator.ask("stop", "stopped")
    assert stopped["errors"] == {}
    assert sum(number for _, number in stopped["latency_us"]) == stopped["confirmed"]


@pytest.mark.parametrize(
    ("reply", "error"), [(b"00000001", "mismatch"), (b"", "ended"), (b"0000000000000000", "mismatch")]
)
def test_the_generator_sees_what_is_wrong(reply: bytes, error: str) -> None:
    """A number that is not the next one, an end, and a text that was changed are failures by their names."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        options = {"port": listener.getsockname()[1], "drain": 0.2, "size": 16 if len(reply) < 16 else 20}
        with Generator(push_program(), options) as generator:
            generator.send("grow 1")
            client, _ = listener.accept()
            with client:
                assert client.recv(100) == b"hello\n"
                client.sendall(b"Received: hello\n")
                generator.expect("grown", 30)
                generator.ask("start", "started")
                assert client.recv(100).startswith(b"!00000000")
                if reply:
                    client.sendall(reply.ljust(int(str(options["size"])), b"0") + b"\n")
                else:
                    client.shutdown(socket.SHUT_WR)
                for _ in itertools.repeat(None, 100):
                    stopped = generator.ask("stop", "stopped")
                    if error in stopped["errors"]:
                        break
    assert error in stopped["errors"]


def test_a_short_message_is_refused() -> None:
    """A message has to have room for its number and its speaker's."""
    with Generator(push_program(), {"size": 8}) as generator, pytest.raises(GeneratorFailed):
        generator.ask("grow 1", "grown")


def test_calls_that_send_are_counted() -> None:
    """A loop of sends makes one call a delivery; chat_gevent fewer, as speakers share a turn."""
    scenario = SCENARIOS["rooms"]
    brief = {"connections": 40, "room": 10, "seconds": 0.1, "warmup": 0.0}
    found = {}
    for server in scenario.prepared([find("c_epoll"), find("chat_gevent")]):
        bench = Bench(None, None, lambda text: None)
        found[server.name] = scenario.trial(bench, server, scenario.defaults | brief).values
    assert found["c_epoll"]["deliveries_per_call"] == pytest.approx(1, rel=0.01)
    assert found["chat_gevent"]["deliveries_per_call"] > 1.2


def test_the_counter_starts_at_zero() -> None:
    """Before anything is preloaded nothing was counted."""
    with counter() as sends:
        assert sends.read() == 0
        assert set(sends.environment()) == {"LD_PRELOAD", "BENCHMARKS_SENDS"}


def test_a_stuck_client_makes_two_servers_of_one() -> None:
    """The scenario measures each server with and without it, as two that are not the same one twice."""
    plain, stuck = SCENARIOS["stuck"].prepared([find("c_epoll")])
    assert (plain.stuck, stuck.stuck) == (0, 1)
    assert stuck.name == "c_epoll +stuck"
