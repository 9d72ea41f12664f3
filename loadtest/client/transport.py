"""A connection on gevent's loop, cheap enough for a client to have many: a plain socket and one watcher.

How it works. gevent's own socket tries ``recv`` before it waits, and makes a ``Waiter`` and starts
and stops a watcher for each wait. Here the socket is the plain ``_socket.socket`` in non-blocking
mode, and one read watcher stays started for the connection's life: a request is ``send``, one switch
to the hub, ``recv``. The watcher is level-triggered: when it fires and nobody waits (the server
pushed something, or went away), it is stopped until somebody does.

Time-outs cost nothing per request: a deadline is a number, and a timer is armed only when none is
pending. When it fires early, because the request it was armed for has long been answered, it is armed
again for what is left of the current one.

It is one module, somewhat longer than the others, because the watcher, the timer and the reader in wait are
one state, which every method here changes.
"""

from __future__ import annotations

import _socket
import errno
import ssl
import struct
from contextlib import closing
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

import gevent
from gevent import get_hub, getcurrent

from loadtest.client.address import SourcePool, Target
from loadtest.errors import (
    ConnectFailed,
    ConnectionBroken,
    ConnectionClosed,
    ConnectTimeout,
    DeadlinePassed,
    SendTimeout,
)
from loadtest.framing import MAX_REPLY_BYTES, Line, ReplyFraming

READ_BYTES: Final = 16_384
"""Most bytes the first read of a reply takes; a longer one takes several, which grow."""

_READ: Final = 1
_WRITE: Final = 2
AGAIN: Final = (errno.EAGAIN, errno.EINTR)


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """What all clients of a test share. Time-outs are in seconds."""

    target: Target
    framing: ReplyFraming = field(default_factory=Line)
    connect_timeout: float = 5.0
    read_timeout: float = 5.0
    write_timeout: float = 5.0
    reply_limit: int = MAX_REPLY_BYTES
    """Most bytes of one reply."""
    nodelay: bool = True
    """``TCP_NODELAY``: send at once instead of waiting to fill a segment."""
    linger: int | None = None
    """``SO_LINGER`` in whole seconds: 0 closes with a reset (no TIME_WAIT), None leaves the default."""
    sources: SourcePool | None = None
    tls: ssl.SSLContext | None = None
    """Used for ``tls://`` targets; CA and client certificate are loaded into it."""
    server_name: str | None = None
    """What is sent as SNI and checked in the certificate; the target's host unless given."""


class Transport:
    """Bytes to and from ``options.target``, one connection at a time; see the module's docstring."""

    __slots__ = (
        "_armed_until",
        "_buffer",
        "_deadline",
        "_hub",
        "_socket",
        "_timer",
        "_waiting",
        "_watcher",
        "_watching",
        "connect_seconds",
        "on_input",
        "options",
        "tls_seconds",
    )

    def __init__(self, options: ClientOptions) -> None:
        self.options = options
        self._socket: Any = None
        self._watcher: Any = None
        self._timer: Any = None
        self._waiting: Any = None
        self._watching = False
        self._buffer = b""
        self.on_input: Any = None
        """Called in the loop when there is input and nobody waits; it reads with :meth:`available`."""
        self.connect_seconds = self.tls_seconds = 0.0

    @property
    def connected(self) -> bool:
        """Whether the connection is open as far as this side knows."""
        return self._socket is not None

    @property
    def source(self) -> Any:
        """This side's socket address, asked of the kernel."""
        return self._socket.getsockname()

    # -- opening and closing ---------------------------------------------------------------------

    def connect(self) -> float:
        """Open the connection and return the seconds it took, with the TLS handshake where there is one.

        Raises ConnectFailed, ConnectTimeout, TlsFailed; the client is closed then.
        """
        if self._socket is not None:
            self.close()
        options = self.options
        begin = perf_counter()
        deadline = begin + options.connect_timeout
        try:
            self._hub = get_hub()
            addresses = options.target.in_turn()
            if options.sources is not None:
                addresses = options.sources.fitting(addresses)
            sock = self._open(addresses, deadline)
            self._watcher = self._hub.loop.io(sock.fileno(), _READ)
            self._watcher.start(self._wake)
            self._watching = True
            self._opened(begin, deadline)
        except DeadlinePassed:
            self.close()
            raise ConnectTimeout(f"{options.target} within {options.connect_timeout:g} s") from None
        except _socket.gaierror as error:
            self.close()
            failure = ConnectFailed(0, f"{options.target}: {error.strerror}")
            failure.reason = "name unknown"
            raise failure from None
        except OSError as error:
            self.close()
            raise ConnectFailed(error.errno or 0, f"{options.target}: {error.strerror}") from None
        except BaseException:
            self.close()
            raise
        self.connect_seconds = perf_counter() - begin
        return self.connect_seconds

    def _open(self, addresses: list[tuple[int, Any]], deadline: float) -> Any:
        """A socket connected to the first of ``addresses`` that takes it; each has its share of the time.

        Raises OSError or DeadlinePassed, of the last one.
        """
        for left in range(len(addresses), 0, -1):
            family, address = addresses[-left]
            now = perf_counter()
            self._socket = sock = _socket.socket(family, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
            try:
                self._prepare(sock, family)
                self._connect(sock, address, now + max(0.0, deadline - now) / left)
            except (OSError, DeadlinePassed):
                if left == 1:
                    raise
                self.close()
            else:
                break
        return sock

    def _prepare(self, sock: Any, family: int) -> None:
        options = self.options
        if family != _socket.AF_UNIX:
            if options.nodelay:
                sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            if options.sources is not None:
                options.sources.bind(sock)
        if options.linger is not None:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, struct.pack("ii", 1, options.linger))

    def _connect(self, sock: Any, address: Any, deadline: float) -> None:
        while True:
            number = sock.connect_ex(address)
            if number == 0:
                return
            if number == errno.EINPROGRESS:
                self._await_events(_WRITE, deadline)
                number = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
                if number == 0:
                    return
            if number != errno.EAGAIN:
                raise OSError(number, errno.errorcode.get(number, str(number)))
            if perf_counter() >= deadline:  # a UNIX socket whose backlog is full has nothing to wait for
                raise DeadlinePassed
            gevent.sleep(0.01)

    def _opened(self, begin: float, deadline: float) -> None:
        """The transport is open; TLS shakes hands here."""

    def close(self) -> None:
        """Close at once; what was sent stays on its way. Harmless where nothing is open."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
            self._watching = False
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._buffer = b""

    # -- waiting ---------------------------------------------------------------------------------

    def _wake(self) -> None:
        waiting = self._waiting
        if waiting is not None:
            waiting.switch()
        elif self.on_input is not None:
            self.on_input()
        else:
            self.stop_watching()

    def watch(self) -> None:
        """Take notice of input again."""
        if not self._watching:
            self._watcher.start(self._wake)
            self._watching = True

    def stop_watching(self) -> None:
        """Take no notice of input until somebody waits for it, or asks."""
        if self._watcher is not None:
            self._watcher.stop()
        self._watching = False

    @property
    def busy(self) -> bool:
        """Whether a greenlet is waiting for this connection."""
        return self._waiting is not None

    def _await_input(self, deadline: float) -> None:
        """Return when a read would not block. Raises DeadlinePassed."""
        if not self._watching:
            self._watcher.start(self._wake)
            self._watching = True
        self._deadline = deadline
        if self._timer is None or deadline < self._armed_until:
            self._arm()
        self._waiting = getcurrent()
        try:
            self._hub.switch()
        finally:
            self._waiting = None

    def _await_events(self, events: int, deadline: float) -> None:
        """Wait for more than input, with a watcher of its own. Raises DeadlinePassed."""
        with closing(self._hub.loop.io(self._socket.fileno(), events)) as watcher:
            self._deadline = deadline
            if self._timer is None or deadline < self._armed_until:
                self._arm()
            self._waiting = current = getcurrent()
            if self._watching:
                self._watcher.stop()  # one socket, one watcher that may switch
                self._watching = False
            watcher.start(current.switch)
            try:
                self._hub.switch()
            finally:
                self._waiting = None
                watcher.stop()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.close()
        self._armed_until = self._deadline
        self._timer = self._hub.loop.timer(max(self._deadline - perf_counter(), 0.0005))
        self._timer.start(self._expire)

    def _expire(self) -> None:
        self._timer.close()
        self._timer = None
        if self._waiting is not None:
            if perf_counter() < self._deadline:
                self._arm()
            else:
                self._waiting.throw(DeadlinePassed)

    # -- bytes -----------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send all of ``data``, reading meanwhile what the server answers already.

        Raises SendTimeout, ConnectionBroken.
        """
        try:
            sent = self._socket.send(data)
        except OSError as error:
            if error.errno not in AGAIN:
                raise ConnectionBroken(error.errno or 0, str(error.strerror)) from None
            sent = 0
        if sent != len(data):
            self._send_rest(data, sent)

    def _send_rest(self, data: bytes, sent: int) -> None:
        view = memoryview(data)
        deadline = perf_counter() + self.options.write_timeout
        while sent < len(data):
            try:
                self._await_events(_READ | _WRITE, deadline)
            except DeadlinePassed:
                raise SendTimeout(
                    f"{len(data) - sent} bytes left after {self.options.write_timeout:g} s"
                ) from None
            try:
                self._gather()
                sent += self._socket.send(view[sent:])
            except OSError as error:
                if error.errno not in AGAIN:
                    raise ConnectionBroken(error.errno or 0, str(error.strerror)) from None

    def send_now(self, data: bytes) -> None:
        """Send without waiting. Raises SendTimeout: the kernel does not take all of it; ConnectionBroken."""
        try:
            sent = self._socket.send(data)
        except OSError as error:
            if error.errno not in AGAIN:
                raise ConnectionBroken(error.errno or 0, str(error.strerror)) from None
            sent = 0
        if sent != len(data):
            raise SendTimeout("an answer to a push was not taken at once")

    def available(self) -> bytes | None:
        """What can be read without waiting: None where there is nothing, empty at the end of the stream.

        Raises ConnectionBroken.
        """
        try:
            return self._socket.recv(READ_BYTES)  # type: ignore[no-any-return]
        except OSError as error:
            if error.errno in AGAIN:
                return None
            raise ConnectionBroken(error.errno or 0, str(error.strerror)) from None

    def _gather(self) -> None:
        """Take what there is to read without waiting. Raises OSError, ConnectionClosed."""
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionClosed("while sending")
        self._buffer += data

    def read(self, deadline: float, size: int = READ_BYTES) -> bytes:
        """What one read returns; empty at the end of the stream. Raises DeadlinePassed, ConnectionBroken."""
        while True:
            self._await_input(deadline)
            try:
                return self._socket.recv(size)  # type: ignore[no-any-return]
            except OSError as error:
                if error.errno not in AGAIN:
                    raise ConnectionBroken(error.errno or 0, str(error.strerror)) from None
