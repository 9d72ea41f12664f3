"""The client over TLS: SNI, CA, client certificate, tickets, long messages, and handshakes that fail."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import gevent.event
import pytest
from gevent import ssl as gevent_ssl

from loadtest.client.address import Target
from loadtest.client.tls import make_client, make_context
from loadtest.client.transport import ClientOptions
from loadtest.conversation import Conversation
from loadtest.count.counters import Counters
from loadtest.errors import ConnectionClosed, ReadTimeout, TlsFailed, UnexpectedData
from tests.conftest import require_tool
from tests.loadtest import servers
from tests.loadtest.servers import ScriptedServer
from tests.loadtest.test_session import Recorded
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


class Segments:
    """The server's side of TLS on a plain connection; all that it writes until it sends goes together."""

    def __init__(self, connection: Any, folder: Path, version: ssl.TLSVersion) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        context.maximum_version = version
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.wait_for(self.tls.do_handshake)

    def wait_for(self, call: Callable[[], Any]) -> Any:
        """What ``call`` returns once all that it needs has come."""
        while True:
            try:
                return call()
            except ssl.SSLWantReadError:
                self.send()
                data = self._connection.recv(65_536)
                if not data:
                    raise ConnectionResetError from None
                self._incoming.write(data)

    def send(self) -> None:
        """Send all that was written, at once."""
        if self._outgoing.pending:
            self._connection.sendall(self._outgoing.read())


def answer_and(folder: Path, last: bytes | None) -> servers.Handler:
    """A server that sends ``last`` in a record behind its reply, or the end of the stream, in one segment."""

    def handler(connection: Any, _: Any) -> None:
        side = Segments(connection, folder, ssl.TLSVersion.TLSv1_3)
        side.send()  # the session tickets
        message = side.wait_for(lambda: side.tls.read(1024))
        side.tls.write(b"Received: " + message)
        if last is None:
            with suppress(ssl.SSLWantReadError):  # it would wait for the client's own notice
                side.tls.unwrap()
        else:
            side.tls.write(last)
        side.send()
        servers.never(connection, _)

    return handler


@pytest.mark.parametrize(
    ("last", "error"), [(b"Received: one\n", UnexpectedData), (None, ConnectionClosed)], ids=["more", "end"]
)
def test_a_record_behind_a_reply_in_one_read_is_not_left_for_the_next(
    folder: Path, last: bytes | None, error: type[Exception]
) -> None:
    """It is found before anything else is sent, and never taken for the reply to that."""
    with ScriptedServer(answer_and(folder, last)) as server:
        client = client_of(server, folder, ca="ca.pem", server_name="localhost")
        client.connect()
        assert client.request(b"one") == b"Received: one"
        assert client.has_surplus == (last is not None)
        assert client.restless
        with pytest.raises(error):
            client.request(b"two")
        client.close()


def test_a_surplus_record_fails_the_request_that_it_came_with(folder: Path) -> None:
    """As a reply that comes twice does without TLS."""
    with ScriptedServer(answer_and(folder, b"Received: one\n")) as server:
        event = Recorded()
        options = client_of(server, folder, ca="ca.pem", server_name="localhost").options
        session = Conversation(options, event, Counters())
        assert session.connect()
        assert not session.confirm((b"one\n", b"Received: one\n"))
        assert event.of("CONFIRM") == ["UnexpectedData"]
        session.close()


def test_a_push_in_one_read_with_a_reply_waits_for_nothing(folder: Path) -> None:
    """Its handler has it once the reply is there, however long the user then sleeps."""
    pushed: list[bytes] = []
    with ScriptedServer(answer_and(folder, b"news\n")) as server:
        options = client_of(server, folder, ca="ca.pem", server_name="localhost").options
        session = Conversation(options, Recorded(), Counters())
        session.push(pushed.append)
        assert session.request("one", name="ASK", expect="Received: one")
        assert pushed == [b"news"]
        session.close()


def test_what_comes_with_the_end_of_the_handshake_is_seen(folder: Path) -> None:
    """A server that speaks first may do so in the segment that ends the handshake of TLS 1.2."""

    def greet(connection: Any, _: Any) -> None:
        side = Segments(connection, folder, ssl.TLSVersion.TLSv1_2)
        side.tls.write(b"hello\n")
        side.send()
        servers.never(connection, _)

    with ScriptedServer(greet) as server:
        client = client_of(server, folder, ca="ca.pem", server_name="localhost")
        client.connect()
        assert client.restless
        with pytest.raises(UnexpectedData):
            client.request(b"one")
        assert client.receive() == b"hello"
        client.close()
