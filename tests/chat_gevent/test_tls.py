"""TLS through the running command, with openssl's own client and with Python's."""

from __future__ import annotations

import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chat_gevent.framing import LINE
from chat_gevent.state import State
from tests.conftest import require_tool, wait_until
from tests.operate import ServerProcess, certificate, exchange, memory, rest, until
from tests.peers import TlsPeer

Operate = Callable[..., ServerProcess]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates: of two servers, of a CA with a client of its own, and of a client nobody knows."""
    made = tmp_path_factory.mktemp("certificates")
    for name in ("server", "renewed", "stranger"):
        certificate(made, name)
    certificate(made, "ca", ca=True)
    certificate(made, "client", signer="ca")
    return made


def serve_tls(operate: Operate, folder: Path, *arguments: str) -> ServerProcess:
    """A server with TLS on a free port, and admin pages."""
    options = ("--tls-certificate", str(folder / "server.pem"), "--tls-key", str(folder / "server.key"))
    return operate("--listen", "tls://127.0.0.1:0", "--admin", ":0", *options, *arguments)


def s_client(server: ServerProcess, lines: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    """Send ``lines`` with ``openssl s_client``, and take what comes until the server closes."""
    host, port = server.address()
    arguments = ["s_client", "-connect", f"{host}:{port}", "-ign_eof", *options]
    return subprocess.run([require_tool("openssl"), *arguments], input=lines, capture_output=True, timeout=30)


def connect(server: ServerProcess, ca: Path, **identity: str) -> ssl.SSLSocket:
    """A Python client that trusts ``ca``."""
    context = ssl.create_default_context(cafile=str(ca))
    if identity:
        context.load_cert_chain(**identity)
    return context.wrap_socket(server.connect(), server_hostname="localhost")


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_s_client_is_confirmed(operate: Operate, folder: Path, version: str) -> None:
    """TLS 1.2 and 1.3: messages are confirmed, ``/exit`` ends the connection in order."""
    server = serve_tls(operate, folder)
    assert server.urls[0].startswith("tls://127.0.0.1:")
    done = s_client(server, b"one\ntwo\n/exit\n", version, "-CAfile", str(folder / "server.pem"), "-quiet")
    assert done.stdout == b"Received: one\nReceived: two\n"
    assert done.returncode == 0
    assert b"verify return:1" in done.stderr


def test_older_versions_are_refused_with_an_alert(operate: Operate, folder: Path) -> None:
    """TLS 1.1 gets an alert that says so, not a reset."""
    server = serve_tls(operate, folder)
    done = s_client(server, b"one\n", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
    assert done.returncode != 0
    assert b"alert protocol version" in done.stderr
    until(lambda: server.metric('chat_gevent_closed_total{reason="tls-handshake"}') == 1)


def test_alpn_is_unset_and_renegotiation_refused(operate: Operate, folder: Path) -> None:
    """The server chooses no ALPN protocol, and does not renegotiate."""
    server = serve_tls(operate, folder)
    host, port = server.address()
    arguments = ["s_client", "-connect", f"{host}:{port}", "-tls1_2", "-alpn", "h2,http/1.1"]
    with subprocess.Popen(
        [require_tool("openssl"), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as client:
        out, err = client.communicate(b"R\n", timeout=30)  # its command to renegotiate
    assert b"No ALPN negotiated" in out
    assert b"RENEGOTIATING" in out + err
    assert b"no renegotiation" in err
    assert b"Received: R" not in out


def test_mutual_tls(operate: Operate, folder: Path) -> None:
    """With a client CA, its clients are served; one without certificate, or of another CA, gets an alert."""
    server = serve_tls(operate, folder, "--tls-client-ca", str(folder / "ca.pem"))
    identity = ("-cert", str(folder / "client.pem"), "-key", str(folder / "client.key"))
    assert s_client(server, b"one\n/exit\n", *identity, "-quiet").stdout == b"Received: one\n"
    without = s_client(server, b"one\n")
    assert b"certificate required" in without.stderr
    assert b"Received" not in without.stdout
    other = ("-cert", str(folder / "stranger.pem"), "-key", str(folder / "stranger.key"))
    stranger = s_client(server, b"one\n", *other)
    assert b"unknown ca" in stranger.stderr
    assert b"Received" not in stranger.stdout
    assert server.logged(r"WARNING TLS handshake with .* failed: ")


def test_a_client_that_ends_its_stream_is_answered_and_sees_an_orderly_end(
    operate: Operate, folder: Path
) -> None:
    """After a client's close_notify come the reply to its last bytes and the server's own notice."""
    server = serve_tls(operate, folder)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=str(folder / "server.pem"))
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with server.connect() as client:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                client.sendall(outgoing.read())
                incoming.write(client.recv(65536))
        tls.write(b"one\nlast")
        with pytest.raises(ssl.SSLWantReadError):
            tls.unwrap()
        client.sendall(outgoing.read())
        incoming.write(rest(client))
        incoming.write_eof()
    replies, received = b"Received: one\nReceived: last\n", b""
    while len(received) < len(replies):
        received += tls.read(100)
    assert received == replies
    with pytest.raises(ssl.SSLZeroReturnError):
        tls.read(1)


def test_sighup_reads_the_certificate_again_and_drops_nobody(operate: Operate, folder: Path) -> None:
    """Who is connected goes on; who comes gets the new certificate; a broken file changes nothing."""
    pem, key = folder / "live.pem", folder / "live.key"
    pem.write_bytes((folder / "server.pem").read_bytes())
    key.write_bytes((folder / "server.key").read_bytes())
    server = operate("--listen", "tls://127.0.0.1:0", "--tls-certificate", str(pem), "--tls-key", str(key))
    with connect(server, folder / "server.pem") as early:
        exchange(early, b"before")
        pem.write_bytes((folder / "renewed.pem").read_bytes())
        server.process.send_signal(signal.SIGHUP)  # the key is still the old one: they don't match
        server.logged(r"ERROR SIGHUP: the old certificate stays: .*no usable certificate and key")
        with connect(server, folder / "server.pem") as client:
            exchange(client, b"old")
        key.write_bytes((folder / "renewed.key").read_bytes())
        server.process.send_signal(signal.SIGHUP)
        server.logged(r"INFO SIGHUP: new connections get the certificate")
        with connect(server, folder / "renewed.pem") as client:
            exchange(client, b"new")
        exchange(early, b"after")
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("setting", "content", "problem"),
    [
        ("--tls-certificate", None, "can't be read: No such file or directory"),
        ("--tls-certificate", "nonsense", "no usable certificate and key"),
        ("--tls-key", "nonsense", "no usable certificate and key"),
        ("--tls-client-ca", "nonsense", "no usable CA certificates"),
    ],
)
def test_a_certificate_that_cant_be_used_is_one_line_and_exit_1(
    operate: Operate, folder: Path, setting: str, content: str | None, problem: str, tmp_path: Path
) -> None:
    """The line names the file; the server doesn't start."""
    file = tmp_path / "bad.pem"
    if content is not None:
        file.write_text(content)
    options = {"--tls-certificate": folder / "server.pem", "--tls-key": folder / "server.key", setting: file}
    server = operate("--port", "0", *(str(part) for pair in options.items() for part in pair), ready=False)
    assert server.process.wait(30) == 1
    assert server.log.count("\n") == 1
    assert problem in server.log
    assert ".pem: " in server.log


def test_an_encrypted_key_is_an_error_and_no_question(operate: Operate, folder: Path, tmp_path: Path) -> None:
    """The server never waits at the terminal for a password."""
    key = tmp_path / "encrypted.key"
    arguments = [
        "ec",
        "-in",
        str(folder / "server.key"),
        "-aes128",
        "-passout",
        "pass:secret",
        "-out",
        str(key),
    ]
    subprocess.run([require_tool("openssl"), *arguments], check=True, capture_output=True, timeout=30)
    server = operate(
        *("--port", "0", "--tls-certificate", str(folder / "server.pem"), "--tls-key", str(key)), ready=False
    )
    assert server.process.wait(30) == 1
    assert "no usable certificate and key" in server.log


def test_a_client_that_does_not_finish_its_handshake_is_closed(operate: Operate, folder: Path) -> None:
    """One that says nothing, one that stops half-way: both are gone after ``handshake_timeout``."""
    server = serve_tls(operate, folder, "--handshake-timeout", "0.4")
    with server.connect() as silent, server.connect() as half:
        half.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        assert rest(half) == b""
        assert rest(silent) == b""
    assert server.metric('chat_gevent_closed_total{reason="handshake-timeout"}') == 2


def test_garbage_and_resets_in_the_handshake_harm_nobody(operate: Operate, folder: Path) -> None:
    """Plain text, random bytes, resets in mid-handshake: no traceback, nobody else notices."""
    server = serve_tls(operate, folder)
    began = time.monotonic()
    with connect(server, folder / "server.pem") as good:
        exchange(good, b"before")
        for garbage in (
            b"hello\n",
            b"GET / HTTP/1.1\r\n\r\n",
            bytes(range(256)),
            b"\x16\x03\x01",
            b"\x16\x03\x01\xff\xff",
        ):
            for reset in (False, True):
                client = server.connect()
                client.sendall(garbage)
                if reset:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.close()
        until(lambda: server.metric("chat_gevent_connections") == 1)
        exchange(good, b"after")
    assert "Traceback" not in server.log
    warnings = re.findall(r"WARNING TLS handshake", server.log)
    took = time.monotonic() - began
    assert 1 <= len(warnings) <= 4 + 2 * took  # repeats of a second are counted, not told one by one


def test_what_follows_the_exit_is_dropped_to_the_end(serve: Callable[..., Any], folder: Path) -> None:
    """A client that writes on is not left with a full socket until the server stops to linger."""
    pem, key = (str(folder / name) for name in ("server.pem", "server.key"))
    server = serve(framing=LINE, certfile=pem, keyfile=key, linger_timeout=60)
    with TlsPeer(server.address, pem) as peer:
        peer.ask(b"hello")
        peer.send(b"/exit\n")
        [connection] = server.core.engine.all()
        wait_until(lambda: connection.state is State.CLOSING)
        for _ in range(100):
            peer.send(b"x" * 100_000)
        assert peer.rest() == b""
    wait_until(lambda: server.core.registry.live == 0)
    assert server.core.registry.closed == {"exit": 1}


def test_a_large_exchange_over_tls(operate: Operate, folder: Path) -> None:
    """10,000 pipelined lines, with replies that fit no buffer at once, come back whole and in order."""
    server = serve_tls(operate, folder)
    lines = [b"%06d %s" % (number, b"x" * 90) for number in range(10_000)]
    expected = b"".join(b"Received: %s\n" % line for line in lines)
    with connect(server, folder / "server.pem") as client:
        client.settimeout(0.0)
        todo, got = b"\n".join(lines) + b"\n", b""
        while len(got) < len(expected):
            try:
                todo = todo[client.send(todo[:65536]) :] if todo else todo
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            try:
                got += client.recv(65536)
            except ssl.SSLWantReadError:
                pass
        assert got == expected


def test_a_full_server_says_so_over_tls(operate: Operate, folder: Path) -> None:
    """The refusal comes after the handshake, so that a TLS client can read it."""
    server = serve_tls(operate, folder, "--max-connections", "1")
    with connect(server, folder / "server.pem") as first:
        exchange(first, b"in")
        with connect(server, folder / "server.pem") as second:
            assert rest(second).startswith(b"Error: server-full: ")


def test_memory_of_failed_handshakes_is_given_back(operate: Operate, folder: Path) -> None:
    """2,000 failed handshakes leave the process no larger than 500 did."""
    server = serve_tls(operate, folder)

    def fail(count: int) -> int:
        for _ in range(count):
            with server.connect() as client:
                client.sendall(b"hello, is this TLS?\n")
                rest(client)
        until(lambda: server.metric("chat_gevent_connections") == 0)
        return memory(server.process.pid)

    before = fail(500)
    assert fail(2000) - before < 2 * 2**20


def test_a_stream_that_anybody_could_have_cut_off_is_not_handled(operate: Operate, folder: Path) -> None:
    """An unfinished line before a bare FIN, without close_notify, reaches no handler and is not counted."""
    (folder / "pay.py").write_text(
        "def pay(text, client):\n    print('handled', text, flush=True)\n    return text\n"
    )
    server = operate(
        "--port", "0", "--admin", ":0", "--handler", "pay:pay",
        "--tls-certificate", str(folder / "server.pem"), "--tls-key", str(folder / "server.key"), cwd=folder,
    )  # fmt: skip
    context = ssl.create_default_context(cafile=str(folder / "server.pem"))
    with server.connect() as raw:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                raw.sendall(outgoing.read())
                incoming.write(raw.recv(65536))
        tls.write(b"PAY 10\nPAY 10")
        raw.sendall(outgoing.read())
        raw.shutdown(socket.SHUT_WR)
        while raw.recv(65536):
            pass
    until(lambda: server.metric('chat_gevent_closed_total{reason="truncated"}') == 1)
    assert server.metric("chat_gevent_messages_total") == 1
