"""The PROXY protocol, versions 1 and 2: who the client is that a proxy connects for.

A proxy that balances TCP (HAProxy, nginx, a cloud's load balancer) puts a short header before the first
byte of a connection. It is believed, and required, only where it comes from a network the operator named;
from anywhere else a connection has no header, and what looks like one is a message.

The format is that of HAProxy's doc/proxy-protocol.txt. :func:`read_header` takes exactly the header's bytes
from the socket, so that a TLS handshake can follow.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import struct
from collections.abc import Iterable
from typing import Any, Final

from chat_gevent.addresses import Address, address_text, peer_address
from chat_gevent.errors import HeaderError
from chat_gevent.identity import proxy_identity
from chat_gevent.lifecycle import UNUSED, Lifecycle
from chat_gevent.outgoing import Opening

V1_BYTES: Final = 107
"""Longest version 1 header, with its CR and LF, by the specification."""

V2_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
V2_BYTES: Final = 4096
"""Longest version 2 header taken, without its first 16 bytes. The specification asks for 216 at least; the
rest is room for TLVs such as a client certificate's name."""

log = logging.getLogger("chat_gevent")


class Proxies:
    """The networks whose connections begin with a header.

    :param networks: such as ``10.0.0.0/8`` or ``::1``; ``unix`` stands for all clients of UNIX sockets.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        names = set(networks)
        self._unix = "unix" in names
        self._networks = [ipaddress.ip_network(each) for each in names - {"unix"}]

    def trust(self, address: Any) -> bool:
        """Whether a connection from ``address``, as ``accept`` gave it, begins with a header."""
        known = peer_address(address)
        if not isinstance(known, tuple):
            return self._unix
        host = ipaddress.ip_address(known[0].partition("%")[0])
        return any(host in network for network in self._networks)


class _SaidNothing(Exception):
    """A proxy has connected, and left without a byte: that is a health check."""


def opening(then: Opening | None) -> Opening:
    """Read the header as the opening of a connection, and do ``then``, the TLS handshake, after it."""

    def read(connection: Lifecycle) -> bytes:
        peer = address_text(connection.address)
        try:
            client = read_header(connection)
        except _SaidNothing:
            connection.cut(UNUSED)
            return b""
        except HeaderError as error:
            log.warning("connection from the proxy %s refused: %s", peer, error)
            connection.finish("proxy-header")
            return b""
        if client is not None:
            connection.core.registry.attribute(connection, client)
            connection.refuse_early()
        return then(connection) if then is not None else b""

    return read


def read_header(connection: Lifecycle) -> Address | None:
    """Take the header from a connection; returns the client's address, None where there is none to tell.

    Raises HeaderError, OSError; Closed: it did not come within ``handshake_timeout``.
    """
    deadline = connection.opening_deadline()
    head = b""
    while len(head) < len(V2_SIGNATURE):  # which is shorter than any header of version 1
        try:
            head += _receive(connection, len(V2_SIGNATURE) - len(head), deadline)
        except HeaderError:
            if not head:
                raise _SaidNothing from None
            raise
        if not V2_SIGNATURE.startswith(head) and (
            b"\n" in head or not head.startswith(b"PROXY "[: len(head)])
        ):
            raise HeaderError("it does not begin with a PROXY header")
    if head == V2_SIGNATURE:
        version_command, family, length = struct.unpack("!BBH", _receive_all(connection, 4, deadline))
        if length > V2_BYTES:
            raise HeaderError(f"a PROXY v2 header of {length} bytes is too long")
        data = _receive_all(connection, length, deadline)
        client = parse_v2(version_command, family, data)
        if client is not None and (told := proxy_identity(family, data)) is not None:
            connection.core.registry.proxied[connection] = told
        return client
    while not head.endswith(b"\n"):
        if len(head) >= V1_BYTES:
            raise HeaderError(f"a PROXY v1 header has at most {V1_BYTES} bytes")
        head += _receive(connection, V1_BYTES - len(head), deadline, line=True)
    return parse_v1(head)


def _receive_all(connection: Lifecycle, size: int, deadline: float) -> bytes:
    data = b""
    while len(data) < size:
        data += _receive(connection, size - len(data), deadline)
    return data


def _receive(connection: Lifecycle, most: int, deadline: float, *, line: bool = False) -> bytes:
    """At least one byte of input, at most ``most``; with ``line`` none that follows an LF."""
    raw: Any = connection.socket
    while True:
        try:
            if line:
                there = raw.recv(most, socket.MSG_PEEK)
                most = there.find(b"\n") + 1 or len(there) or 1
            data: bytes = raw.recv(most)
        except BlockingIOError:
            connection.wait_opening(deadline)
            continue
        if not data:
            raise HeaderError("it ended before its PROXY header did")
        return data


def parse_v1(line: bytes) -> Address | None:
    """``PROXY TCP4 source destination port port`` with its CR LF. Raises HeaderError."""
    text = line.decode("latin-1")
    if text.endswith("\r\n") and text.isascii():
        match text[:-2].split(" "):
            case ["PROXY", "UNKNOWN", *_]:
                return None
            case ["PROXY", ("TCP4" | "TCP6") as protocol, source, destination, port, to_port] if (
                _is_host(source, protocol) and _is_host(destination, protocol)
                and _is_port(port) and _is_port(to_port)
            ):  # fmt: skip
                family = socket.AF_INET if protocol == "TCP4" else socket.AF_INET6
                host = socket.inet_ntop(family, socket.inet_pton(family, source))  # as the kernel writes it
                return peer_address((host, int(port)))
    raise HeaderError(f"{line!r} is no PROXY v1 header")


def _is_host(text: str, protocol: str) -> bool:
    """Whether it is an address of ``TCP4`` or ``TCP6``; one with a scope, which can be any text, is not."""
    try:
        return "%" not in text and ipaddress.ip_address(text).version == int(protocol[3])
    except ValueError:
        return False


def _is_port(text: str) -> bool:
    """Whether it is a port in decimal without a leading zero, as the specification has it."""
    return re.fullmatch("0|[1-9][0-9]{0,4}", text) is not None and int(text) <= 65535


def parse_v2(version_command: int, family: int, data: bytes) -> Address | None:
    """A version 2 header: its 13th byte, its 14th, and all after the 16th. Raises HeaderError."""
    if version_command == 0x20:  # LOCAL: the proxy's own connection, a health check
        return None
    if version_command != 0x21:
        raise HeaderError(f"PROXY v2 version and command {version_command:#x} are unknown")
    form = {0x11: ("!4s4sHH", socket.AF_INET), 0x21: ("!16s16sHH", socket.AF_INET6)}.get(family)
    if form is None:  # UNIX, UDP or unspecified: to be taken without an address
        return None
    if len(data) < struct.calcsize(form[0]):
        raise HeaderError("a PROXY v2 header is too short for its addresses")
    source, _, port, _ = struct.unpack_from(form[0], data)
    return peer_address((socket.inet_ntop(form[1], source), port))
