"""TLS: the certificates, the handshake of one connection, and a socket that decrypts.

:class:`Certificates` holds what was read from files, and reads it again when it is told to; connections
that are open keep what they began with. :class:`TlsSocket` offers the few methods that a connection
uses of a raw socket, so there is one connection path. It is non-blocking, and raises
``SSLWantReadError`` where a raw socket raises ``BlockingIOError``. A context of ``ssl`` and one of
``gevent.ssl`` both serve.
"""

from __future__ import annotations

import logging
import ssl
import time
from _socket import socket as RawSocket
from collections.abc import Callable
from ssl import SSLContext, SSLError, SSLWantReadError, SSLWantWriteError
from typing import TYPE_CHECKING, Any

from gevent.monkey import get_original

from chat_gevent.addresses import address_text
from chat_gevent.connection import Closed

if TYPE_CHECKING:
    from chat_gevent.connection import Connection

socket = get_original("socket", "socket")

log = logging.getLogger("chat_gevent")


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

    @property
    def family(self) -> int:
        """The address family."""
        return self._raw.family

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


class CertificateError(Exception):
    """A certificate, key or CA can't be used; the message names the file and says why."""


class Certificates:
    """A server's certificate with its key, and the CAs that its clients must be signed by, if any.

    TLS 1.2 and later, no ALPN, no renegotiation. Raises CertificateError.
    """

    def __init__(self, certificate: str, key: str = "", client_ca: str = "") -> None:
        self._files = certificate, key, client_ca
        self.context = self._read()

    def reload(self) -> None:
        """Read the files again, for new connections. Raises CertificateError, and keeps what there was."""
        self.context = self._read()

    def _read(self) -> SSLContext:
        certificate, key, client_ca = self._files
        # Two clients' handshakes share nothing in a context that they could change, so one will do.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # gevent's, where a handler has patched it in
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        for file in filter(None, self._files):
            try:
                with open(file, "rb"):  # noqa: PTH123 - only to say which file it is; OpenSSL doesn't
                    pass
            except OSError as error:
                raise CertificateError(f"{file}: can't be read: {error.strerror}") from None
        try:
            # Without a password given, OpenSSL would ask for one at the terminal.
            context.load_cert_chain(certificate, key or None, password=lambda: "")
        except (OSError, ValueError) as error:
            problem = getattr(error, "reason", None) or error
            raise CertificateError(f"{certificate}: no usable certificate and key: {problem}") from None
        if client_ca:
            try:
                context.load_verify_locations(client_ca)
            except OSError as error:
                problem = getattr(error, "reason", None) or error
                raise CertificateError(f"{client_ca}: no usable CA certificates: {problem}") from None
            context.verify_mode = ssl.CERT_REQUIRED
        return context


Opening = Callable[["Connection"], bytes]
"""Done once, in a leased greenlet, before a connection's first message; returns input read too much."""


def opening(context: SSLContext | Certificates, **arguments: Any) -> Opening:
    """The TLS handshake, within ``handshake_timeout``, as the opening of a :class:`Connection`."""

    def handshake(connection: Connection) -> bytes:
        raw = connection.socket
        assert isinstance(raw, RawSocket)
        current = context.context if isinstance(context, Certificates) else context
        fd = connection.fd
        try:
            raw.getpeername()
            connection.socket = tls = TlsSocket(raw, current, **arguments)
        except OSError as error:  # reset before it began; ``ssl`` may have closed the descriptor by now
            if connection.fd >= 0:
                connection.lost(error)
            else:
                connection.reason = "reset"
                connection.lot.forget(connection, fd)
            raise Closed from None
        connection.tls = True
        deadline = time.monotonic() + (connection.lot.settings.handshake_timeout or 2**31)
        while True:
            try:
                tls.tls.do_handshake()
                return b""
            except SSLWantReadError:
                if not connection.wait_readable(max(0.001, deadline - time.monotonic())):
                    connection.drop("handshake-timeout")
                    raise Closed from None
            except SSLWantWriteError:
                connection.wait_writable()
            except SSLError as error:
                # OpenSSL has sent an alert that says why; let the client read it.
                peer = address_text(connection.address)
                log.warning("TLS handshake with %s failed: %s", peer, error.reason or error)
                connection.hang_up("tls-handshake")
                return b""

    return handshake
