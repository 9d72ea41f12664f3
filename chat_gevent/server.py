"""ChatServer: a :class:`gevent.server.StreamServer` whose clients are parked while they say nothing.

It accepts, applies the limits that hold at accept, and hands each client to the engine of its
:class:`~chat_gevent.core.Core`, its own or one that several listeners share. With a
``spawn`` of its own choosing (a number, a pool, a callable) each client is served in one greenlet
made by that for as long as it is connected, as StreamServer does it.

Groups, broadcasts and figures are in :mod:`chat_gevent.serving`.
"""

from __future__ import annotations

import errno
import logging
import os
from _socket import SO_ACCEPTCONN, SOL_SOCKET
from _socket import socket as RawSocket
from typing import Any, Final

from gevent import getcurrent, spawn
from gevent.event import Event

from chat_gevent import lifecycle, proxy_protocol, tls
from chat_gevent.confirm import ErrorCode
from chat_gevent.connection import Connection
from chat_gevent.core import Core
from chat_gevent.files import default_max_connections, raise_file_limit
from chat_gevent.lifecycle import refuse_at_once
from chat_gevent.listeners import await_handshakes, take_no_more, tune
from chat_gevent.outgoing import Opening
from chat_gevent.service import Answers
from chat_gevent.serving import Serving
from chat_gevent.settings import Settings
from chat_gevent.system import check_watches

OUT_OF_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
"""Why ``accept`` may fail without any fault of the client's; it will do again once something is free."""

log = logging.getLogger("chat_gevent")


class ChatServer(Serving):
    """Serve the confirm protocol, or a handler or service of your own, to any number of clients.

    :param listener: an address to listen on (``("127.0.0.1", 12345)``, port 0 for any free one), or a
        socket that listens already.
    :param handler: ``(message, client) -> reply or None``, or a :class:`chat_gevent.Service`.
    :param backlog: connections that may wait to be accepted; ``settings.backlog`` unless given.
    :param spawn: ``"default"`` parks idle clients. A number, a :class:`gevent.pool.Pool` or a callable
        such as :func:`gevent.spawn` gives each client a greenlet of that kind for its whole connection.
    :param settings: limits and time-outs.
    :param core: share one core, and with it settings and handler, between several listeners.
    :param opening: what a connection begins with, such as :func:`chat_gevent.tls.opening`,
        instead of ``ssl_args``.
    :param proxies: whose connections begin with a PROXY header.
    :param ssl_args: ``ssl_context``, or ``certfile``, ``keyfile``, ``ca_certs``, ``cert_reqs``, ``ciphers``.

    Raises SettingError, and OSError from :meth:`start` where the address can't be had.
    """

    max_accept = 1000

    def __init__(
        self,
        listener: Any,
        handler: Answers | None = None,
        backlog: int | None = None,
        spawn: Any = "default",
        *,
        settings: Settings | None = None,
        core: Core | None = None,
        opening: Opening | None = None,
        proxies: proxy_protocol.Proxies | None = None,
        **ssl_args: Any,
    ) -> None:
        if spawn is None:
            raise TypeError("spawn must not be None: a client can't be served in the hub")
        if core is not None and (settings is not None or handler is not None):
            raise TypeError("settings and handler are the core's: give them there")
        self.core = core or Core(settings, handler)
        self._owns_core = core is None
        self._bound = not hasattr(listener, "accept")
        self._drained: Event | None = None  # from the first stop() on
        self._cut_off = 0
        self.parks = spawn == "default"
        self._opening = opening or tls.opening_of(ssl_args)
        self._proxies = proxies
        self._proxied_opening = proxy_protocol.opening(self._opening)
        if not hasattr(listener, "accept") and backlog is None:
            backlog = self.core.settings.backlog
        super().__init__(listener, None, backlog, spawn)
        try:
            raise_file_limit()
        except (OSError, ValueError) as error:
            log.warning("the limit of open files can't be raised: %s", error)
        self.max_connections = self.core.settings.max_connections or default_max_connections()
        self._starting = 0  # clients whose greenlet has been spawned and has not run yet
        self._reserve = -1
        self._told_at = 0.0

    # -- StreamServer's own hooks ----------------------------------------------------------------

    def init_socket(self) -> None:
        """Bind and listen, unless the listener was given as a socket."""
        super().init_socket()
        self.socket.setblocking(False)
        tune(self.socket, self.core.settings)
        if self._reserve < 0:
            self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def start(self) -> None:
        """Begin to listen. Raises OSError: the address can't be had, or no epoll watches are left."""
        check_watches(self.core.system)
        if self._owns_core and not self.started:
            self.init_socket()  # clients may wait in its backlog until the service has started
            try:
                self.begin_serving()
            except BaseException:
                self.close()
                raise
            if self._drained is not None:  # the service has stopped it already
                return
        super().start()

    def do_read(self) -> tuple[RawSocket, Any] | None:  # type: ignore[override]  # raw, not gevent's
        """Accept one client; None where nobody waits."""
        listener = self.socket
        try:
            fd, address = listener._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in OUT_OF_RESOURCES:
                self._accept_with_reserve(error)
                return None
            if error.errno == errno.ECONNABORTED:  # it left while it waited
                return None
            if error.errno in self.fatal_errors:  # another process that holds the listener has shut it down
                log.error("a listener has ended: %s", error.strerror)
                self.close()
                return None
            raise
        client = self.core.system.socket(listener.family, listener.type, listener.proto, fileno=fd)
        client.setblocking(False)
        return client, address

    def do_handle(self, client: RawSocket, address: Any) -> None:
        """Admit a client that was accepted, or refuse it."""
        core = self.core
        registry = core.registry
        registry.accepted += 1
        opening = self._opening
        proxied = self._proxies is not None and self._proxies.trust(address)
        if proxied:
            opening = self._proxied_opening
        if registry.live - registry.refusals + self._starting >= self.max_connections:
            self._refuse(client, ErrorCode.SERVER_FULL, opening)
        elif not proxied and registry.address_is_full(address):
            self._refuse(client, ErrorCode.ADDRESS_FULL, opening)
        elif self.parks:
            connection = Connection(client, core, opening)
            if self._admit(connection, None if proxied else address):
                core.begin(connection)
        else:
            self._starting += 1
            try:
                super().do_handle(client, address)  # type: ignore[arg-type]
            except BaseException:
                self._starting -= 1
                raise

    def _admit(self, connection: Connection, address: Any) -> bool:
        try:
            self.core.admit(connection, address)
        except OSError as error:  # no epoll watches left
            self._say_out_of("epoll watches", error)
            self.core.registry.refused[ErrorCode.SERVER_FULL] += 1
            problem = "the server can't watch more clients"
            refuse_at_once(self.core, connection.socket, ErrorCode.SERVER_FULL, problem)
            return False
        return True

    def do_close(self, client: RawSocket, address: Any) -> None:
        """Close a client whose greenlet could not be spawned; a served one has been closed by then."""
        client.close()

    def handle(self, client: RawSocket, address: Any) -> None:
        """Serve one client in the current greenlet until it is gone."""
        self._starting -= 1
        if self._drained is not None and self._drained.is_set():
            return  # it came too late, and is closed
        proxied = self._proxies is not None and self._proxies.trust(address)
        connection = Connection(client, self.core, self._proxied_opening if proxied else self._opening)
        if self._admit(connection, None if proxied else address):
            connection.serve_resident()

    def stop(self, timeout: float | None = None) -> int:  # type: ignore[override]
        """Stop listening; have the clients leave within ``timeout`` seconds, or ``drain_timeout``.

        Returns how many were cut off: those whose replies were not all sent by then. Whoever calls it again
        waits for the first call to end. A handler may call it: it then returns at once, and its client is
        answered first.
        """
        seconds = self.core.settings.drain_timeout if timeout is None else timeout
        if self._drained is not None:
            if not self._called_by_handler():
                self._drained.wait()
            return self._cut_off
        self._drained = Event()
        if self._called_by_handler():
            spawn(self._drain, seconds)
            return 0
        self._drain(seconds)
        return self._cut_off

    def _called_by_handler(self) -> bool:
        current = getcurrent()
        if current is self.core.stopper or current in self.core.telling:
            return True
        return any(each.greenlet is current for each in self.core.engine.all())

    def _drain(self, seconds: float) -> None:
        assert self._drained is not None
        system = self.core.system
        deadline = system.monotonic() + seconds
        try:
            if self._owns_core:
                self.core.stopping(self)
            if not self.closed:
                if self._bound and seconds:  # a socket that was given may be somebody else's as well
                    take_no_more(self.socket)
                    await_handshakes([self.socket], self.core.registry.live)
                self.accept_waiting()
                self.close()
            self._stop_event.set()  # serve_forever calls stop() as well, and waits for us
            if self._owns_core:
                # Clients that spawn serves are registered once their greenlet has run.
                while self._starting:
                    system.sleep(0)
                    if system.monotonic() >= deadline:
                        break
                self.end_serving()
                self._cut_off = self.core.drain(max(0.0, deadline - system.monotonic()))
                self.core.close()
        finally:
            self._drained.set()

    def listens(self) -> bool:
        """Whether new clients are accepted, or will be in a moment; not once the listener was shut down."""
        if self.closed:
            return False
        watcher: Any = getattr(self, "_watcher", None)
        if watcher is not None and not watcher.active:
            # The event loop gave it up, because the kernel had no epoll watches left.
            self.stop_accepting()
            self.start_accepting()
        return bool(self.socket.getsockopt(SOL_SOCKET, SO_ACCEPTCONN))

    def close(self) -> None:
        """Stop listening. Clients stay, until :meth:`stop`."""
        super().close()
        if getattr(self, "_reserve", -1) >= 0:
            os.close(self._reserve)
            self._reserve = -1

    def accept_waiting(self) -> None:
        """Accept all that wait in the backlog: closing the listener would reset them."""
        if self.started:
            for _ in range(self.core.settings.backlog):
                accepted = self.do_read()
                if accepted is None:
                    if self.closed or not self.core.system.readable(self.socket):
                        return
                elif self.full():  # spawn is a pool that has no room, and stopping can't wait for it
                    refuse_at_once(self.core, accepted[0], ErrorCode.SHUTTING_DOWN)
                else:
                    self.do_handle(*accepted)

    # -- refusing ----------------------------------------------------------------------------------

    def _refuse(self, client: RawSocket, code: ErrorCode, opening: Opening | None) -> None:
        """Tell a client why it can't come in, and close."""
        registry = self.core.registry
        registry.refused[code] += 1
        if registry.refusals >= lifecycle.REFUSED_LINGERING:
            refuse_at_once(self.core, client, code)
            return
        # What a proxy says first is dropped with all else; only TLS must come before the refusal.
        connection = Connection(client, self.core, opening if self._opening else None)
        connection.refuse(code)
        if self._admit(connection, None):
            registry.refusals += 1
            self.core.begin(connection)

    def _say_out_of(self, what: str, error: OSError) -> None:
        now = self.core.system.monotonic()
        if now - self._told_at >= 1:
            self._told_at = now
            log.error("out of %s (%s): refusing clients until some are free", what, error.strerror)

    def _accept_with_reserve(self, error: OSError) -> None:
        """Out of files: give up the descriptor kept for this, so that a client can be told why."""
        files = error.errno in (errno.EMFILE, errno.ENFILE)
        self._say_out_of("file descriptors" if files else "memory", error)
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1
        try:
            listener = self.socket
            fd, _ = listener._accept()  # type: ignore[attr-defined]
            client = self.core.system.socket(listener.family, listener.type, listener.proto, fileno=fd)
            client.setblocking(False)
            self.core.registry.accepted += 1
            self.core.registry.refused[ErrorCode.SERVER_FULL] += 1
            refuse_at_once(self.core, client, ErrorCode.SERVER_FULL, "the server has no file descriptor left")
        except OSError:
            files = files and self._reserve >= 0  # it left, or a handler was faster to take the descriptor
        try:
            self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            files = False
        if not files:
            self._pause_accepting()

    def _pause_accepting(self) -> None:
        """Look again after ``max_delay`` seconds: the listener stays readable, and must not spin the loop."""
        self.stop_accepting()
        self._timer = self.loop.timer(self.max_delay)
        self._timer.start(self._accept_again)

    def _accept_again(self) -> None:
        if self._reserve < 0:
            try:
                self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self._pause_accepting()
                return
        self.stop_accepting()  # which also ends the timer
        self.start_accepting()
