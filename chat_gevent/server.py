"""ChatServer: a :class:`gevent.server.StreamServer` whose clients are parked while they say nothing.

It accepts, applies the limits that hold at the door, and hands each client to a
:class:`~chat_gevent.parking.ParkingLot`, its own or one that several listeners share. With a
``spawn`` of its own choosing (a number, a pool, a callable) each client is served in one greenlet
made by that for as long as it is connected, as StreamServer does it.
"""

from __future__ import annotations

import errno
import logging
import os
import ssl
import time
from _socket import SHUT_WR
from _socket import socket as RawSocket
from select import POLLIN
from typing import Any, Final

from gevent import sleep, spawn_raw
from gevent.monkey import get_original
from gevent.server import StreamServer

from chat_gevent import proxy_protocol, tls
from chat_gevent.confirm import ErrorCode, Handler, confirm, error_reply
from chat_gevent.connection import EXPLANATIONS, READ_BYTES, Connection
from chat_gevent.files import default_max_connections
from chat_gevent.listeners import tune
from chat_gevent.parking import ParkingLot
from chat_gevent.settings import Settings

REFUSED_LINGERING: Final = 32
"""Most refused clients that are waited for to read their refusal; those beyond are told, and closed at once.

Half of the files that :data:`chat_gevent.files.RESERVED_FILES` keeps."""

# As in parking.py: patched, ``select`` may have lost it.
poll = get_original("select", "poll")

log = logging.getLogger("chat_gevent")


class ChatServer(StreamServer):
    """Serve the confirm protocol, or a handler of your own, to any number of clients.

    :param listener: an address to listen on (``("127.0.0.1", 12345)``, port 0 for any free one), or a
        socket that listens already.
    :param handler: ``(message, client) -> reply text or None``; it may block as gevent code may.
    :param backlog: connections that may wait to be accepted; ``settings.backlog`` unless given.
    :param spawn: ``"default"`` parks idle clients. A number, a :class:`gevent.pool.Pool` or a callable
        such as :func:`gevent.spawn` gives each client a greenlet of that kind for its whole connection.
    :param settings: limits and time-outs.
    :param lot: share one lot, and with it settings and handler, between several listeners.
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
        handler: Handler | None = None,
        backlog: int | None = None,
        spawn: Any = "default",
        *,
        settings: Settings | None = None,
        lot: ParkingLot | None = None,
        opening: tls.Opening | None = None,
        proxies: proxy_protocol.Proxies | None = None,
        **ssl_args: Any,
    ) -> None:
        if spawn is None:
            raise TypeError("spawn must not be None: a client can't be served in the hub")
        if lot is not None and (settings is not None or handler is not None):
            raise TypeError("settings and handler are the lot's: give them there")
        self.lot = lot or ParkingLot(settings, handler or confirm)
        self._owns_lot = lot is None
        self._stopped = False
        self.parks = spawn == "default"
        self._opening = opening or _tls_opening(ssl_args)
        self._proxies = proxies
        self._proxied_opening = proxy_protocol.opening(self._opening)
        if not hasattr(listener, "accept") and backlog is None:
            backlog = self.lot.settings.backlog
        super().__init__(listener, None, backlog, spawn)
        self.max_connections = self.lot.settings.max_connections or default_max_connections()
        self._starting = 0  # clients whose greenlet has been spawned and has not run yet
        self._reserve = -1
        self._told_at = 0.0

    # -- StreamServer's own hooks ----------------------------------------------------------------

    def init_socket(self) -> None:
        """Bind and listen, unless the listener was given as a socket."""
        super().init_socket()
        self.socket.setblocking(False)
        tune(self.socket, self.lot.settings)
        self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def do_read(self) -> tuple[RawSocket, Any] | None:  # type: ignore[override]  # raw, not gevent's
        """Accept one client; None where nobody waits."""
        listener = self.socket
        try:
            fd, address = listener._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._accept_with_reserve(error)
                return None
            if error.errno == errno.ECONNABORTED:  # it left while it waited
                return None
            raise
        client = RawSocket(listener.family, listener.type, listener.proto, fileno=fd)
        client.setblocking(False)
        return client, address

    def do_handle(self, client: RawSocket, address: Any) -> None:
        """Park a client that was accepted, or refuse it."""
        lot = self.lot
        lot.accepted += 1
        opening = self._opening
        proxied = self._proxies is not None and self._proxies.trust(address)
        if proxied:
            opening = self._proxied_opening
        if lot.live - lot.refusals + self._starting >= self.max_connections:
            self._refuse(client, ErrorCode.SERVER_FULL, opening)
        elif not proxied and lot.address_is_full(address):
            self._refuse(client, ErrorCode.ADDRESS_FULL, opening)
        elif self.parks:
            lot.admit(Connection(client, lot, opening), None if proxied else address)
        else:
            self._starting += 1
            try:
                super().do_handle(client, address)  # type: ignore[arg-type]
            except BaseException:
                self._starting -= 1
                raise

    def do_close(self, client: RawSocket, address: Any) -> None:
        """Close a client whose greenlet could not be spawned; a served one has been closed by then."""
        client.close()

    def handle(self, client: RawSocket, address: Any) -> None:
        """Serve one client in the current greenlet until it is gone."""
        self._starting -= 1
        proxied = self._proxies is not None and self._proxies.trust(address)
        opening = self._proxied_opening if proxied else self._opening
        connection = Connection(client, self.lot, opening)
        self.lot.admit(connection, None if proxied else address)
        connection.serve_resident()

    def stop(self, timeout: float | None = None) -> int:  # type: ignore[override]
        """Stop listening, dismiss the clients over ``timeout`` seconds (``stop_timeout``, 1, unless given).

        Returns how many were cut off: those whose replies were not all sent by then.
        """
        if not self.closed:
            self.accept_waiting()
            self.close()
        if not self._owns_lot or self._stopped:
            return 0
        self._stopped = True
        seconds = self.stop_timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        # Clients that spawn serves are in the lot once their greenlet has run.
        while self._starting and time.monotonic() < deadline:
            sleep(0)
        cut_off = self.lot.drain(max(0.0, deadline - time.monotonic()))
        self.lot.close()
        return cut_off

    def close(self) -> None:
        """Stop listening. Clients stay, until :meth:`stop`."""
        super().close()
        if getattr(self, "_reserve", -1) >= 0:
            os.close(self._reserve)
            self._reserve = -1

    def accept_waiting(self) -> None:
        """Accept all that wait in the backlog: closing the listener would reset them."""
        if self.started:
            for _ in range(self.lot.settings.backlog):
                accepted = self.do_read()
                if accepted is None:
                    if not _readable(self.socket):
                        return
                elif self.full():  # spawn is a pool that has no room, and stopping can't wait for it
                    code = ErrorCode.SHUTTING_DOWN
                    _refuse_at_once(accepted[0], code, EXPLANATIONS[code])
                else:
                    self.do_handle(*accepted)

    # -- the door ----------------------------------------------------------------------------------

    def _refuse(self, client: RawSocket, code: ErrorCode, opening: tls.Opening | None) -> None:
        """Tell a client why it can't come in, and close."""
        lot = self.lot
        lot.refused[code] += 1
        if lot.refusals >= REFUSED_LINGERING:
            _refuse_at_once(client, code, EXPLANATIONS[code])
            return
        # What a proxy says first is dropped with all else; only TLS must come before the refusal.
        connection = Connection(client, lot, opening if self._opening else None)
        connection.leaving = code
        connection.quick = False
        lot.admit(connection)
        lot.refusals += 1
        if self._opening is None:
            spawn_raw(connection.attend)

    def _accept_with_reserve(self, error: OSError) -> None:
        """Out of files: give up the descriptor kept for this, so that a client can be told why."""
        now = time.monotonic()
        if now - self._told_at >= 1:
            self._told_at = now
            log.error("out of file descriptors (%s): refusing clients until some are free", error.strerror)
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1
        try:
            fd, _ = self.socket._accept()  # type: ignore[attr-defined]
            client = RawSocket(self.socket.family, self.socket.type, self.socket.proto, fileno=fd)
            client.setblocking(False)
            self.lot.refused[ErrorCode.SERVER_FULL] += 1
            _refuse_at_once(client, ErrorCode.SERVER_FULL, "the server has no file descriptor left")
        except OSError:
            pass  # it left, or a handler was faster to take the descriptor
        try:
            self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._pause_accepting()

    def _pause_accepting(self) -> None:
        """Look again after ``max_delay`` seconds: the listener stays readable, and must not spin the loop."""
        self.stop_accepting()
        self._timer = self.loop.timer(self.max_delay)
        self._timer.start(self._accept_again)

    def _accept_again(self) -> None:
        try:
            self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._pause_accepting()
        else:
            self.stop_accepting()  # which also ends the timer
            self.start_accepting()


def _readable(listener: Any) -> bool:
    ready = poll()
    ready.register(listener, POLLIN)
    return bool(ready.poll(0))


def _refuse_at_once(client: RawSocket, code: ErrorCode, explanation: str) -> None:
    """Tell a client why it can't come in, as well as that can be done without waiting for it."""
    try:
        client.send(error_reply(code, explanation) + b"\n")
        client.shutdown(SHUT_WR)
        client.recv(READ_BYTES)  # what is left unread at the close would make it a reset
    except OSError:
        pass
    finally:
        client.close()


def _tls_opening(ssl_args: dict[str, Any]) -> tls.Opening | None:
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
    ssl_args.pop("do_handshake_on_connect", None)  # it is done, but not in the accept loop
    return tls.opening(context, **{"server_side": True, **ssl_args})
