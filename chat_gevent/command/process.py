"""The process that ``serve`` runs: from settings to a running server, and from a signal to its end.

:class:`ServerProcess` reads top-down: open what is asked for, say ``ready``, wait for signals, drain.
"""

from __future__ import annotations

import gc
import logging
import sys
from typing import TYPE_CHECKING, Any, Final

import gevent
from gevent.event import Event

from chat_gevent import tls
from chat_gevent.command import logs, observe, signals, standard, systemd
from chat_gevent.command.backplane import open_backplane
from chat_gevent.command.blocking import HeldLoop
from chat_gevent.command.handler import StartError, load_handler
from chat_gevent.command.listening import close_listeners, read_certificates
from chat_gevent.command.metrics import LoopLag, TimedHandler
from chat_gevent.command.overview import Overview
from chat_gevent.core import Core
from chat_gevent.errors import CertificateError
from chat_gevent.files import connection_bounds
from chat_gevent.listeners import Listener, await_handshakes, take_no_more
from chat_gevent.proxy_protocol import Proxies
from chat_gevent.server import ChatServer

if TYPE_CHECKING:
    from chat_gevent.command.admin import Admin
    from chat_gevent.command.config import ServeSettings
    from chat_gevent.command.snapshot import Snapshot
    from chat_gevent.lifecycle import Lifecycle

EXIT_NOT_SERVING: Final = 1
EXIT_CUT_OFF: Final = 3

HOUSEKEEPING_SECONDS: Final = 0.5
"""How often loop lag is sampled and held-back log lines are told."""

BACKPLANE_SECONDS: Final = 2.0
"""How long a start waits for the backplane: with Redis there, what is said first reaches the others too."""

log = logging.getLogger("chat_gevent")


class ServerProcess:
    """All that one ``serve`` process consists of.

    :param listeners: where it serves; it closes them.
    :param admin_listener: where its admin pages are, if there are any.
    :param certificates: those that the settings name; read here unless given.

    Raises StartError, CertificateError.
    """

    def __init__(
        self,
        settings: ServeSettings,
        repeats: logs.RepeatFilter,
        listeners: list[Listener],
        admin_listener: Listener | None = None,
        certificates: tls.Certificates | None = None,
    ) -> None:
        self.settings = settings
        self.listeners = listeners
        self._urls: list[str] = []  # of the listeners
        self._lost: list[str] = []  # of those that others have shut down
        self._stopping = self._leaving = self._hurried = False
        self._repeats = repeats
        self._asked_to_stop = Event()
        self.lag = LoopLag(HOUSEKEEPING_SECONDS)
        self.servers: list[ChatServer] = []
        self.admin: Admin | None = None
        try:
            answers = load_handler(settings.handler) if settings.handler else None
            self.certificates = certificates or read_certificates(settings)
            self.core = Core(settings, answers)
            self.backplane = open_backplane(settings, self.core)
            self.timed_handler = None
            if answers is not None and settings.admin:
                self.timed_handler = self.core.message = TimedHandler(self.core.message)
            self._make_servers()
            if admin_listener is not None:
                self.admin = _admin(self, admin_listener)
        except BaseException:
            close_listeners(self.listeners)
            raise

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *error: object) -> None:
        if self.admin is not None:
            self.admin.stop()
        close_listeners(self.listeners)

    # -- to start ----------------------------------------------------------------------------------

    def _make_servers(self) -> None:
        proxies = Proxies(self.settings.proxy_from) if self.settings.proxy_from else None
        for each in self.listeners:
            opening = None
            if each.scheme == "tls" and self.certificates is not None:
                opening = tls.opening(self.certificates, server_side=True)
            self.servers.append(ChatServer(each.socket, core=self.core, opening=opening, proxies=proxies))
        limit = self._most_connections()
        for server in self.servers:
            server.max_connections = limit
        if self.settings.access_log:
            self.core.registry.on_close = self._log_access

    def _most_connections(self) -> int:
        return most_connections(self.settings)

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
        self._watch_signals()
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
        housekeeping = gevent.spawn(self._keep_house)
        self._announce()
        self._asked_to_stop.wait()
        status = self._drain()
        housekeeping.kill()
        return status

    def _watch_signals(self) -> None:
        signals.install(self._stop, self._reload)

    def _announce(self) -> None:
        """Tell whoever started it that it serves."""
        urls = " ".join(self._urls)
        if self.admin is not None:
            log.info("admin pages at %s", self.admin.listener.http_url)
        log.info("serving %s to at most %d clients", urls, self.max_connections)
        gc.collect()
        gc.freeze()  # what start-up made stays: full collections need not walk it
        say_ready(urls)
        systemd.notify("READY=1", f"STATUS=serving {urls}")

    # -- what the admin pages ask ------------------------------------------------------------------

    def overview(self) -> Overview:
        """What its admin pages show."""
        return Overview(self, self.core)

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
        if not self._leaving:
            self._asked_to_stop.set()
        elif not self._hurried:
            self._hurried = True
            log.warning("second signal: the drain ends now")
            self.core.hurry()

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
        self._watchdog = systemd.Watchdog()
        while True:
            self._beat()
            self.lag.sample()
            self._repeats.flush()
            self._look_after_listeners()

    def _beat(self) -> None:
        """Say that the event loop runs, every :data:`HOUSEKEEPING_SECONDS` if it does."""
        self._watchdog.feed(self.lag.interval)

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
        self._leaving = True  # from here on a signal is the second one, whatever is waited for
        log.info("draining %d clients for at most %g s", core.registry.live, seconds)
        return self._end(seconds)

    def _end(self, seconds: float) -> int:
        """Have all clients leave within so many seconds; returns the exit status."""
        core = self.core
        core.stopping(self.servers[0])
        self._stop_listening()
        core.end_kept()
        self._before_drain()
        cut_off = core.drain(seconds)
        core.close()
        self._tell_end(core.registry.past_messages, cut_off)
        if len(self._lost) == len(self._urls):
            return EXIT_NOT_SERVING
        return EXIT_CUT_OFF if cut_off else 0

    def _before_drain(self) -> None:
        """Called when nobody is accepted any more, and nobody has been told to leave."""

    def _tell_end(self, messages: int, cut_off: int) -> None:
        log.info("stopped: %d messages answered, %d clients cut off", messages, cut_off)

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


def most_connections(settings: ServeSettings, workers: int = 1, files: int | None = None) -> int:
    """Most clients at once, of all workers, by the settings, or else by what carries the fewest.

    :param files: that each worker has open beside those of clients; as many as this process now unless given.
    """
    bounds = connection_bounds(files)
    bounds["the limit of open files"] *= workers  # which each has for itself
    narrowest = min(bounds, key=lambda name: bounds[name])
    carried = bounds[narrowest]
    limit = settings.max_connections or carried
    if limit > carried:
        log.warning("max_connections is %d, but %s carries about %d", limit, narrowest, carried)
    return limit


def say_ready(urls: str) -> None:
    """Print the line that says where clients are served, if anybody takes it."""
    try:
        # One write, with its LF: the log's thread may write to the same terminal.
        sys.stdout.write(f"ready {urls}\n")
        sys.stdout.flush()
    except OSError as error:  # whoever started it has closed the pipe, and need not want to know
        log.warning("nobody takes the ready line: %s", error.strerror)
        standard.reader_left()


def _admin(process: ServerProcess, listener: Listener) -> Admin:
    try:
        from chat_gevent.command.admin import Admin
    except ImportError as error:
        raise StartError(f"admin needs {error.name}: pip install 'chat-gevent[admin]'") from None
    return Admin(process.overview(), process.settings, listener)
