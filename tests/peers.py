"""Clients for tests: a gevent socket with the few verbs that tests read well in."""

from __future__ import annotations

import socket as std
import ssl
import struct
from typing import Any
from weakref import WeakSet

from gevent import socket
from gevent.select import select

_open: WeakSet[Peer] = WeakSet()


def close_all() -> None:
    """Close what tests have left open: after a failure, that is no news."""
    for peer in list(_open):
        peer.close()


class Peer:
    """One client of a server in this process; every wait of it fails after 30 seconds."""

    def __init__(self, address: Any, *, receive_buffer: int = 0, send_buffer: int = 0) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        _open.add(self)
        self.socket.settimeout(30)
        if receive_buffer:
            self.socket.setsockopt(std.SOL_SOCKET, std.SO_RCVBUF, receive_buffer)
        if send_buffer:
            self.socket.setsockopt(std.SOL_SOCKET, std.SO_SNDBUF, send_buffer)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        if family == socket.AF_INET:
            self.socket.setsockopt(std.IPPROTO_TCP, std.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        """Send all of ``data``."""
        self.socket.sendall(data)

    def receive(self, size: int = 65536) -> bytes:
        """One read, as the kernel gives it."""
        return self.socket.recv(size)

    def exactly(self, size: int) -> bytes:
        """Read ``size`` bytes, or fewer where the stream ends before."""
        data = b""
        while len(data) < size and (more := self.socket.recv(size - len(data))):
            data += more
        return data

    def expect(self, data: bytes) -> None:
        """The next bytes are ``data``."""
        assert self.exactly(len(data)) == data

    def ask(self, message: bytes) -> None:
        """Send a line and see it confirmed."""
        self.send(message + b"\n")
        self.expect(b"Received: " + message + b"\n")

    def rest(self) -> bytes:
        """Read to the end of the stream."""
        data = b""
        while more := self.socket.recv(65536):
            data += more
        return data

    def end(self) -> None:
        """End the own stream; the server's is still read."""
        self.socket.shutdown(std.SHUT_WR)

    def silent(self, seconds: float = 0.05) -> bool:
        """Whether nothing comes for so long."""
        return not select([self.socket], [], [], seconds)[0]

    def reset(self) -> None:
        """Close with RST."""
        self.socket.setsockopt(std.SOL_SOCKET, std.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        """Close."""
        self.socket.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class TlsPeer(Peer):
    """A client that speaks TLS, and trusts ``certificate`` only."""

    def __init__(self, address: Any, certificate: str) -> None:
        super().__init__(address)
        from gevent.ssl import SSLContext

        context = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(certificate)
        self.socket: Any = context.wrap_socket(self.socket, server_hostname="127.0.0.1")
