"""A running server in one line, for tests of handlers and services.

::

    from chat_gevent.testing import running

    def test_echo():
        with running(lambda message, client: message.upper()) as server:
            assert server.ask("hello") == "HELLO"

The server runs in the process of the test, on a free port of the loopback interface, and the clients are real
ones, on gevent's sockets: while a test waits for a message, the server goes on. The test itself needs no
monkey patching, but what else blocks in it (``time.sleep``, another library's socket) keeps the server from
its work.

With pytest there is a fixture too. Nothing is registered with pytest by itself: name it in ``conftest.py``.
::

    from chat_gevent.testing import chat_server

    def test_echo(chat_server):
        server = chat_server(lambda message, client: message.upper(), idle_timeout=5)

pytest is imported when that name is asked for, and not before.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import gevent
from gevent import socket

from chat_gevent.errors import ConnectionLost
from chat_gevent.framing import LINE, Auto, Framing, Kept
from chat_gevent.server import ChatServer
from chat_gevent.service import Answers, Reply, Service
from chat_gevent.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    Start = Callable[..., "RunningServer"]
    chat_server: Callable[[], Iterator[Start]]

WAIT_SECONDS: Final = 5.0
"""How long a client waits for a message, unless it is told otherwise."""

STOP_SECONDS: Final = 2.0
"""How long handlers and hooks have to return once the test is over."""

LONGEST_MESSAGE: Final = 2**30


class ConnectedClient:
    """One client of a running server. Messages are ``str``, or ``bytes`` where the service takes those.

    Each wait raises TimeoutError when nothing has come in time, and ConnectionLost once the server has
    closed.
    """

    def __init__(self, sock: Any, framing: Framing, text: bool) -> None:
        self.socket = sock
        self._framing = framing
        self._text = text
        self._kept: Kept = b""
        self._came: deque[Any] = deque()
        self._ended = False

    def send(self, message: Reply) -> None:
        """Send a message, and don't wait for a reply."""
        self.socket.sendall(
            self._framing.encode(message.encode() if isinstance(message, str) else bytes(message))
        )

    def ask(self, message: Reply, timeout: float = WAIT_SECONDS) -> Any:
        """Send a message, and wait for the next one that comes.

        That is the reply, unless something is pushed just then. What came before stays, for :meth:`pushed`.
        """
        gevent.sleep(0)  # what is due by now is sent at the end of the turn
        while not self._ended and self._take(0):
            pass
        before = len(self._came)
        self.send(message)
        self._wait_for_more_than(before, timeout)
        reply = self._came[before]
        del self._came[before]
        return reply

    def pushed(self, timeout: float = WAIT_SECONDS) -> Any:
        """Wait for a message, and return it: the oldest that :meth:`ask` or this has not returned yet."""
        self._wait_for_more_than(0, timeout)
        return self._came.popleft()

    def silent(self, seconds: float = 0.05) -> bool:
        """Whether nothing comes for so long."""
        try:
            self._wait_for_more_than(0, seconds)
        except TimeoutError:
            return True
        return False

    def rest(self, timeout: float = WAIT_SECONDS) -> list[Any]:
        """Wait until the server closes the connection; returns what came and was not returned yet."""
        end = time.monotonic() + timeout
        while not self._ended:
            if not self._take(max(0.0, end - time.monotonic())):
                raise TimeoutError(f"the server has not closed within {timeout:g} s")
        came = list(self._came)
        self._came.clear()
        return came

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def _wait_for_more_than(self, count: int, timeout: float) -> None:
        end = time.monotonic() + timeout
        while len(self._came) <= count:
            if self._ended:
                raise ConnectionLost("the server closed the connection")
            if not self._take(max(0.0, end - time.monotonic())):
                raise TimeoutError(f"no message came within {timeout:g} s")

    def _take(self, timeout: float) -> bool:
        """Take what one read gives; false where nothing was there in time."""
        self.socket.settimeout(timeout)
        try:
            data = self.socket.recv(65536)
        except (BlockingIOError, TimeoutError, ssl.SSLWantReadError):
            return False
        except ConnectionError:
            data = b""
        finally:
            self.socket.settimeout(None)
        if data:
            messages, self._kept = self._framing.split(self._kept, data, LONGEST_MESSAGE)
        else:
            messages = self._framing.finish(self._kept, LONGEST_MESSAGE)
            self._ended = True
        self._came.extend(each.decode() if self._text else each for each in messages)
        return True

    def __enter__(self) -> ConnectedClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class RunningServer:
    """A server that runs while a test does; :func:`running` makes it."""

    def __init__(self, server: ChatServer) -> None:
        self.server = server
        """The server itself: groups, ``stats()``, ``clients``, ``stop()``."""
        self._clients: list[ConnectedClient] = []
        self._asking: ConnectedClient | None = None

    @property
    def address(self) -> Any:
        """Where it listens: host and port, or the path of a UNIX socket."""
        return self.server.address

    @property
    def service(self) -> Service:
        """The service that answers."""
        return self.server.core.service

    def connect(self, context: ssl.SSLContext | None = None, server_hostname: str = "") -> ConnectedClient:
        """A new client, connected; over TLS with a ``context``. It is closed at the end."""
        unix = self.server.socket.family == socket.AF_UNIX
        sock: Any = socket.socket(socket.AF_UNIX if unix else self.server.socket.family)
        sock.connect(self.server.socket.getsockname() if unix else self.address)
        if not unix:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            from gevent.ssl import SSLSocket

            sock = SSLSocket(sock, server_hostname=server_hostname or None, _context=context)
        core = self.server.core
        framing = LINE if isinstance(core.framing, Auto) else core.framing
        client = ConnectedClient(sock, framing, core.rules.text)
        self._clients.append(client)
        return client

    def ask(self, message: Reply, timeout: float = WAIT_SECONDS) -> Any:
        """Send a message over a connection that is kept for this, and return the reply."""
        if self._asking is None:
            self._asking = self.connect()
        return self._asking.ask(message, timeout)

    def close(self) -> None:
        """Close all clients, and stop the server."""
        for each in self._clients:
            each.close()
        self.server.stop(STOP_SECONDS)


@contextlib.contextmanager
def running(answers: Answers | None = None, **settings: Any) -> Iterator[RunningServer]:
    """Run a server with a handler, a service or a class of services, until the end of the block.

    :param settings: of :class:`chat_gevent.Settings`, such as ``idle_timeout=5``; others are those of
        :class:`chat_gevent.ChatServer`, such as ``ssl_context`` or ``listener`` (a free port of 127.0.0.1
        unless given).
    """
    names = Settings.__dataclass_fields__
    chosen = {name: settings.pop(name) for name in list(settings) if name in names}
    listener = settings.pop("listener", ("127.0.0.1", 0))
    server = ChatServer(listener, answers, settings=Settings(**chosen), **settings)
    server.start()
    made = RunningServer(server)
    try:
        yield made
    finally:
        made.close()


def _make_fixture() -> Any:
    import pytest

    @pytest.fixture
    def chat_server() -> Iterator[Start]:
        """Start servers as :func:`running` does, as often as called; all end with the test."""
        with contextlib.ExitStack() as stack:
            yield lambda *answers, **settings: stack.enter_context(running(*answers, **settings))

    return chat_server


def __getattr__(name: str) -> Any:
    """Make the fixture when it is asked for. Raises AttributeError."""
    if name != "chat_server":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = made = _make_fixture()
    return made
