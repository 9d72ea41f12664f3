"""Who a client is, as far as somebody vouches for it: TLS, the kernel, or a proxy that is trusted.

Nothing of it is kept for a client: certificate and credentials are asked of TLS and of the kernel when they
are wanted. Only what a PROXY header of version 2 says beside the address can't be asked again; that is kept
for those connections whose header says it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from socket import AF_UNIX, SO_PEERCRED, SOL_SOCKET
from typing import Any, Final, NamedTuple

AUTHORITY: Final = 0x02
SSL: Final = 0x20
SSL_COMMON_NAME: Final = 0x22
"""Types of TLVs, by HAProxy's doc/proxy-protocol.txt."""

CERTIFICATE_SHOWN: Final = 0x02 | 0x04
"""Bits of the SSL TLV: the client gave a certificate, on this connection or earlier in its TLS session."""

ADDRESS_BYTES: Final = {0x1: 12, 0x2: 36, 0x3: 216}
"""Bytes of addresses before the TLVs, by family: IPv4, IPv6, UNIX."""


class Credentials(NamedTuple):
    """The process at the other end of a UNIX socket, as the kernel knew it when it connected."""

    pid: int
    uid: int
    gid: int


class ProxyIdentity(NamedTuple):
    """What a proxy says of its client beside the address."""

    authority: str | None = None
    """The host name that the client asked for (TLS's server name)."""
    common_name: str | None = None
    """The common name of the client's certificate; None unless the proxy has verified it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a client is; what nobody vouches for is None."""

    certificate: Mapping[str, Any] | None = None
    """The certificate that the server has verified, as ``SSLSocket.getpeercert`` gives it."""
    credentials: Credentials | None = None
    """Process, user and group at the other end of a UNIX socket."""
    proxy: ProxyIdentity | None = None
    """What a trusted proxy says in a PROXY header of version 2, if it says anything."""


def identify(connection: Any) -> Identity:
    """The identity of a connection's client; nothing of it is known any more once the client is gone."""
    socket = connection.socket
    if socket.fileno() < 0:
        return Identity()
    tls = getattr(socket, "tls", None)
    credentials = None
    if socket.family == AF_UNIX:
        size = struct.calcsize("3i")
        credentials = Credentials(*struct.unpack("3i", socket.getsockopt(SOL_SOCKET, SO_PEERCRED, size)))
    return Identity(
        # An empty one was given and not verified.
        certificate=(tls.getpeercert() or None) if tls is not None else None,
        credentials=credentials,
        proxy=connection.core.registry.proxied.get(connection),
    )


def proxy_identity(family: int, data: bytes) -> ProxyIdentity | None:
    """What the TLVs of a PROXY v2 header say; None where they say nothing of this kind.

    :param family: the header's 14th byte.
    :param data: all after its 16th byte.
    """
    authority = common_name = None
    for kind, value in _tlvs(data[ADDRESS_BYTES.get(family >> 4, len(data)) :]):
        if kind == AUTHORITY:
            authority = _text(value)
        elif kind == SSL and len(value) >= 5 and value[0] & CERTIFICATE_SHOWN and value[1:5] == bytes(4):
            for inner, name in _tlvs(value[5:]):
                if inner == SSL_COMMON_NAME:
                    common_name = _text(name)
    if authority is None and common_name is None:
        return None
    return ProxyIdentity(authority, common_name)


def _tlvs(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Types and values; one that is cut off, and what would follow it, are left out."""
    while len(data) >= 3:
        kind, size = struct.unpack_from("!BH", data)
        if len(data) < 3 + size:
            return
        yield kind, data[3 : 3 + size]
        data = data[3 + size :]


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
