"""``Client.identity`` over TLS, UNIX sockets and behind proxies: who is vouched for, and who is not."""

from __future__ import annotations

import os
import socket as std
import ssl
import struct
from pathlib import Path
from typing import Any

import pytest
from gevent import socket

from chat_gevent import Client, Credentials, Identity, ProxyIdentity, Service
from chat_gevent.identity import proxy_identity
from chat_gevent.proxy_protocol import Proxies
from chat_gevent.testing import ConnectedClient, RunningServer, running
from tests.conftest import wait_until
from tests.operate import certificate

ADDRESSES = bytes(8) + struct.pack("!HH", 4321, 1)
INET, UNIX = 0x11, 0x31


class Asks(Service):
    """Keeps the identity of whoever speaks, and what is left of it at the end."""

    seen: list[Identity]

    def __init__(self) -> None:
        self.seen = []

    def message(self, message: str, client: Client[None]) -> str:
        """Look."""
        self.seen.append(client.identity)
        return "seen"

    def disconnected(self, client: Client[None], reason: str) -> None:
        """Look again."""
        self.seen.append(client.identity)


def tlv(kind: int, value: bytes) -> bytes:
    """One TLV of a PROXY v2 header."""
    return struct.pack("!BH", kind, len(value)) + value


def ssl_tlv(client: int, verify: int, name: bytes) -> bytes:
    """What a proxy says of TLS."""
    return tlv(0x20, struct.pack("!BI", client, verify) + tlv(0x21, b"TLSv1.3") + tlv(0x22, name))


def header(family: int, data: bytes) -> bytes:
    """A PROXY v2 header."""
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x21, family, len(data)) + data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's certificate, a CA, and a client of that CA."""
    made = tmp_path_factory.mktemp("certificates")
    certificate(made, "server")
    certificate(made, "ca", ca=True)
    certificate(made, "client", signer="ca")
    return made


def server_context(folder: Path, verify: ssl.VerifyMode) -> ssl.SSLContext:
    """A server's context that asks for certificates of the CA, or does not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    if verify is not ssl.CERT_NONE:
        context.load_verify_locations(folder / "ca.pem")
    context.verify_mode = verify
    return context


def client_context(folder: Path, name: str = "") -> ssl.SSLContext:
    """A client's context, with a certificate or without."""
    context = ssl.create_default_context(cafile=str(folder / "server.pem"))
    if name:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


def service(server: RunningServer) -> Asks:
    """The service of a server."""
    found = server.service
    assert isinstance(found, Asks)
    return found


def test_a_verified_certificate(folder: Path) -> None:
    """Its subject and names, as ``getpeercert`` gives them; nothing of it once the client is gone."""
    with running(Asks, ssl_context=server_context(folder, ssl.CERT_REQUIRED)) as server:
        with server.connect(client_context(folder, "client"), "localhost") as client:
            assert client.ask("who am I") == "seen"
        seen = service(server).seen
        wait_until(lambda: len(seen) == 2)
    found = seen[0].certificate
    assert found is not None
    assert found["subject"] == ((("commonName", "client"),),)
    assert ("DNS", "localhost") in found["subjectAltName"]
    assert (seen[0].credentials, seen[0].proxy) == (None, None)
    assert seen[1] == Identity()


@pytest.mark.parametrize("verify", [ssl.CERT_NONE, ssl.CERT_OPTIONAL])
def test_who_shows_no_certificate_that_was_verified_has_none(folder: Path, verify: ssl.VerifyMode) -> None:
    """One that nobody asked for, or none at all."""
    name = "client" if verify is ssl.CERT_NONE else ""
    with running(Asks, ssl_context=server_context(folder, verify)) as server:
        assert server.connect(client_context(folder, name), "localhost").ask("hello") == "seen"
        assert service(server).seen == [Identity()]


def unix_listener(path: Path) -> Any:
    """A UNIX socket that listens."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def test_unix_credentials(tmp_path: Path) -> None:
    """Process, user and group of the other end, as the kernel says."""
    with running(Asks, listener=unix_listener(tmp_path / "socket")) as server:
        assert server.ask("who am I") == "seen"
        (seen,) = service(server).seen
    assert seen == Identity(credentials=Credentials(os.getpid(), os.getuid(), os.getgid()))


def test_both_over_tls_on_a_unix_socket(folder: Path, tmp_path: Path) -> None:
    """The kernel's word and the certificate."""
    context = server_context(folder, ssl.CERT_REQUIRED)
    with running(Asks, listener=unix_listener(tmp_path / "socket"), ssl_context=context) as server:
        client = server.connect(client_context(folder, "client"), "localhost")
        assert client.ask("who am I") == "seen"
        (seen,) = service(server).seen
    assert seen.certificate is not None
    assert seen.credentials == (os.getpid(), os.getuid(), os.getgid())


def behind_proxy(server: RunningServer, first: bytes) -> ConnectedClient:
    """A client whose connection begins with a header."""
    client = server.connect()
    client.socket.sendall(first)
    return client


def test_what_a_trusted_proxy_says() -> None:
    """Authority and the name in a verified certificate, kept while the client is connected and no longer."""
    told = ADDRESSES + tlv(0x02, b"chat.example") + ssl_tlv(0x07, 0, b"ann")
    with running(Asks, proxies=Proxies(("127.0.0.0/8",))) as server:
        plain = behind_proxy(server, header(INET, ADDRESSES))
        assert plain.ask("hello") == "seen"
        proxied = server.server.core.registry.proxied
        assert not proxied
        client = behind_proxy(server, header(INET, told))
        assert client.ask("hello") == "seen"
        assert len(proxied) == 1
        client.close()
        seen = service(server).seen
        wait_until(lambda: len(seen) == 3)
        assert not proxied
    assert seen[:3] == [Identity(), Identity(proxy=ProxyIdentity("chat.example", "ann")), Identity()]


def test_what_a_stranger_says_is_a_message() -> None:
    """A header from elsewhere vouches for nobody."""
    with running(Asks, proxies=Proxies(("10.0.0.0/8",))) as server:
        client = server.connect()
        client.socket.sendall(b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n")
        assert client.pushed() == "seen"
        assert service(server).seen == [Identity()]


@pytest.mark.parametrize(
    ("family", "data", "expected"),
    [
        (INET, ADDRESSES + ssl_tlv(0x01, 0, b"ann"), None),  # TLS, and no certificate
        (INET, ADDRESSES + ssl_tlv(0x03, 1, b"ann"), None),  # not verified
        (INET, ADDRESSES + ssl_tlv(0x05, 0, b"ann"), ProxyIdentity(None, "ann")),  # of the session
        (INET, ADDRESSES + ssl_tlv(0x03, 0, b"\xff"), None),
        (INET, ADDRESSES + tlv(0x02, b"a") + b"\x20\xff\xffx", ProxyIdentity("a")),  # cut off
        (INET, ADDRESSES + b"\x02\x00", None),
        (INET, ADDRESSES + tlv(0x20, b"\x03"), None),
        (UNIX, bytes(216) + tlv(0x02, b"a"), ProxyIdentity("a")),
        (0x00, tlv(0x02, b"a"), None),
        (INET, b"", None),
    ],
)
def test_tlvs(family: int, data: bytes, expected: ProxyIdentity | None) -> None:
    """Only what is said whole, and of a certificate only what was verified."""
    assert proxy_identity(family, data) == expected


def test_ipv6_addresses_are_skipped() -> None:
    """The TLVs follow 36 bytes there."""
    addresses = std.inet_pton(std.AF_INET6, "2001:db8::7") * 2 + bytes(4)
    assert proxy_identity(0x21, addresses + tlv(0x02, b"a")) == ProxyIdentity("a")
