"""The PROXY protocol: through a real HAProxy, by hand, and as attackers would write it."""

from __future__ import annotations

import signal
import socket
import ssl
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chat_gevent.errors import HeaderError
from chat_gevent.lifecycle import REFUSED_LINGERING
from chat_gevent.proxy_protocol import Proxies, parse_v1, parse_v2
from tests.conftest import require_tool
from tests.operate import ServerProcess, certificate, exchange, rest, until

Operate = Callable[..., ServerProcess]

V2 = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command: int, family: int, data: bytes) -> bytes:
    """A version 2 header."""
    return V2 + struct.pack("!BBH", command, family, len(data)) + data


FOUR = socket.inet_pton(socket.AF_INET, "192.0.2.7") + bytes(4) + struct.pack("!HH", 4321, 1)
SIX = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(16) + struct.pack("!HH", 4321, 1)


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Callable[[str], tuple[str, int]]]:
    """Start HAProxy in front of a server, given in its configuration's words; returns where it listens."""
    started: list[subprocess.Popen[bytes]] = []

    def start(server: str) -> tuple[str, int]:
        listener = socket.create_server(("127.0.0.1", 0))  # HAProxy takes it over: nobody else gets the port
        port = int(listener.getsockname()[1])
        file = tmp_path / f"{port}.cfg"
        file.write_text(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n"
            f"frontend in\n bind fd@{listener.fileno()}\n default_backend out\n"
            f"backend out\n server one {server}\n"
        )
        command = [require_tool("haproxy"), "-db", "-f", str(file)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started.append(subprocess.Popen(command, pass_fds=[listener.fileno()], **quiet))  # type: ignore[call-overload]
        listener.close()  # clients may wait in its backlog
        return "127.0.0.1", port

    yield start
    for each in started:
        each.send_signal(signal.SIGTERM)
        each.wait(30)


@pytest.mark.parametrize(
    "how", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,crc32c"]
)
def test_through_haproxy(operate: Operate, haproxy: Callable[[str], tuple[str, int]], how: str) -> None:
    """Both versions: the client's address is the one that HAProxy saw, and its messages are confirmed."""
    server = operate("--port", "0", "--proxy-from", "127.0.0.0/8", "--admin", ":0", "--access-log")
    address = haproxy(f"127.0.0.1:{server.address()[1]} {how}")
    with socket.create_connection(address, 30, source_address=("127.0.0.2", 0)) as client:
        exchange(client, b"hello")
        shown = "{}:{}".format(*client.getsockname())
        assert shown in [each["address"] for each in server.clients()]
    server.logged(f"closed client={shown} .*messages=1 .*reason=eof")


def test_haproxys_health_checks_are_no_errors(
    operate: Operate, haproxy: Callable[[str], tuple[str, int]]
) -> None:
    """A check is the proxy's own connection (LOCAL): it is served, and logged as no error."""
    server = operate("--port", "0", "--proxy-from", "127.0.0.1", "--admin", ":0")
    haproxy(f"127.0.0.1:{server.address()[1]} send-proxy-v2 check check-send-proxy inter 50ms")
    until(lambda: server.metric("chat_gevent_accepted_total") > 3)
    assert "WARNING" not in server.log
    assert "ERROR" not in server.log


def test_tls_behind_the_header(
    operate: Operate, haproxy: Callable[[str], tuple[str, int]], tmp_path: Path
) -> None:
    """The header comes first, in the clear; the handshake follows in the same segment or later."""
    pem = certificate(tmp_path, "server")
    server = operate(
        *("--listen", "tls://127.0.0.1:0", "--tls-certificate", str(pem)),
        *("--tls-key", str(tmp_path / "server.key"), "--proxy-from", "127.0.0.1", "--admin", ":0"),
    )
    address = haproxy(f"127.0.0.1:{server.address()[1]} send-proxy ssl verify none")
    with socket.create_connection(address, 30, source_address=("127.0.0.3", 0)) as client:
        exchange(client, b"hello")
        [found] = [each for each in server.clients() if each["address"].startswith("127.0.0.3:")]
        assert found["tls"]


def test_only_named_networks_are_believed(operate: Operate) -> None:
    """From elsewhere a header is a message like any other, and the address stays the real one."""
    server = operate(
        "--port", "0", "--proxy-from", "10.0.0.0/8,127.0.0.9", "--admin", ":0", "--framing", "line"
    )
    with server.connect() as client:
        client.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 4321 1\r\n")
        assert client.recv(1000) == b"Received: PROXY TCP4 192.0.2.7 192.0.2.1 4321 1\n"
        assert server.clients()[0]["address"].startswith("127.0.0.1:")
    with socket.create_connection(server.address(), 30, source_address=("127.0.0.9", 0)) as client:
        client.sendall(b"hello\n")
        assert rest(client) == b""
    server.logged(
        r"WARNING connection from the proxy 127.0.0.9:\d+ refused: it does not begin with a PROXY header"
    )


HEADERS = [
    (b"PROXY TCP4 192.0.2.7 192.0.2.1 4321 1\r\n", "192.0.2.7:4321"),
    (b"PROXY TCP6 2001:db8::7 ::1 4321 1\r\n", "[2001:db8::7]:4321"),
    (b"PROXY UNKNOWN\r\n", "127.0.0.1:"),
    (b"PROXY UNKNOWN whatever it is\r\n", "127.0.0.1:"),
    (v2(0x21, 0x11, FOUR), "192.0.2.7:4321"),
    (v2(0x21, 0x11, FOUR + b"\x04\x00\x03abc"), "192.0.2.7:4321"),
    (v2(0x21, 0x21, SIX), "[2001:db8::7]:4321"),
    (v2(0x20, 0x00, b""), "127.0.0.1:"),
    (v2(0x21, 0x31, bytes(216)), "127.0.0.1:"),
    (v2(0x21, 0x11, FOUR + bytes(4000)), "192.0.2.7:4321"),
]


def test_headers_whole_and_byte_by_byte(operate: Operate) -> None:
    """Each kind of header, with the first message in the same segment, and in segments of one byte."""
    server = operate("--port", "0", "--proxy-from", "127.0.0.1", "--admin", ":0", "--framing", "line")
    for header, address in HEADERS:
        with server.connect() as client:
            client.sendall(header + b"hello\n")
            assert client.recv(1000) == b"Received: hello\n", header
            assert any(each["address"].startswith(address) for each in server.clients()), header
        with server.connect() as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in header[:300]:
                client.sendall(bytes([byte]))
            client.sendall(header[300:])
            exchange(client, b"hello")
        until(lambda: server.metric("chat_gevent_connections") == 0)


NO_HEADERS = [
    b"PROXY TCP4 192.0.2.7 192.0.2.1 4321\r\n",
    b"PROXY TCP4 2001:db8::7 ::1 4321 1\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 65536 1\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 -1 1\r\n",
    b"PROXY TCP4 192.0.2.777 192.0.2.1 1 1\r\n",
    b"PROXY UDP4 192.0.2.7 192.0.2.1 1 1\r\n",
    b"PROXY \xff\r\n",
    b"PROXY " + b"x" * 5000,
    b"PROXYTCP4 192.0.2.7 192.0.2.1 4321 1\r\n",
    b"\r\n\r\n\0\r\nQUIX\n" + bytes(20),
    v2(0x11, 0x11, FOUR),
    v2(0x22, 0x11, FOUR),
    v2(0x21, 0x11, FOUR[:8]),
    V2 + b"\x21\x11\xff\xff" + bytes(70_000),
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\0" * 100_000,
]


def test_what_is_no_header_is_refused(operate: Operate) -> None:
    """Bad, foreign and giant headers: closed at once with a warning, no traceback, no message counted."""
    server = operate("--port", "0", "--proxy-from", "127.0.0.1", "--admin", ":0")
    for number, header in enumerate(NO_HEADERS, 1):
        with server.connect() as client:
            try:
                client.sendall(header)
                assert rest(client) == b"", header
            except ConnectionError:  # it was closed before all of a giant header was sent
                assert len(header) > 1000, header
        closed = 'chat_gevent_closed_total{reason="proxy-header"}'
        until(lambda: server.metric(closed) == number, what=f"the end of {header!r}")  # noqa: B023
    assert server.metric("chat_gevent_messages_total") == 0
    server.logged("WARNING connection from the proxy .* refused: ")
    assert "Traceback" not in server.log


def test_half_a_header_ends_with_the_handshake_time(operate: Operate) -> None:
    """Silence, half a header, and half a header with the stream's end: nobody keeps a greenlet."""
    server = operate(
        "--port", "0", "--proxy-from", "127.0.0.1", "--handshake-timeout", "0.4", "--admin", ":0"
    )
    with server.connect() as silent, server.connect() as half, server.connect() as ended:
        half.sendall(b"PROXY TCP4 192.0")
        ended.sendall(V2 + b"\x21")
        ended.shutdown(socket.SHUT_WR)
        for each in (silent, half, ended):
            assert rest(each) == b""
    until(lambda: server.metric("chat_gevent_connections") == 0)
    assert server.metric('chat_gevent_greenlets{state="leased"}') == 0


def test_the_limit_of_an_address_counts_the_clients_behind_the_proxy(operate: Operate) -> None:
    """Not the proxy itself, which has many; and who leaves makes room."""
    server = operate(
        *("--port", "0", "--proxy-from", "127.0.0.1", "--max-connections-per-address", "2", "--admin", ":0")
    )

    def connect(host: str) -> socket.socket:
        client = server.connect()
        client.sendall(f"PROXY TCP4 {host} 192.0.2.1 4321 1\r\n".encode())
        return client

    with connect("192.0.2.7") as one, connect("192.0.2.7") as two, connect("192.0.2.8") as other:
        for each in (one, two, other):
            exchange(each, b"hello")
        with connect("192.0.2.7") as third:
            assert rest(third).startswith(b"Error: address-full: ")
        assert server.metric('chat_gevent_refused_total{reason="address-full"}') == 1
    until(lambda: server.metric("chat_gevent_connections") == 0)
    with connect("192.0.2.7") as again:
        exchange(again, b"hello")


def test_refusals_behind_a_proxy_take_no_places(operate: Operate, tmp_path: Path) -> None:
    """Clients refused over TLS behind a proxy, for either reason, that stay: the books still balance."""
    pem = certificate(tmp_path, "server")
    server = operate(
        *("--listen", "tls://127.0.0.1:0", "--tls-certificate", str(pem), "--admin", ":0"),
        *("--tls-key", str(tmp_path / "server.key"), "--proxy-from", "127.0.0.1", "--max-connections", "3"),
        *("--max-connections-per-address", "1", "--linger-timeout", "20", "--framing", "line"),
    )
    context = ssl.create_default_context(cafile=str(pem))

    def connect(host: str) -> ssl.SSLSocket:
        client = server.connect()
        client.sendall(f"PROXY TCP4 {host} 192.0.2.1 4321 1\r\n".encode())
        return context.wrap_socket(client, server_hostname="localhost")

    def ask(client: ssl.SSLSocket) -> bytes:
        client.sendall(b"hello\n")
        return client.recv(16)

    one = connect("192.0.2.1")
    assert ask(one) == b"Received: hello\n"
    staying = [connect("192.0.2.1") for _ in range(5)]
    for each in staying:
        assert each.recv(18) == b"Error: address-ful"
    one.close()
    until(lambda: server.metric('chat_gevent_closed_total{reason="eof"}') == 1)
    inside = [connect(f"192.0.2.{number}") for number in (1, 2, 3)]
    for each in inside:
        assert ask(each) == b"Received: hello\n"
    staying += [connect(f"192.0.2.{number}") for number in (4, 5)]
    for each in staying[5:]:
        assert each.recv(18) == b"Error: server-full"
    inside.pop().close()
    until(lambda: server.metric('chat_gevent_closed_total{reason="eof"}') == 2)
    inside.append(connect("192.0.2.4"))
    assert ask(inside[-1]) == b"Received: hello\n"
    for each in (*inside, *staying):
        each.close()


def test_one_address_behind_a_proxy_does_not_use_up_the_files(operate: Operate) -> None:
    """Only some are waited for to read their refusal; further ones are told, and closed at once."""
    server = operate(
        *("--port", "0", "--proxy-from", "127.0.0.1", "--max-connections-per-address", "1", "--admin", ":0"),
        *("--linger-timeout", "60"),
    )
    clients = []
    for number in range(REFUSED_LINGERING + 21):
        clients.append(server.connect())
        clients[-1].sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 4321 1\r\n")
        if number:
            assert rest(clients[-1]).startswith(b"Error: address-full: ")
    # Those that were closed at once are gone; the others wait for their client to close.
    until(lambda: server.metric("chat_gevent_connections") == 1 + REFUSED_LINGERING)
    assert server.metric('chat_gevent_refused_total{reason="address-full"}') == REFUSED_LINGERING + 20
    exchange(clients[0], b"hello")
    for each in clients:
        each.close()
    until(lambda: server.metric("chat_gevent_connections") == 0)


def test_networks() -> None:
    """IPv4 clients of a socket for both kinds match IPv4 networks; UNIX clients only ``unix``."""
    proxies = Proxies(("10.0.0.0/8", "fd00::/8"))
    assert proxies.trust(("10.1.2.3", 1))
    assert proxies.trust(("::ffff:10.1.2.3", 1, 0, 0))
    assert proxies.trust(("fd00::1%eth0", 1, 0, 2))
    assert not proxies.trust(("11.1.2.3", 1))
    assert not proxies.trust("")
    assert Proxies(("unix",)).trust("")
    assert not Proxies(("unix",)).trust(("127.0.0.1", 1))


def test_parsers_raise_nothing_else() -> None:
    """Whatever the bytes are, the outcome is an address, None or HeaderError."""
    for size in range(40):
        for fill in (0, 32, 255):
            data = bytes([fill]) * size
            try:
                parse_v1(b"PROXY " + data)
            except HeaderError:
                pass
            try:
                parse_v2(0x21, 0x21, data)
            except HeaderError:
                pass
