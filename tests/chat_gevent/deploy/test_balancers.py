"""HAProxy and nginx with the files that are shipped, in front of real servers."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from tests.chat_gevent.deploy.files import adapted, free_port, running
from tests.conftest import require, require_tool
from tests.operate import ServerProcess, exchange, receive, rest, until

Operate = Callable[..., ServerProcess]

PROXY = b"PROXY TCP4 192.0.2.7 192.0.2.1 4321 1\r\n"
NAMES = ("one", "two", "three")


@pytest.fixture
def servers(operate: Operate) -> list[ServerProcess]:
    """Three servers that believe a balancer on this machine, and are slow to close when they are drained."""
    return [
        operate(
            *("--port", "0", "--admin", "127.0.0.1:0", "--proxy-from", "127.0.0.0/8", "--access-log"),
            *("--drain-delay", "60", "--linger-timeout", "45"),
        )
        for _ in NAMES
    ]


def admin(server: ServerProcess) -> str:
    """The port of the admin pages."""
    return server.logged(r"admin pages at http://\S+:(\d+)")[1]


class Balancer:
    """A balancer in front of the servers; ``address`` is for clients, ``folder`` has its files."""

    def __init__(self, port: int, folder: Path) -> None:
        self.address = ("127.0.0.1", port)
        self.folder = folder
        self._clients: list[socket.socket] = []

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        """A client, of that address; it is closed with the balancer."""
        self._clients.append(socket.create_connection(self.address, 30, source_address=(source, 0)))
        return self._clients[-1]

    def close(self) -> None:
        """Close all clients."""
        for each in self._clients:
            each.close()

    def states(self) -> list[str]:
        """What HAProxy shows of its servers' states."""
        with socket.socket(socket.AF_UNIX) as way:
            way.connect(str(self.folder / "admin.sock"))
            way.sendall(b"show stat chat 4 -1 json\n")
            shown = json.loads(rest(way))
        rows = [{each["field"]["name"]: each["value"]["value"] for each in fields} for fields in shown]
        return [row["status"] for row in rows if row["svname"] in NAMES]


@contextmanager
def haproxy(servers: list[ServerProcess], folder: Path) -> Iterator[Balancer]:
    """HAProxy by its file; what is other than there are addresses, the user, and the number of files."""
    port = free_port()
    changes = {"/run/haproxy": str(folder), ":12345 backlog": f"127.0.0.1:{port} backlog"}
    changes |= {
        "    user haproxy\n    group haproxy\n": "",
        "maxconn 50000": "maxconn 500",
        "log /dev/log": "log 127.0.0.1:9",
    }
    for number, (name, server) in enumerate(zip(NAMES, servers, strict=True), 1):
        own = f"127.0.0.1:{server.port} port {admin(server)}"
        changes[f"server {name} 10.0.0.1{number}:12345"] = f"server {name} {own}"
    changes["check port 12346 "] = "check "
    file = folder / "haproxy.cfg"
    file.write_text(adapted("haproxy.cfg", changes))
    balancer = Balancer(port, folder)
    with running(require_tool("haproxy"), "-db", "-f", file, log=folder / "log"):
        until(lambda: (folder / "admin.sock").exists() and balancer.states() == ["UP"] * 3, what="all are up")
        with closing(balancer):
            yield balancer


@contextmanager
def nginx(servers: list[ServerProcess], folder: Path) -> Iterator[Balancer]:
    """nginx by its file, with the little around it that every nginx has."""
    program = require_tool("nginx")
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    require(module.exists(), "libnginx-mod-stream")
    port = free_port()
    changes = {"listen 12345": f"listen 127.0.0.1:{port}"}
    for number, server in enumerate(servers, 1):
        changes[f"10.0.0.1{number}:12345"] = f"127.0.0.1:{server.port}"
    (folder / "stream.conf").write_text(adapted("nginx-stream.conf", changes))
    (folder / "nginx.conf").write_text(
        f"load_module {module};\ninclude {folder}/stream.conf;\ndaemon off;\nworker_processes 1;\n"
        f"pid {folder}/pid;\nerror_log stderr;\nevents {{}}\n"
    )
    balancer = Balancer(port, folder)

    def serves() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(balancer.address) == 0

    with running(program, "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf", log=folder / "log"):
        until(serves)
        with closing(balancer):
            yield balancer


Balance = Callable[..., AbstractContextManager[Balancer]]

BALANCERS = pytest.mark.parametrize("balance", [haproxy, nginx])


def holders(servers: list[ServerProcess], clients: list[socket.socket]) -> list[int]:
    """For each client the number of the server that shows it by the client's own address."""
    shown = [{each["address"] for each in server.clients()} for server in servers]
    found = []
    for client in clients:
        own = "{}:{}".format(*client.getsockname())
        [number] = [number for number, addresses in enumerate(shown) if own in addresses]
        found.append(number)
    return found


@BALANCERS
def test_clients_are_confirmed_and_spread_and_seen_by_their_addresses(
    balance: Balance, servers: list[ServerProcess], tmp_path: Path
) -> None:
    """Each of six clients is confirmed; each server has two, and sees the address of the client itself."""
    with balance(servers, tmp_path) as balancer:
        clients = [balancer.connect(f"127.0.0.{10 + number}") for number in range(6)]
        for each in clients:
            exchange(each, b"hello")
        numbers = holders(servers, clients)
        assert {number: numbers.count(number) for number in numbers} == {0: 2, 1: 2, 2: 2}
        balancer.close()
        until(lambda: [server.metric("chat_gevent_connections") for server in servers] == [0] * 3)


@BALANCERS
def test_a_client_that_has_ended_its_stream_is_still_answered(
    balance: Balance, servers: list[ServerProcess], tmp_path: Path
) -> None:
    """As ``printf ... | nc`` does: all its lines are confirmed, then the stream ends."""
    lines = [b"line %d" % number for number in range(2000)]
    with balance(servers, tmp_path) as balancer:
        client = balancer.connect()
        client.sendall(b"".join(line + b"\n" for line in lines))
        client.shutdown(socket.SHUT_WR)
        assert rest(client) == b"".join(b"Received: " + line + b"\n" for line in lines)


def test_haproxy_gives_a_server_that_will_stop_no_new_clients(
    servers: list[ServerProcess], tmp_path: Path
) -> None:
    """Once ``/readyz`` says 503 new clients go elsewhere, and those of the server are confirmed until it
    tells them to leave."""
    with haproxy(servers, tmp_path) as balancer:
        before = [balancer.connect() for _ in range(3)]
        for each in before:
            exchange(each, b"before")
        assert sorted(holders(servers, before)) == [0, 1, 2]
        stays = before[holders(servers, before).index(0)]
        servers[0].process.send_signal(signal.SIGTERM)
        until(lambda: servers[0].ask("/readyz")[0] == 503)
        until(lambda: balancer.states() == ["DOWN", "UP", "UP"])
        after = [balancer.connect() for _ in range(6)]
        for each in (*after, stays):
            exchange(each, b"after")
        numbers = holders(servers, after)
        assert 0 not in numbers
        servers[0].process.send_signal(signal.SIGTERM)  # the delay is over
        assert b"Error: shutting-down" in rest(stays)
        stays.close()
        assert servers[0].process.wait(30) == 0


@BALANCERS
def test_a_server_that_drains_costs_no_client_a_failure(
    balance: Balance, servers: list[ServerProcess], tmp_path: Path
) -> None:
    """While it waits for its last client, whoever would have been its next one is another's at once."""
    with balance(servers, tmp_path) as balancer, servers[2].connect() as direct:
        direct.sendall(PROXY)
        exchange(direct, b"hello")
        servers[2].process.send_signal(signal.SIGTERM)
        servers[2].logged("draining in 60 s")
        servers[2].process.send_signal(signal.SIGTERM)  # it need not wait
        assert direct.recv(1000).startswith(b"Error: shutting-down: ")
        clients = [balancer.connect() for _ in range(6)]
        for each in clients:
            exchange(each, b"hello")
        assert servers[2].process.poll() is None
        assert set(holders(servers, clients)) == {0, 1}
        direct.close()
        assert servers[2].process.wait(30) == 0


@BALANCERS
def test_a_server_that_is_gone_costs_no_client_a_failure(
    balance: Balance, servers: list[ServerProcess], tmp_path: Path
) -> None:
    """A killed server refuses connections: whoever would have been its client is another's at once."""
    with balance(servers, tmp_path) as balancer:
        servers[1].process.kill()
        servers[1].process.wait()
        clients = [balancer.connect() for _ in range(6)]
        for each in clients:
            exchange(each, b"hello")
        left = [servers[0], servers[2]]
        assert set(holders(left, clients)) == {0, 1}


@BALANCERS
def test_what_the_server_says_at_the_end_reaches_the_client(
    balance: Balance, servers: list[ServerProcess], tmp_path: Path
) -> None:
    """The confirmation that is due, the reason, the end of the stream; and no reset before that."""
    with balance(servers, tmp_path) as balancer:
        client = balancer.connect()
        exchange(client, b"hello")
        [number] = holders(servers, [client])
        servers[number].process.send_signal(signal.SIGTERM)
        servers[number].logged("draining in 60 s")
        client.sendall(b"one more\n")
        expected = b"Received: one more\n"
        assert receive(client, len(expected)) == expected
        servers[number].process.send_signal(signal.SIGTERM)
        last = rest(client)
        assert last.startswith(b"Error: shutting-down: ")
        assert last.count(b"\n") == 1
        client.close()
        assert servers[number].process.wait(30) == 0


def test_an_operator_drains_a_server_by_hand(servers: list[ServerProcess], tmp_path: Path) -> None:
    """The command in the comment of haproxy.cfg works: no new clients, and those that there are stay."""
    with haproxy(servers, tmp_path) as balancer:
        with socket.socket(socket.AF_UNIX) as way:
            way.connect(str(tmp_path / "admin.sock"))
            way.sendall(b"set server chat/one state drain\n")
            assert rest(way) == b"\n"
        until(lambda: balancer.states()[0].startswith("DRAIN"))
        clients = [balancer.connect() for _ in range(4)]
        for each in clients:
            exchange(each, b"hello")
            assert holders(servers, [each]) != [0]
