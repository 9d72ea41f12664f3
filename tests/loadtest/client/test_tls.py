"""The client over TLS: SNI, CA, client certificate, tickets, long messages, and handshakes that fail."""

from __future__ import annotations

import socket
import ssl
import subprocess
from pathlib import Path
from time import perf_counter
from typing import Any

import gevent.event
import pytest
from gevent import ssl as gevent_ssl

from loadtest.client.address import Target
from loadtest.client.tls import make_client, make_context
from loadtest.client.transport import ClientOptions
from loadtest.errors import ConnectionClosed, ReadTimeout, TlsFailed, UnexpectedData
from tests.conftest import require_tool
from tests.loadtest import servers
from tests.loadtest.servers import ScriptedServer
from tests.operate import certificate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a server's certificate and a client's."""
    made = tmp_path_factory.mktemp("tls")
    certificate(made, "ca", ca=True)
    for name in ("server", "client"):
        certificate(made, name, signer="ca")
    return made


def tls_server(folder: Path, handler: servers.Handler, **how: Any) -> tuple[ScriptedServer, list[str | None]]:
    """A TLS server, and the names that clients asked for."""
    context = gevent_ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    names: list[str | None] = []
    context.sni_callback = lambda connection, name, _: names.append(name)
    if how.get("client_certificate"):
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(folder / "ca.pem")
    return ScriptedServer(handler, ssl_context=context), names


def client_of(server: ScriptedServer, folder: Path, **how: Any) -> Any:
    """A client that trusts the CA, not connected yet."""
    files = {key: str(folder / how.pop(key)) for key in ("ca", "certificate", "key") if key in how}
    context = make_context(files.get("ca"), files.get("certificate"), files.get("key"))
    target = Target("tls", "127.0.0.1", server.port)
    return make_client(ClientOptions(target, tls=context, connect_timeout=30.0, read_timeout=30.0, **how))


def test_requests_go_through_tls_and_the_name_is_sent(folder: Path) -> None:
    """Handshake timed within connect, SNI as given, replies in pieces and pipelines as without TLS."""
    server, names = tls_server(folder, servers.confirm)
    with server:
        client = client_of(server, folder, ca="ca.pem", server_name="localhost")
        begin = perf_counter()
        took = client.connect()
        assert 0 < client.tls_seconds <= client.connect_seconds == took < perf_counter() - begin
        assert client.request(b"hello") == b"Received: hello"
        long = [b"x" * 300_000, b"y", b"z" * 40_000]
        assert client.pipeline(long) == [b"Received: " + message for message in long]
        client.idle(0.02)  # the server's session tickets came meanwhile, and are no data
        data = client.ask(b"again\n")
        assert client.complete(data) == b"Received: again"
        assert client.finish(b"/exit") > 0
        assert names == ["localhost"]


def test_a_server_with_a_wrong_name_or_an_unknown_ca_is_refused(folder: Path) -> None:
    """A failed handshake is a TlsFailed with OpenSSL's reason."""
    server, _ = tls_server(folder, servers.confirm)
    with server:
        for how in ({"ca": "ca.pem", "server_name": "example.org"}, {"server_name": "localhost"}):
            client = client_of(server, folder, **how)
            with pytest.raises(TlsFailed) as caught:
                client.connect()
            assert repr(caught.value) == "TlsFailed(CERTIFICATE_VERIFY_FAILED)"
            assert not client.connected


def test_a_ca_that_newer_pythons_refuse_is_told_with_the_remedy(folder: Path, tmp_path: Path) -> None:
    """A CA without key usage, checked as Python 3.13 does: what is missing, and how to add it."""
    make = [require_tool("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    make += ["-nodes", "-days", "2", "-subj", "/CN=ca", "-keyout", str(tmp_path / "ca.key")]
    subprocess.run([*make, "-out", str(tmp_path / "ca.pem")], check=True, capture_output=True, timeout=30)
    certificate(tmp_path, "server", signer="ca")
    server, _ = tls_server(tmp_path, servers.confirm)
    with server:
        context = make_context(str(tmp_path / "ca.pem"))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        target = Target("tls", "127.0.0.1", server.port)
        client = make_client(ClientOptions(target, tls=context, server_name="localhost"))
        with pytest.raises(TlsFailed) as caught:
            client.connect()
    assert repr(caught.value).startswith(
        "TlsFailed(CERTIFICATE_VERIFY_FAILED: CA cert does not include key usage"
    )
    assert "keyUsage=critical,keyCertSign,cRLSign" in repr(caught.value)


def test_a_client_certificate_opens_a_server_that_asks_for_one(folder: Path) -> None:
    """With it requests work; without it the first one fails, since TLS 1.3 says so only then."""
    server, _ = tls_server(folder, servers.confirm, client_certificate=True)
    with server:
        how = {"ca": "ca.pem", "server_name": "localhost"}
        client = client_of(server, folder, certificate="client.pem", key="client.key", **how)
        client.connect()
        assert client.request(b"hello") == b"Received: hello"
        client.close()
        client = client_of(server, folder, **how)

        def ask() -> None:
            client.connect()
            client.request(b"hello")

        with pytest.raises((TlsFailed, ConnectionClosed)):
            ask()
        client.close()


SPOKEN = gevent.event.Event()


def speak(connection: Any, _: Any) -> None:
    """Speaks without having been asked, and says when it has."""
    # or the kernel holds it back until the client has acknowledged the session tickets
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(b"hello there\n")
    SPOKEN.set()
    servers.never(connection, _)


@pytest.mark.parametrize(
    ("handler", "error"),
    [(servers.never, ReadTimeout), (servers.leave, ConnectionClosed), (speak, UnexpectedData)],
)
def test_failures_have_the_classes_that_they_have_without_tls(
    folder: Path, handler: servers.Handler, error: type[Exception]
) -> None:
    """Time-out, end of stream, and data that nobody asked for."""
    server, _ = tls_server(folder, handler)
    with server:
        client = client_of(server, folder, ca="ca.pem", server_name="localhost")
        client.options = ClientOptions(
            client.options.target,
            tls=client.options.tls,
            server_name="localhost",
            connect_timeout=30.0,
            read_timeout=0.1 if handler is servers.never else 30.0,
        )
        client.connect()
        if handler is speak:
            assert SPOKEN.wait(30)
            with gevent.Timeout(30):
                while client._watching:  # until this side's loop has seen it
                    gevent.sleep(0.001)
        with pytest.raises(error):
            client.request(b"hello")
        client.close()
