"""TLS for :class:`TcpClient`: the same plain socket, and an ``SSLObject`` before the bytes.

``ssl.MemoryBIO`` keeps TLS free of I/O: what the socket read is fed in, what is to be sent is taken
out, so reads, waits and deadlines stay those of the plain client. One read of the socket may bring several
records. All of them are decrypted at once, and what ends the stream after them is remembered: a record that
stayed behind in memory would wake nobody, and would be taken for the reply to what is sent next.
"""

from __future__ import annotations

import ssl
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

from chat_gevent.errors import certificate_hint
from loadtest.client.tcp_client import TcpClient
from loadtest.client.transport import READ_BYTES, ClientOptions
from loadtest.errors import (
    ConnectionClosed,
    ConnectTimeout,
    DeadlinePassed,
    ReadTimeout,
    TlsFailed,
    UnexpectedData,
)


def make_context(
    ca: str | None = None, certificate: str | None = None, key: str | None = None, *, verify: bool = True
) -> ssl.SSLContext:
    """A client's context: its own ``ca``, a client certificate, or no checks at all.

    Raises OSError (``ssl.SSLError`` is one) where a file can't be read or used.
    """
    for path in filter(None, (ca, certificate, key)):
        Path(path).open("rb").close()  # the ssl module's own error does not name the file
    context = ssl.create_default_context(cafile=ca)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate, key)
    return context


@cache
def default_context() -> ssl.SSLContext:
    """A context with the system's authorities, made once a process."""
    return make_context()


def _failed(error: ssl.SSLError) -> TlsFailed:
    """The failure that stands for OpenSSL's, with what can be done about it."""
    reason = error.reason or type(error).__name__
    hint = certificate_hint(error)
    return TlsFailed(str(error), reason=f"{reason}: {hint}" if hint else reason)


class TlsClient(TcpClient):
    """A client whose bytes go through TLS; the public methods are those of :class:`TcpClient`."""

    __slots__ = ("_broken", "_ended", "_incoming", "_outgoing", "_tls")

    def __init__(self, options: ClientOptions) -> None:
        super().__init__(options)
        if options.tls is None:
            raise ValueError("a tls:// target needs ClientOptions.tls")
        self._tls: Any = None
        self._ended = False  # the server has said that it sends no more
        self._broken: TlsFailed | None = None  # why no more can be decrypted

    def _opened(self, begin: float, deadline: float) -> None:
        options = self.options
        assert options.tls is not None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ended, self._broken = False, None
        started = perf_counter()
        try:
            self._tls = options.tls.wrap_bio(
                self._incoming, self._outgoing, server_hostname=options.server_name or options.target.host
            )
            while True:
                try:
                    self._tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    self._flush()
                    data = super().read(deadline)
                    if not data:
                        raise TlsFailed("the stream ended", reason="handshake cut off") from None
                    self._incoming.write(data)
            self._flush()
        except ssl.SSLError as error:
            raise _failed(error) from None
        self.tls_seconds = perf_counter() - started
        self._buffer += self._decrypted()  # a server may speak first, together with the end of the handshake

    def _flush(self) -> None:
        if self._outgoing.pending:
            super().send(self._outgoing.read())

    def send(self, data: bytes) -> None:
        """Encrypt and send all of ``data``."""
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            raise _failed(error) from None
        self._flush()

    @classmethod
    def over(cls, plain: TcpClient, options: ClientOptions) -> TlsClient:
        """A client that goes on with the connection of ``plain``, and has shaken hands.

        Raises UnexpectedData (something was sent in the clear after the order to begin), TlsFailed,
        ConnectTimeout, ConnectionBroken; the connection is closed then.
        """
        client = cls(options)
        if plain.has_surplus:
            raise UnexpectedData(repr(plain.extra))
        plain.stop_watching()
        client._socket, plain._socket = plain._socket, None
        client._hub = plain._hub
        plain.close()
        client._watcher = client._hub.loop.io(client._socket.fileno(), 1)
        begin = perf_counter()
        try:
            client._opened(begin, begin + options.connect_timeout)
        except DeadlinePassed:
            client.close()
            raise ConnectTimeout(f"the TLS handshake within {options.connect_timeout:g} s") from None
        except BaseException:
            client.close()
            raise
        return client

    def ask(self, wire: bytes, timeout: float = 0.0) -> bytes:
        """Send ``wire`` and return what the first record of the answer brings."""
        self.expect_silence()
        self.send(wire)
        timeout = timeout or self.options.read_timeout
        self._deadline = deadline = perf_counter() + timeout
        try:
            data = self.read(deadline)
        except DeadlinePassed:
            raise ReadTimeout(f"no reply after {timeout:g} s") from None
        if not data:
            raise ConnectionClosed("before a reply")
        return data

    def send_now(self, data: bytes) -> None:
        """Encrypt and send without waiting."""
        self._tls.write(data)
        super().send_now(self._outgoing.read())

    def available(self) -> bytes | None:
        """What can be decrypted without waiting."""
        data = None if self._ended else super().available()
        if data:
            self._incoming.write(data)
        found = self._decrypted()
        if not found and (self._ended or data == b""):
            return b""
        return found or None

    def _gather(self) -> None:
        """Take what there is to read without waiting, still encrypted."""
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionClosed("while sending")
        self._incoming.write(data)

    def read(self, deadline: float, size: int = READ_BYTES) -> bytes:
        """All records that one read brings, decrypted; empty at the end of the stream."""
        while not (found := self._decrypted()):
            if self._ended:
                return b""
            self._flush()
            data = super().read(deadline)
            if not data:
                return b""
            self._incoming.write(data)
        return found

    def expect_silence(self) -> None:
        """As of the plain client; records that carry no data (a session ticket) are taken in silently."""
        if not self._watching and self._socket is not None and not self.has_surplus:
            data = self.available()
            if data == b"":
                raise ConnectionClosed("while nothing was asked for")
            if data:
                self._buffer += data
            else:
                self.watch()
        super().expect_silence()

    def _decrypted(self) -> bytes:
        """All that can be decrypted without reading more. Raises TlsFailed.

        What ends the stream is remembered, and the watcher is stopped, as if the socket had more to be read:
        whoever uses the connection next looks, and finds it.
        """
        if self._broken is not None:
            raise self._broken
        pieces: list[bytes] = []
        try:
            while not self._ended and (self._incoming.pending or self._tls.pending()):
                data = self._tls.read(READ_BYTES)
                pieces.append(data)
                self._ended = not data
        except ssl.SSLWantReadError:  # no data, or the beginning of a record
            pass
        except ssl.SSLZeroReturnError:
            self._ended = True
        except ssl.SSLError as error:
            self._broken = _failed(error)
            if not pieces:
                raise self._broken from None
        if self._ended or self._broken is not None:
            self.stop_watching()
        return b"".join(pieces)


def make_client(options: ClientOptions) -> TcpClient:
    """The client that fits the target's scheme."""
    return TlsClient(options) if options.target.scheme == "tls" else TcpClient(options)
