"""TLS for one connection: the handshake, and a socket that decrypts.

:class:`TlsSocket` offers the few methods that a connection uses of a raw socket, so there is one
connection path. It is non-blocking, and raises ``SSLWantReadError`` where a raw socket raises
``BlockingIOError``. A context of ``ssl`` and one of ``gevent.ssl`` both serve.
"""

from __future__ import annotations

import time
from _socket import socket as RawSocket
from collections.abc import Callable
from ssl import SSLContext, SSLError, SSLWantReadError, SSLWantWriteError
from typing import TYPE_CHECKING, Any

from gevent.monkey import get_original

if TYPE_CHECKING:
    from chat_gevent.connection import Connection

socket = get_original("socket", "socket")


class TlsSocket:
    """A non-blocking TLS socket around the descriptor of ``raw``, which it takes over."""

    __slots__ = ("_ended", "_raw", "tls")

    def __init__(self, raw: RawSocket, context: SSLContext, **arguments: Any) -> None:
        family, kind, protocol, fd = raw.family, raw.type, raw.proto, raw.detach()
        plain = socket(family, kind, protocol, fileno=fd)
        plain.setblocking(False)
        self.tls = context.wrap_socket(plain, do_handshake_on_connect=False, **arguments)
        self.tls.settimeout(0)
        self._raw = RawSocket(family, kind, protocol, fileno=fd)  # the same descriptor, undecrypted
        self._ended = False

    def fileno(self) -> int:
        """The descriptor, -1 once closed."""
        return self._raw.fileno()

    def getpeername(self) -> Any:
        """The peer's address. Raises OSError."""
        return self._raw.getpeername()

    def recv(self, size: int) -> bytes:
        """Decrypted input; once the output has ended, whatever is there, only fit to be dropped."""
        return self._raw.recv(size) if self._ended else self.tls.recv(size)

    def send(self, data: bytes | memoryview) -> int:
        """Send; a call that raised SSLWantWriteError must be repeated with the same data."""
        return self.tls.send(data)

    def shutdown(self, how: int) -> None:
        """End the output: TLS's own notice first, then TCP's."""
        self._ended = True
        try:
            self.tls.unwrap()
        except (OSError, ValueError):  # it does not wait for the peer's notice, nor mind a broken stream
            pass
        self._raw.shutdown(how)

    def close(self) -> None:
        """Close the descriptor."""
        if self._raw.detach() >= 0:
            self.tls.close()


Opening = Callable[["Connection"], bytes]
"""Done once, in a leased greenlet, before a connection's first message; returns input that it read too much."""


def opening(context: SSLContext, **arguments: Any) -> Opening:
    """The TLS handshake, within ``handshake_timeout``, as the opening of a :class:`Connection`."""

    def handshake(connection: Connection) -> bytes:
        raw = connection.socket
        assert isinstance(raw, RawSocket)
        connection.socket = tls = TlsSocket(raw, context, **arguments)
        connection.tls = True
        deadline = time.monotonic() + (connection.lot.settings.handshake_timeout or 2**31)
        while True:
            try:
                tls.tls.do_handshake()
                return b""
            except SSLWantReadError:
                if not connection.wait_readable(max(0.001, deadline - time.monotonic())):
                    raise SSLError("handshake-timeout") from None
            except SSLWantWriteError:
                connection.wait_writable()

    return handshake
