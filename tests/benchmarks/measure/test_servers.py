"""Every server that is measured does the same work: one conformance test runs against each of them."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.measure.compiler import BuildFailed, compiled
from benchmarks.measure.scenarios.tls import certificate_and_key
from benchmarks.measure.servers import SERVERS, Server, find
from benchmarks.measure.servers.process import ServerFailed, ServerProcess
from tests.conftest import require, require_tool

LINE_SERVERS = [(name, "") for name, server in SERVERS.items() if server.framing == "line"]
VARIANTS = [(name, variant) for name, server in SERVERS.items() for variant in server.variants]


def start(name: str, options: Iterable[str] = (), variant: str = "") -> ServerProcess:
    """Start a server, or skip where it cannot run; on CI it must."""
    server = find(name)
    missing = server.missing()
    require(not missing, f"what {name} is made with: {missing}")
    return ServerProcess(server.variant(variant) if variant else server, options=options)


@pytest.fixture(scope="module", params=LINE_SERVERS + VARIANTS, ids=lambda each: "-".join(filter(None, each)))
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """Each server that speaks the line protocol, and each with a handler of one's own, running."""
    name, variant = request.param
    with start(name, variant=variant) as process:
        yield process


def talk(process: ServerProcess, data: bytes, end: bool = True) -> bytes:
    """Send ``data``, close the write side if ``end``, and read until the server closes."""
    with socket.create_connection((process.host, process.port), timeout=30) as client:
        client.sendall(data)
        if end:
            client.shutdown(socket.SHUT_WR)
        received = []
        try:
            while part := client.recv(1 << 16):
                received.append(part)
        except (
            ConnectionResetError
        ):  # a server that closes with unread input resets; what it said may still be here
            pass
        return b"".join(received)


def test_confirms_lines_in_order(server: ServerProcess) -> None:
    """Each line is confirmed, also several in one write, an empty one, and one that is not ASCII."""
    assert (
        talk(server, "a\nbb\n\ngrüße\n".encode())
        == "Received: a\nReceived: bb\nReceived: \nReceived: grüße\n".encode()
    )


def test_drops_cr_before_lf(server: ServerProcess) -> None:
    """Telnet's CR LF ends a line; the CR is no part of the message."""
    assert talk(server, b"a\r\nb\rc\r\n") == b"Received: a\nReceived: b\rc\n"


def test_line_in_pieces(server: ServerProcess) -> None:
    """A line that arrives a byte at a time is one message."""
    with socket.create_connection((server.host, server.port), timeout=30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in "pieces ü\n".encode():
            client.send(bytes([byte]))
        expected = "Received: pieces ü\n".encode()
        received = b""
        while len(received) < len(expected):
            received += client.recv(100)
        assert received == expected


def test_refuses_what_is_not_utf8_and_goes_on(server: ServerProcess) -> None:
    """What is not UTF-8, overlong forms and surrogates too, gets its error; the next one is confirmed."""
    for bad in (b"\xff", b"a\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"):
        first, second, rest = talk(server, bad + b"\nok\n").split(b"\n")
        assert first.startswith(b"Error: invalid-utf8: ")
        assert (second, rest) == (b"Received: ok", b"")


@pytest.mark.parametrize("word", [b"/exit", b"/EXIT", b"  /Exit \t", b"/exit\r"])
def test_exit_closes_without_a_reply(server: ServerProcess, word: bytes) -> None:
    """/exit in any case and with white space around it closes; replies due come first, nothing after."""
    assert talk(server, b"a\n" + word + b"\nb\n", end=False) == b"Received: a\n"


def test_words_like_exit_are_messages(server: ServerProcess) -> None:
    """What only begins like /exit is confirmed."""
    assert talk(server, b"/exits\n/ exit\n/\n") == b"Received: /exits\nReceived: / exit\nReceived: /\n"


def test_longest_line(server: ServerProcess) -> None:
    """65,536 bytes are still a message."""
    line = b"x" * 65_536 + b"\n"
    assert talk(server, line + b"/exit\n", end=False) == b"Received: " + line


# Tornado's IOStream closes the stream by itself when a line has no end: it cannot say why.
# Others close with input unread, so the reset may overtake the error: only the end is certain.
def test_too_long_line_ends_the_connection(server: ServerProcess) -> None:
    """A line over the bound is not confirmed: its error, where it still arrives, and the end."""
    got = talk(server, b"x" * 65_538 + b"\n", end=False)
    assert got == b"" or got.startswith(b"Error: message-too-long: ")
    if server.server.name != "tornado":
        with socket.create_connection((server.host, server.port), timeout=30) as client:
            client.sendall(b"x" * 70_000)
            assert client.recv(1000).startswith(b"Error: message-too-long: ")


def test_unterminated_last_line(server: ServerProcess) -> None:
    """Bytes that no LF closed are a last message when the client closes its write side."""
    if server.server.name == "tornado":
        assert (
            talk(server, b"a\n") == b"Received: a\n"
        )  # its IOStream is closed at once when the client's side ends
        return
    assert talk(server, b"a\nhello") == b"Received: a\nReceived: hello" + b"\n"


def test_vanished_client_harms_nobody(server: ServerProcess) -> None:
    """A reset in mid-message does not end the server."""
    client = socket.create_connection((server.host, server.port), timeout=30)
    client.sendall(b"half a mess")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    assert talk(server, b"still here\n") == b"Received: still here\n"
    assert server.running()


def test_slow_reader_gets_all_replies(server: ServerProcess) -> None:
    """More replies than the sockets' buffers hold: a client that reads late gets each."""
    count, line = 400, b"y" * 20_000 + b"\n"
    with socket.create_connection((server.host, server.port), timeout=30) as client:
        client.setblocking(False)
        sent, data, received = 0, line * count, bytearray()
        expected = (b"Received: " + line) * count
        while sent < len(data):  # write until the buffers are full, then read a little to make room
            try:
                sent += client.send(data[sent : sent + (1 << 20)])
            except BlockingIOError:
                client.settimeout(30)
                received += client.recv(1 << 16)
                client.setblocking(False)
        client.settimeout(30)
        while len(received) < len(expected):
            part = client.recv(1 << 20)
            assert part
            received += part
        assert received == expected


def test_seed_server_confirms_reads() -> None:
    """``threads`` is kept as it was: a read is a message, no terminator is added, /exit closes."""
    with (
        start("threads") as process,
        socket.create_connection((process.host, process.port), timeout=30) as client,
    ):
        client.send("grüße".encode())
        assert client.recv(1024) == "Received: grüße".encode()
        client.send(b"a\nb\n")
        assert client.recv(1024) == b"Received: a\nb\n"
        client.send(b"/EXIT")
        assert client.recv(1024) == b""


def test_slowed_server_is_known_by_its_length() -> None:
    """``NAME+<N>ns`` is the same server with a busy loop of that length; it still confirms."""
    assert "300000" in find("asyncio_protocol+300000ns").command()
    with start("asyncio_protocol+300000ns") as process:
        assert talk(process, b"a\n") == b"Received: a\n"
    with pytest.raises(ValueError, match="takes no busy loop"):
        find("go+100ns")


def test_failed_start_says_why() -> None:
    """A server that ends before it is ready is reported with the last line that it wrote."""
    broken = replace(
        find("threads"), name="broken", command=lambda: [sys.executable, "-c", "raise SystemExit('no luck')"]
    )
    with pytest.raises(ServerFailed, match="broken is not ready: it said nothing; no luck"):
        ServerProcess(broken)


def test_compiler_output_is_reported(tmp_path: Path) -> None:
    """A source that does not compile is reported with the compiler's words, and leaves nothing behind."""
    source = tmp_path / "bad.c"
    source.write_text("int main( {")
    with pytest.raises(BuildFailed, match=r"cannot compile bad\.c: .*broken"):
        compiled(source, lambda a, b: [sys.executable, "-c", "import sys; sys.exit('broken')"])


@pytest.mark.parametrize("name", list(SERVERS))
def test_every_server_is_described(name: str) -> None:
    """Each has a summary, a hash of its sources and a reason where it cannot run."""
    server: Server = SERVERS[name]
    assert server.summary
    assert len(server.source_hash()) == 16
    assert server.missing() is None or " " in str(server.missing())


@pytest.mark.parametrize(
    "name", [n for n, s in SERVERS.items() if "benchmarks" in repr(s.command)] or ["asyncio_protocol"]
)
def test_address_in_use_ends_a_server(name: str) -> None:
    """A port that is taken makes a server end with a non-zero status instead of saying ready."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [*find(name).command(), "--port", str(taken.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, timeout=50, check=False)
    assert done.returncode != 0
    assert b"ready" not in done.stdout


@pytest.mark.parametrize("name", [name for name, server in SERVERS.items() if server.tls])
def test_tls_servers_serve_several_clients_at_once(name: str) -> None:
    """Over TLS a client is served while another one's handshake has not even begun."""
    require_tool("openssl")
    certificate, key = certificate_and_key()
    server = find(name)
    assert server.tls
    context = ssl.create_default_context(cafile=certificate)
    with (
        start(name, server.tls(certificate, key)) as process,
        socket.create_connection((process.host, process.port), timeout=30),
        socket.create_connection((process.host, process.port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        client.sendall(b"a\nb\n")
        received, expected = b"", b"Received: a\nReceived: b\n"
        while len(received) < len(expected):
            received += client.recv(100)
        assert received == expected
