"""The client against real servers that answer late, in pieces, in a burst, wrongly, never, or not at all."""

from __future__ import annotations

import errno
import socket as std
from pathlib import Path
from time import perf_counter
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer

from loadtest.client.address import SourcePool, Target
from loadtest.client.tcp_client import TcpClient
from loadtest.client.transport import ClientOptions
from loadtest.errors import (
    ConnectFailed,
    ConnectionBroken,
    ConnectionClosed,
    ConnectTimeout,
    ReadTimeout,
    RequestFailed,
    SendTimeout,
    UnexpectedData,
)
from loadtest.framing import Chunk, LengthPrefix
from tests.loadtest import servers
from tests.loadtest.ports import reserved_port
from tests.loadtest.servers import ScriptedServer


def client_of(server: ScriptedServer, **how: Any) -> TcpClient:
    """A connected client; what it waits for comes within 30 s, however busy the machine is."""
    how = {"connect_timeout": 30.0, "read_timeout": 30.0, **how}
    client = TcpClient(ClientOptions(Target.parse(server.host), **how))
    client.connect()
    return client


def wait_until_heard(client: TcpClient) -> None:
    """Until bytes are there that nobody has asked for: read already, or seen by the watcher."""
    with gevent.Timeout(30):
        while client._watching and not client.extra:
            gevent.sleep(0.001)


def test_a_request_gets_its_reply_and_its_times() -> None:
    """Connect, first byte and reply are timed apart."""
    held = servers.HeldPieces()
    with ScriptedServer(held) as server:
        begin = perf_counter()
        client = client_of(server)
        assert 0 < client.connect_seconds < perf_counter() - begin
        begin = perf_counter()
        held.heard = lambda: client.first_byte_at > begin
        assert client.request(b"hello") == b"Received: hello"
        over = perf_counter()
        ((came, read, sent),) = held.moments
        assert begin < came < client.first_byte_at < read < sent < client.reply_at < over
        client.close()


def test_a_pipeline_gets_its_replies_in_order() -> None:
    """Several messages in one write; the server answers all of them in another."""
    with ScriptedServer(servers.burst) as server:
        client = client_of(server)
        assert client.pipeline([b"a", b"b", b"c", b"d"]) == [
            b"Received: " + m for m in (b"a", b"b", b"c", b"d")
        ]
        client.close()


def test_a_pipeline_larger_than_all_buffers_does_not_lock() -> None:
    """While the client sends, it reads what the server answers, or both would wait for ever."""
    with ScriptedServer(servers.confirm) as server:
        client = client_of(server, write_timeout=50.0, read_timeout=50.0)
        messages = [b"%05d" % number + b"x" * 20_000 for number in range(600)]
        replies = client.pipeline(messages)
        assert replies == [b"Received: " + message for message in messages]
        client.close()


@pytest.mark.parametrize(
    ("handler", "error", "group"),
    [
        (servers.never, ReadTimeout, "ReadTimeout"),
        (servers.leave, ConnectionClosed, "ConnectionClosed"),
        (servers.half, ConnectionClosed, "ConnectionClosed"),
        (servers.reset, ConnectionBroken, "ConnectionBroken(ECONNRESET)"),
    ],
)
def test_what_goes_wrong_has_a_class_and_a_reason(
    handler: servers.Handler, error: type[RequestFailed], group: str
) -> None:
    """Errors are grouped by class and errno, and their repr is the group."""
    with ScriptedServer(handler) as server:
        client = client_of(server, read_timeout=0.1 if handler is servers.never else 30.0)
        with pytest.raises(error) as caught:
            client.request(b"hello")
        assert repr(caught.value) == caught.value.group == group
        client.close()


def test_the_read_time_out_is_that_of_the_current_request() -> None:
    """The lazily armed timer fires when the deadline of the current request passes, not an earlier one's."""

    def handler(connection: Any, _: Any) -> None:
        for line in servers.lines(connection):
            if line != b"never\n":
                connection.sendall(b"Received: " + line)

    with ScriptedServer(handler) as server:
        client = client_of(server, read_timeout=50.0)
        for _ in range(4):
            client.request(b"quick enough")
        client.options = ClientOptions(client.options.target, read_timeout=0.02)
        begin = perf_counter()
        with pytest.raises(ReadTimeout):
            client.request(b"never")
        assert 0.02 <= perf_counter() - begin < 40  # the first requests' time-out is still armed
        client.close()


def test_a_server_that_does_not_read_is_a_write_time_out() -> None:
    """What the kernel does not take within the write time-out is an error of its own."""
    with ScriptedServer(servers.deaf) as server:
        client = client_of(server, write_timeout=0.2)
        with pytest.raises(SendTimeout):
            client.request(b"x" * 20_000_000)
        client.close()


def test_a_refused_connection_names_its_errno() -> None:
    """Nobody listens."""
    with reserved_port() as port, pytest.raises(ConnectFailed) as caught:
        TcpClient(ClientOptions(Target.parse(f"tcp://127.0.0.1:{port}"))).connect()
    assert repr(caught.value) == "ConnectFailed(ECONNREFUSED)"
    assert caught.value.errno == errno.ECONNREFUSED


def test_an_unknown_name_is_a_failed_connect() -> None:
    """The resolver's answer is no traceback."""
    with pytest.raises(ConnectFailed) as caught:
        TcpClient(ClientOptions(Target.parse("tcp://no-such-host.invalid:1"))).connect()
    assert repr(caught.value) == "ConnectFailed(name unknown)"


def test_a_full_backlog_is_a_connect_time_out() -> None:
    """A server that does not accept: the kernel drops what its backlog can't hold."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        settings = ClientOptions(Target("tcp", "127.0.0.1", listener.getsockname()[1]), connect_timeout=0.2)
        clients = [TcpClient(settings) for _ in range(4)]
        begin = perf_counter()

        def connect_all() -> None:
            for client in clients:
                client.connect()

        with pytest.raises(ConnectTimeout):
            connect_all()
        assert perf_counter() - begin < 30  # the kernel itself tries for two minutes
        for client in clients:
            client.close()


@pytest.mark.parametrize("handler", [servers.twice, servers.push])
def test_bytes_that_nobody_asked_for_are_noticed(handler: servers.Handler) -> None:
    """A reply too many, or a server that speaks first, would shift all replies after it."""
    with ScriptedServer(handler) as server:
        client = client_of(server)
        if handler is servers.twice:
            client.request(b"hello")
        wait_until_heard(client)
        with pytest.raises(UnexpectedData):
            client.request(b"hello")
        client.close()


def test_an_idle_connection_costs_no_loop_when_the_server_has_spoken() -> None:
    """The level-triggered watcher is stopped until somebody wants what is there."""
    with ScriptedServer(servers.push) as server:
        client = client_of(server)
        wait_until_heard(client)
        fired = 0
        wake = client._wake

        def counted() -> None:
            nonlocal fired
            fired += 1
            wake()

        client._watcher.callback = counted
        for _ in range(3):
            gevent.sleep(0.001)  # a turn of the loop, in which a watcher that goes on would fire
        assert fired == 0
        client.close()


def test_holding_notices_at_once_that_the_server_leaves() -> None:
    """A holder does not wait for its next message to find its connection gone."""
    with ScriptedServer(servers.go_away) as server:
        client = client_of(server)
        begin = perf_counter()
        with pytest.raises(ConnectionClosed):
            client.idle(55)
        assert perf_counter() - begin < 50
        client.close()


def test_holding_ends_in_time_and_the_connection_still_works() -> None:
    """Idle, message, idle, message."""
    with ScriptedServer(servers.confirm) as server:
        client = client_of(server)
        for _ in range(3):
            begin = perf_counter()
            client.idle(0.03)
            assert 0.03 <= perf_counter() - begin < 20  # and not when the read time-out is over
            assert client.request(b"still there") == b"Received: still there"
        client.close()


def test_exit_waits_for_the_end_of_the_stream() -> None:
    """The server must close, and say nothing; a server that answers is caught."""
    with ScriptedServer(servers.confirm) as server:
        client = client_of(server)
        begin = perf_counter()
        took = client.finish(b"/exit")
        assert 0 < took < perf_counter() - begin
        assert not client.connected
    with ScriptedServer(servers.late) as server:
        client = client_of(server)
        with pytest.raises(UnexpectedData):
            client.finish(b"/exit")
        client.close()
    with ScriptedServer(servers.never) as server:
        client = client_of(server, read_timeout=0.1)
        with pytest.raises(ReadTimeout):
            client.finish(b"/exit")
        client.close()


def test_a_length_prefix_carries_any_bytes() -> None:
    """Binary messages, the delimiter of others included, through a server that echoes bytes."""
    with ScriptedServer(servers.echo) as server:
        client = client_of(server, framing=LengthPrefix(2))
        message = bytes(range(256)) * 100
        assert client.request(message) == message
        assert client.pipeline([b"", b"\n", message]) == [b"", b"\n", message]
        client.close()


def test_without_framing_the_expected_length_ends_a_reply() -> None:
    """One read is not one reply: where the caller knows the length, pieces are put together."""
    with ScriptedServer(servers.pieces) as server:
        client = client_of(server, framing=Chunk())
        assert client.request(b"hello\n", length=len(b"Received: hello\n")) == b"Received: hello\n"
        client.close()


def test_a_unix_socket_and_ipv6_work_alike(tmp_path: Path) -> None:
    """The other address families."""
    path = tmp_path / "server.sock"
    with std.socket(std.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.setblocking(False)
        server = StreamServer(socket.socket(fileno=listener.detach()), servers.confirm)
        server.start()
        client = TcpClient(ClientOptions(Target.parse(f"unix://{path}")))
        client.connect()
        assert client.request(b"hello") == b"Received: hello"
        client.close()
        server.stop(timeout=0)
    server = StreamServer(("::1", 0), servers.confirm)
    server.start()
    client = TcpClient(ClientOptions(Target.parse(f"[::1]:{server.server_port}")))
    client.connect()
    assert client.request(b"hello") == b"Received: hello"
    client.close()
    server.stop(timeout=0)


def test_source_addresses_are_used_in_turn() -> None:
    """Connections come from the pool's addresses."""
    with ScriptedServer(servers.confirm) as server:
        pool = SourcePool.parse("127.0.0.2-127.0.0.4")
        clients = [client_of(server, sources=pool) for _ in range(6)]
        assert [client.source[0] for client in clients] == ["127.0.0.2", "127.0.0.3", "127.0.0.4"] * 2
        for client in clients:
            client.close()


def test_source_addresses_of_both_families_are_used_each_for_its_own() -> None:
    """Connections to IPv4 come from the pool's IPv4 addresses in turn, and those to IPv6 from the others."""
    pool = SourcePool.parse("127.0.0.2-127.0.0.3,::1")
    other = StreamServer(("::1", 0), servers.confirm)
    other.start()
    with ScriptedServer(servers.confirm) as server:
        sources = []
        for host in (server.host, f"tcp://[::1]:{other.server_port}", server.host, server.host):
            client = TcpClient(ClientOptions(Target.parse(host), sources=pool, connect_timeout=30.0))
            client.connect()
            sources.append(client.source[0])
            client.close()
    other.stop(timeout=0)
    assert sources == ["127.0.0.2", "::1", "127.0.0.3", "127.0.0.2"]


def test_a_target_of_a_family_without_source_addresses_is_told() -> None:
    """Before the test where the host is an address; a name's addresses fail each connect, in words."""
    pool = SourcePool.parse("127.0.0.2")
    target = Target.parse("tcp://[::1]:1")
    with pytest.raises(ValueError, match=r"none of them is IPv6, as tcp://\[::1\]:1 is"):
        pool.check(target)
    pool.check(Target.parse("tcp://127.0.0.1:1"))
    pool.check(Target.parse("tcp://localhost:1"))
    pool.check(Target.parse("unix:///run/x.sock"))
    with pytest.raises(ConnectFailed, match="none of the source addresses is IPv6") as caught:
        TcpClient(ClientOptions(target, sources=pool)).connect()
    assert repr(caught.value) == "ConnectFailed(EAFNOSUPPORT)"


def test_a_linger_of_zero_closes_with_a_reset() -> None:
    """No TIME_WAIT is left, and the server sees a reset instead of an end."""
    seen: list[int | None] = []

    def watch(connection: Any, _: Any) -> None:
        try:
            connection.recv(1)
            seen.append(None)
        except OSError as error:
            seen.append(error.errno)

    with ScriptedServer(watch) as server:
        client = client_of(server, linger=0)
        client.close()
        with gevent.Timeout(30):
            while not seen:
                gevent.sleep(0.001)
    assert seen == [errno.ECONNRESET]


def test_nodelay_is_set_unless_nagle_is_wanted() -> None:
    """Small messages leave at once by default."""
    with ScriptedServer(servers.confirm) as server:
        for nodelay in (True, False):
            client = client_of(server, nodelay=nodelay)
            assert bool(client._socket.getsockopt(std.IPPROTO_TCP, std.TCP_NODELAY)) is nodelay
            client.close()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tcp://127.0.0.1:1", "tcp://127.0.0.1:1"),
        ("127.0.0.1:1", "tcp://127.0.0.1:1"),
        ("tls://example.org:443", "tls://example.org:443"),
        ("[::1]:5", "tcp://[::1]:5"),
        ("unix:///run/x.sock", "unix:///run/x.sock"),
    ],
)
def test_hosts_are_read_as_people_write_them(text: str, shown: str) -> None:
    """All the forms of a host."""
    assert str(Target.parse(text)) == shown


@pytest.mark.parametrize(
    "text", ["http://x:1", "x", "tcp://x", "tcp://x:99999", "unix:relative", "tcp://x:1/y"]
)
def test_a_host_that_cannot_be_read_is_a_sentence(text: str) -> None:
    """The message names what was given."""
    with pytest.raises(ValueError, match=r"is written|scheme|out of range|Port"):
        Target.parse(text)


def test_source_pools_are_read_as_people_write_them() -> None:
    """Single addresses, ranges and networks; anything else is a sentence."""
    assert SourcePool.parse("127.0.0.2, 10.0.0.0/30,::1").addresses == [
        "127.0.0.2",
        "10.0.0.1",
        "10.0.0.2",
        "::1",
    ]
    for text in ("x", "127.0.0.9-127.0.0.2", "10.0.0.1/8", "10.0.0.0/8", ""):
        with pytest.raises(ValueError, match="source address"):
            SourcePool.parse(text)
