"""TLS: the certificates, the handshake of one connection, and a socket that decrypts.

:class:`Certificates` holds what was read from files, and reads it again when it is told to; connections
that are open keep what they began with. :class:`TlsSocket` offers the few methods that a connection
uses of a raw socket, so there is one connection path. It reads encrypted bytes from the socket by itself and
gives them to OpenSSL in memory: ``ssl.SSLSocket`` reads the header and the body of a record with a system
call each, and raises an exception, which costs 2 µs, each time that nothing is there. A context of ``ssl``
and one of ``gevent.ssl`` both serve.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from _socket import SHUT_RDWR
from _socket import socket as RawSocket
from ssl import MemoryBIO, SSLContext, SSLError, SSLWantReadError, SSLZeroReturnError
from typing import Any, Final

from chat_gevent.addresses import address_text
from chat_gevent.errors import CertificateError
from chat_gevent.lifecycle import UNUSED, Lifecycle
from chat_gevent.outgoing import Opening
from chat_gevent.stream import NeedsOutput

RECORD_BYTES: Final = 16_384 + 325
"""Room for one whole record of TLS: 2^14 bytes, and header, padding and checksum (RFC 8446, 5246)."""

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"
"""Those of TLS 1.2: with forward secrecy and authenticated encryption. What Python's ssl adds to them are the
CBC modes, which scanners name as weak. TLS 1.3 has none but such, and is not touched by this."""

PLAIN_BYTES: Final = 16_384
"""Most bytes that one record holds."""

_buffer = bytearray(RECORD_BYTES)  # of all reads: nothing is kept in it
_view = memoryview(_buffer)

log = logging.getLogger("chat_gevent")


class TlsSocket:
    """A non-blocking TLS socket around ``raw``, which it takes over.

    :param arguments: ``server_side``, ``server_hostname`` and ``session``, as of ``SSLContext.wrap_bio``.
    """

    __slots__ = (
        "_encrypted",
        "_ended",
        "_incoming",
        "_outgoing",
        "_raw",
        "_short",
        "_taken",
        "spoken",
        "tls",
        "truncated",
    )

    def __init__(self, raw: RawSocket, context: SSLContext, **arguments: Any) -> None:
        self._raw = raw
        self._incoming, self._outgoing = MemoryBIO(), MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, **arguments)
        self._encrypted = b""  # what is encrypted and not sent
        self._taken = 0  # how many bytes of the last ``send`` that is
        self._short = True  # whether the last read from the socket left nothing
        self._ended = False
        self.spoken = False
        """Whether a byte has come."""
        self.truncated = False
        """Whether the stream ended without TLS's own notice: anybody may have cut it off."""

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

    def getsockopt(self, *option: int) -> Any:
        """An option of the raw socket. Raises OSError."""
        return self._raw.getsockopt(*option)

    @property
    def drained(self) -> bool:
        """Whether the last read has left nothing, neither here nor in the socket."""
        return self._short and not self._incoming.pending and not self.tls.pending()

    def handshake(self) -> None:
        """Go on with the handshake. Raises BlockingIOError (it needs input), NeedsOutput, OSError."""
        while True:
            try:
                self.tls.do_handshake()
            except SSLWantReadError:
                self._send_encrypted()
                self._fill()
            except SSLError:
                with contextlib.suppress(OSError, NeedsOutput):
                    self._send_encrypted()  # an alert that says why
                raise
            else:
                self._send_encrypted()
                return

    def recv(self, size: int, flags: int) -> bytes:
        """Encrypted bytes, as a look at what has come (``MSG_PEEK``) wants them. Raises OSError."""
        return self._raw.recv(size, flags)

    def recv_into(self, buffer: bytearray, size: int = PLAIN_BYTES) -> int:
        """Decrypted input; once the output has ended, whatever is there, only fit to be dropped.

        Returns how many bytes it put into ``buffer``. Raises BlockingIOError, NeedsOutput, OSError.
        """
        if self._ended:
            return self._raw.recv_into(buffer, size)
        if not self._incoming.pending and not self.tls.pending():
            self._fill()
        while True:
            try:
                taken: int = self.tls.read(size, buffer)  # type: ignore[assignment]  # with a buffer, a count
            except SSLWantReadError:
                self._send_encrypted()  # it may want to answer what it has read
                self._fill()
            except SSLZeroReturnError:
                return 0
            except SSLError:
                if self._incoming.eof:
                    self.truncated = True
                    return 0
                raise
            else:
                return taken

    def _fill(self) -> None:
        """Take encrypted input from the socket. Raises OSError."""
        size = self._raw.recv_into(_buffer)
        self._short = 0 < size < RECORD_BYTES
        if size:
            self.spoken = True
            self._incoming.write(_view[:size])
        else:
            self._incoming.write_eof()

    def send(self, data: bytes | memoryview) -> int:
        """Send; a call that raised BlockingIOError must be repeated with data that begins with the same."""
        if not self._taken:
            self._taken = self.tls.write(data)
        try:
            self._send_encrypted()
        except NeedsOutput:
            raise BlockingIOError from None
        taken, self._taken = self._taken, 0
        return taken

    def _send_encrypted(self) -> None:
        """Send what OpenSSL has written. Raises NeedsOutput: not all of it has gone; OSError."""
        data = self._encrypted + self._outgoing.read() if self._encrypted else self._outgoing.read()
        if data:
            try:
                sent = self._raw.send(data)
            except BlockingIOError:
                sent = 0
            self._encrypted = data[sent:]
            if self._encrypted:
                raise NeedsOutput

    def shutdown(self, how: int) -> None:
        """End the output: TLS's own notice first, then TCP's."""
        self._ended = True
        self._short = False  # what is only dropped is read until nothing is there
        # It does not wait for the peer's notice, nor mind a broken stream, or one that takes no more.
        with contextlib.suppress(OSError, ValueError, NeedsOutput):
            with contextlib.suppress(SSLWantReadError):  # the peer's notice has not come yet
                self.tls.unwrap()
            self._send_encrypted()
        self._raw.shutdown(how)

    def abandon(self) -> None:
        """Have every wait for this socket end, without a word to the peer. Raises OSError."""
        self._raw.shutdown(SHUT_RDWR)

    def close(self) -> None:
        """Close the descriptor."""
        self._raw.close()


class Certificates:
    """A server's certificate with its key, and the CAs that its clients must be signed by, if any.

    TLS 1.2 and later with :data:`CIPHERS`, no ALPN, no renegotiation. Raises CertificateError.
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
        context.set_ciphers(CIPHERS)
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


def opening(context: SSLContext | Certificates, **arguments: Any) -> Opening:
    """The TLS handshake, within ``handshake_timeout``, as the opening of a connection."""

    def handshake(connection: Lifecycle) -> bytes:
        raw = connection.socket
        current = context.context if isinstance(context, Certificates) else context
        connection.socket = tls = TlsSocket(raw, current, **arguments)
        connection.core.encrypts = True
        deadline = connection.opening_deadline()
        while True:
            try:
                tls.handshake()
                return b""
            except BlockingIOError:
                connection.wait_opening(deadline)
            except NeedsOutput:
                connection.wait_writable()
            except SSLError as error:
                if not tls.spoken:
                    connection.cut(UNUSED)
                    return b""
                # OpenSSL has sent an alert that says why; let the client read it.
                peer = address_text(connection.address)
                log.warning("TLS handshake with %s failed: %s", peer, error.reason or error)
                connection.finish("tls-handshake")
                return b""

    return handshake


def opening_of(ssl_args: dict[str, Any]) -> Opening | None:
    """What ``ssl_args`` ask for, in either of StreamServer's two forms; None where there are none."""
    if not ssl_args:
        return None
    context = ssl_args.pop("ssl_context", None)
    if context is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(ssl_args.pop("certfile"), ssl_args.pop("keyfile", None))
        if "ca_certs" in ssl_args:
            context.load_verify_locations(ssl_args.pop("ca_certs"))
        context.verify_mode = ssl_args.pop("cert_reqs", ssl.CERT_NONE)
        if "ciphers" in ssl_args:
            context.set_ciphers(ssl_args.pop("ciphers"))
    for about_blocking in ("do_handshake_on_connect", "suppress_ragged_eofs"):
        ssl_args.pop(about_blocking, None)  # the handshake is done, but not in the accept loop
    return opening(context, **{"server_side": True, **ssl_args})
