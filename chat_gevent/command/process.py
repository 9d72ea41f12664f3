"""The process that ``serve`` runs: from settings to a running server, and from a signal to its end.

:class:`ServerProcess` reads top-down: open what is asked for, say ``ready``, wait for signals, drain.
"""

from __future__ import annotations

import gc
import ipaddress
import logging
import socket
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import gevent
import gevent.socket
from gevent.event import Event

from chat_gevent import tls
from chat_gevent.command import logs, observe, signals, standard, systemd
from chat_gevent.command.backplane import open_backplane
from chat_gevent.command.blocking import HeldLoop
from chat_gevent.command.handler import StartError, load_handler
from chat_gevent.command.metrics import LoopLag, TimedHandler
from chat_gevent.core import Core
from chat_gevent.errors import CertificateError, ListenError
from chat_gevent.files import connection_bounds
from chat_gevent.listeners import Listener, await_handshakes, listen, take_no_more
from chat_gevent.proxy_protocol import Proxies
from chat_gevent.server import ChatServer

if TYPE_CHECKING:
    from chat_gevent.command.admin import Admin
    from chat_gevent.command.config import ServeSettings
    from chat_gevent.command.snapshot import Snapshot, Watched
    from chat_gevent.lifecycle import Lifecycle

EXIT_NOT_SERVING: Final = 1
EXIT_CUT_OFF: Final = 3

UNIX_MODE: Final = "0660"
"""Permissions of a UNIX socket's file, unless others are set: its owner and group may connect."""

NAME_SECONDS: Final = 1.0
"""How long the start waits for the address of this machine's own name."""

HOUSEKEEPING_SECONDS: Final = 0.5
"""How often loop lag is sampled and held-back log lines are told."""

BACKPLANE_SECONDS: Final = 2.0
"""How long a start waits for the backplane: with Redis there, what is said first reaches the others too."""

log = logging.getLogger("chat_gevent")


class ServerProcess:
    """All that one ``serve`` process consists of.

    :param by_default: whether nobody has said where to listen.

    Raises StartError, ListenError, CertificateError.
    """

    def __init__(
        self, settings: ServeSettings, repeats: logs.RepeatFilter, *, by_default: bool = False
    ) -> None:
        self.settings = settings
        self._urls: list[str] = []  # of the listeners
        self._lost: list[str] = []  # of those that others have shut down
        self._stopping = False
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
            self._listen(by_default)
            self.core = Core(settings, answers)
            self.backplane = open_backplane(settings, self.core)
            self.timed_handler = None
            if answers is not None and settings.admin:
                self.timed_handler = self.core.message = TimedHandler(self.core.message)
            self._make_servers()
            if settings.admin:
                self.admin = _admin(self, self.core, settings)
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

    def _listen(self, by_default: bool) -> None:
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
            mode = int(settings.unix_mode or UNIX_MODE, 8)
            self.listeners += listen(address, settings, ipv6_only=settings.ipv6_only, unix_mode=mode)
        if by_default and self.certificates is None:
            self._listen_at_own_name()

    def _listen_at_own_name(self) -> None:
        """Listen also where a client of the seed looks for its own machine, if that is a loopback address.

        It connects to ``gethostbyname(gethostname())``, which is 127.0.1.1 on Debian and Ubuntu as they come.
        """
        name = socket.gethostname()
        try:
            found = gevent.with_timeout(NAME_SECONDS, gevent.socket.gethostbyname, name, timeout_value="")
        except (OSError, UnicodeError):
            found = ""
        port = self.listeners[0].socket.getsockname()[1]
        if not found or found == self.settings.host:
            return
        if not ipaddress.IPv4Address(found).is_loopback:
            log.info("for clients that look for this machine by its name, %s: serve --host %s", name, found)
            return
        try:
            self.listeners += listen(f"tcp://{found}:{port}", self.settings)
        except ListenError as error:
            log.warning("clients that look for this machine by its name, %s, find nobody: %s", name, error)

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
        bounds = connection_bounds()
        narrowest = min(bounds, key=lambda name: bounds[name])
        carried = bounds[narrowest]
        limit = self.settings.max_connections or carried
        if limit > carried:
            log.warning("max_connections is %d, but %s carries about %d", limit, narrowest, carried)
        for server in self.servers:
            server.max_connections = limit
        if self.settings.access_log:
            self.core.registry.on_close = self._log_access

    @property
    def draining(self) -> bool:
        """Whether it should get no more clients: it stops, or a listener has ended."""
        return self._stopping or bool(self._lost)

    @property
    def max_connections(self) -> int:
        """Most clients at once, over all listeners."""
        return self.servers[0].max_connections

    # -- to run ------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until a signal ends it; returns the exit status."""
        with HeldLoop(self.settings.max_blocking_time if self.settings.handler else 0):
            return self._serve()

    def _serve(self) -> int:
        signals.install(self._stop, self._reload)
        if self.backplane is not None:
            self.backplane.start(wait=BACKPLANE_SECONDS)
        self.servers[0].begin_serving()
        try:
            for server in self.servers:
                server.start()
        except OSError as error:
            raise StartError(f"can't serve: {error.strerror or error}") from None
        if self.admin is not None:
            self.admin.start()
        self._urls = [each.url for each in self.listeners]
        urls = " ".join(self._urls)
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
        if self._stopping:
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
            except CertificateError as error:
                log.error("SIGHUP: the old certificate stays: %s", error)
        systemd.notify("READY=1")

    def _keep_house(self) -> None:
        watchdog = systemd.watchdog_seconds()
        due = monotonic()
        while True:
            # By the clock, because a round takes longer where the loop is late.
            if watchdog and monotonic() + self.lag.interval > due:
                systemd.notify("WATCHDOG=1")
                due = monotonic() + watchdog
            self.lag.sample()
            self._repeats.flush()
            self._look_after_listeners()

    def _look_after_listeners(self) -> None:
        """Find listeners that do not listen any more. Where none is left, stop."""
        if self._stopping:
            return
        for url, server in zip(self._urls, self.servers, strict=True):
            if url not in self._lost and not server.listens():
                self._lost.append(url)
                log.error("nobody can connect to %s any more: another process has shut it down", url)
        if len(self._lost) == len(self._urls):
            log.error("no listener is left: the server stops")
            self._stop()

    def _log_access(self, connection: Lifecycle) -> None:
        logs.access(observe.departure(connection))

    # -- to end ------------------------------------------------------------------------------------

    def _drain(self) -> int:
        self._stopping = True
        delay, seconds = self.settings.drain_delay, self.settings.drain_timeout
        core = self.core
        systemd.notify("STOPPING=1", f"STATUS=draining {core.registry.live} clients")
        self._asked_to_stop.clear()
        if delay:
            log.info("draining in %g s; until then clients are admitted", delay)
            if self._asked_to_stop.wait(delay):
                log.warning("second signal: the drain begins now")
        log.info("draining %d clients for at most %g s", core.registry.live, seconds)
        core.stopping(self.servers[0])
        self._stop_listening()
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
        if len(self._lost) == len(self._urls):
            return EXIT_NOT_SERVING
        return EXIT_CUT_OFF if cut_off else 0

    def _stop_listening(self) -> None:
        """Close the listeners; who has connected, or is about to, is accepted before."""
        listening = [pair for pair in zip(self.listeners, self.servers, strict=True) if not pair[1].closed]
        own = [listener.socket for listener, _ in listening if not listener.inherited]
        for each in own:
            take_no_more(each)
        await_handshakes(own, self.core.registry.live)
        for listener, server in listening:
            listener.remove_file()
            server.accept_waiting()
            server.close()

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


def _admin(watched: Watched, core: Core, settings: ServeSettings) -> Admin:
    try:
        from chat_gevent.command.admin import Admin
        from chat_gevent.command.overview import Overview
    except ImportError as error:
        raise StartError(f"admin needs {error.name}: pip install 'chat-gevent[admin]'") from None
    return Admin(Overview(watched, core), settings)
