"""The process that ``serve`` runs: from settings to a running server, and from a signal to its end.

:class:`ServerProcess` reads top-down: open what is asked for, say ``ready``, wait for signals, drain.
"""

from __future__ import annotations

import gc
import logging
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

import gevent
from gevent.event import Event

from chat_gevent import tls
from chat_gevent.command import logs, observe, signals, standard, systemd
from chat_gevent.command.backplane import open_backplane
from chat_gevent.command.handler import StartError, load_handler
from chat_gevent.command.metrics import LoopLag, TimedHandler
from chat_gevent.core import Core
from chat_gevent.files import default_max_connections
from chat_gevent.listeners import Listener, listen, take_no_more
from chat_gevent.proxy_protocol import Proxies
from chat_gevent.server import ChatServer

if TYPE_CHECKING:
    from chat_gevent.command.admin import Admin
    from chat_gevent.command.config import ServeSettings
    from chat_gevent.command.snapshot import Snapshot, Watched
    from chat_gevent.lifecycle import Lifecycle

EXIT_CUT_OFF: Final = 3

HOUSEKEEPING_SECONDS: Final = 0.5
"""How often loop lag is sampled and held-back log lines are told."""

BACKPLANE_SECONDS: Final = 2.0
"""How long a start waits for the backplane: with Redis there, what is said first reaches the others too."""

log = logging.getLogger("chat_gevent")


class ServerProcess:
    """All that one ``serve`` process consists of. Raises StartError, ListenError, CertificateError."""

    def __init__(self, settings: ServeSettings, repeats: logs.RepeatFilter) -> None:
        self.settings = settings
        self.draining = False
        self._repeats = repeats
        self._asked_to_stop = Event()
        answers = load_handler(settings.handler) if settings.handler else None
        self.certificates = (
            tls.Certificates(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
            if settings.tls_certificate
            else None
        )
        self.lag = LoopLag(HOUSEKEEPING_SECONDS)
        self.listeners: list[Listener] = []
        self.servers: list[ChatServer] = []
        self.admin: Admin | None = None
        try:
            self._listen()
            self.core = Core(settings, answers)
            self.backplane = open_backplane(settings, self.core)
            self.timed_handler = None
            if answers is not None and settings.admin:
                self.timed_handler = self.core.message = TimedHandler(self.core.message)
            self._make_servers()
            if settings.admin:
                self.admin = _admin(self, settings)
        except BaseException:
            self._close_listeners()
            raise

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *error: object) -> None:
        if self.admin is not None:
            self.admin.stop()
        self._close_listeners()

    # -- to start ----------------------------------------------------------------------------------

    def _listen(self) -> None:
        settings = self.settings
        try:
            handed_over = systemd.inherited_sockets()
        except OSError as error:
            raise StartError(str(error)) from None
        for name, inherited in handed_over:
            self.listeners.append(Listener(inherited, self._scheme_of(name, inherited), inherited=True))
        if self.listeners and not settings.listen:
            return  # host and port have defaults, so they don't say that these are wanted as well
        for address in settings.addresses:
            mode = int(settings.unix_mode, 8)
            self.listeners += listen(address, settings, ipv6_only=settings.ipv6_only, unix_mode=mode)

    def _scheme_of(self, name: str, inherited: socket.socket) -> str:
        if name.startswith("tls"):
            if self.certificates is None:
                raise StartError(f"the socket {name!r} that was handed over needs --tls-certificate", 2)
            return "tls"
        return Listener(inherited, "tcp").plain_scheme

    def _make_servers(self) -> None:
        proxies = Proxies(self.settings.proxy_from) if self.settings.proxy_from else None
        for each in self.listeners:
            opening = None
            if each.scheme == "tls" and self.certificates is not None:
                opening = tls.opening(self.certificates, server_side=True)
            self.servers.append(ChatServer(each.socket, core=self.core, opening=opening, proxies=proxies))
        carried = default_max_connections()
        limit = self.settings.max_connections or carried
        if limit > carried:
            log.warning("max_connections is %d, but the limit of open files carries about %d", limit, carried)
        for server in self.servers:
            server.max_connections = limit
        if self.settings.access_log:
            self.core.registry.on_close = self._log_access

    @property
    def max_connections(self) -> int:
        """Most clients at once, over all listeners."""
        return self.servers[0].max_connections

    # -- to run ------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until a signal ends it; returns the exit status."""
        signals.install(self._stop, self._reload)
        if self.backplane is not None:
            self.backplane.start(wait=BACKPLANE_SECONDS)
        for server in self.servers:
            server.start()
        self.servers[0].begin_serving()
        if self.admin is not None:
            self.admin.start()
        urls = " ".join(each.url for each in self.listeners)
        housekeeping = gevent.spawn(self._keep_house)
        log.info("serving %s to at most %d clients", urls, self.max_connections)
        gc.collect()
        gc.freeze()  # what start-up made stays: full collections need not walk it
        _say_ready(urls)
        systemd.notify("READY=1", f"STATUS=serving {urls}")
        self._asked_to_stop.wait()
        status = self._drain()
        housekeeping.kill()
        return status

    # -- what the admin pages ask ------------------------------------------------------------------

    @property
    def backplane_lost(self) -> bool:
        """Whether there is a backplane that broadcasts should reach others by, and do not."""
        return self.backplane is not None and not self.backplane.connected

    def snapshot(self) -> Snapshot:
        """All figures of now."""
        return observe.snapshot(
            self.core,
            connections_limit=self.max_connections,
            lag=self.lag,
            handler=self.timed_handler,
            log_lines_dropped=logs.dropped(),
        )

    def clients(self, after: int, limit: int) -> dict[str, Any]:
        """A page of clients, ready for JSON."""
        return observe.clients(self.core, after, limit)

    # -- signals -----------------------------------------------------------------------------------

    def _stop(self) -> None:
        self._asked_to_stop.set()

    def _reload(self) -> None:
        if self.draining:
            return
        systemd.notify("RELOADING=1", systemd.monotonic_usec())
        if self.certificates is None:
            log.info("SIGHUP: there is no certificate to read again")
        else:
            try:
                self.certificates.reload()
                log.info(
                    "SIGHUP: new connections get the certificate that was read from %s",
                    self.settings.tls_certificate,
                )
            except tls.CertificateError as error:
                log.error("SIGHUP: the old certificate stays: %s", error)
        systemd.notify("READY=1")

    def _keep_house(self) -> None:
        watchdog, due = systemd.watchdog_seconds(), 0.0
        while True:
            self.lag.sample()
            self._repeats.flush()
            due -= HOUSEKEEPING_SECONDS
            if watchdog and due <= 0:
                systemd.notify("WATCHDOG=1")
                due = watchdog

    def _log_access(self, connection: Lifecycle) -> None:
        logs.access(observe.departure(connection))

    # -- to end ------------------------------------------------------------------------------------

    def _drain(self) -> int:
        self.draining = True
        seconds = self.settings.drain_timeout
        core = self.core
        log.info("draining %d clients for at most %g s", core.registry.live, seconds)
        systemd.notify("STOPPING=1", f"STATUS=draining {core.registry.live} clients")
        core.stopping(self.servers[0])
        for listener, server in zip(self.listeners, self.servers, strict=True):
            if not listener.inherited:
                take_no_more(listener.socket)
            server.accept_waiting()
            listener.remove_file()
            server.close()
        self._asked_to_stop.clear()
        core.end_kept()
        drain = gevent.spawn(core.drain, seconds)
        drain.rawlink(lambda _: self._asked_to_stop.set())
        self._asked_to_stop.wait()
        if not drain.ready():
            log.warning("second signal: the drain ends now")
            core.hurry()
        cut_off = drain.get()
        core.close()
        log.info("stopped: %d messages answered, %d clients cut off", core.registry.past_messages, cut_off)
        return EXIT_CUT_OFF if cut_off else 0

    def _close_listeners(self) -> None:
        for each in self.listeners:
            if each.socket.fileno() >= 0:
                each.remove_file()
                each.socket.close()


def _say_ready(urls: str) -> None:
    try:
        # One write, with its LF: the log's thread may write to the same terminal.
        sys.stdout.write(f"ready {urls}\n")
        sys.stdout.flush()
    except OSError as error:  # whoever started it has closed the pipe, and need not want to know
        log.warning("nobody takes the ready line: %s", error.strerror)
        standard.reader_left()


def _admin(watched: Watched, settings: ServeSettings) -> Admin:
    try:
        from chat_gevent.command.admin import Admin
    except ImportError as error:
        raise StartError(f"admin needs {error.name}: pip install 'chat-gevent[admin]'") from None
    return Admin(watched, settings)
