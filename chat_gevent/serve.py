"""The ``serve`` command: from settings to a running server, and from a signal to its end.

:class:`Service` reads top-down: open what is asked for, say ``ready``, wait for signals, drain.

========  =====================================================================================
SIGTERM   drain: accept who waits, answer what was read, tell each client ``shutting-down``; the
SIGINT    second of these signals ends it at once
SIGHUP    read certificate, key and client CA again; nobody is dropped, and bad files change nothing
========  =====================================================================================

Exit status: 0 all clients were dismissed, 1 the server could not start, 2 a setting is wrong, 3 clients
were cut off, with replies still due.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import logging
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import gevent
from gevent.event import Event

from chat_gevent import config, logs, systemd, tls
from chat_gevent.confirm import Handler, confirm
from chat_gevent.files import default_max_connections, raise_file_limit
from chat_gevent.listeners import Listener, ListenError, listen, take_no_more
from chat_gevent.metrics import LoopLag, TimedHandler
from chat_gevent.parking import ParkingLot
from chat_gevent.proxy_protocol import Proxies
from chat_gevent.server import ChatServer

if TYPE_CHECKING:
    from chat_gevent.admin import Admin
    from chat_gevent.config import ServiceSettings
    from chat_gevent.connection import Connection

EXIT_CUT_OFF: Final = 3

HOUSEKEEPING_SECONDS: Final = 0.5
"""How often loop lag is sampled and held-back log lines are told."""

log = logging.getLogger("chat_gevent")


class StartError(Exception):
    """The server can't start; the message says why, and :attr:`status` is the exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` what ``chat-gevent serve`` takes."""
    parser.usage = "%(prog)s [OPTION ...]"
    parser.epilog = (
        "Each setting may also be an environment variable, CHAT_GEVENT_IDLE_TIMEOUT=10m, or a key of the "
        "file, idle_timeout = '10m'. The command line comes before the environment, that before the file. "
        "Times take ms, s, m, h, d; sizes kB, KiB, MB, MiB. SIGTERM drains and stops, SIGHUP reads the "
        "certificate again."
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file of settings, names as below with _ for -")
    parser.add_argument(
        "--print-config", action="store_true", help="print the settings and where each came from, and exit"
    )
    config.add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """``chat-gevent serve``; returns its exit status."""
    options = {name: value for name, value in vars(arguments).items() if name in config.FIELDS}
    try:
        loaded = config.load(options, file=arguments.config)
        if arguments.print_config:
            print(loaded.show())
            return 0
        raise_file_limit()
        repeats = logs.start(loaded.settings.log_level, loaded.settings.log_format)
        try:
            with Service(loaded.settings, repeats) as service:
                return service.run()
        finally:
            logs.stop()
    except config.ConfigError as error:
        return _fail(str(error), 2)
    except StartError as error:
        return _fail(str(error), error.status)
    except (ListenError, tls.CertificateError) as error:
        return _fail(str(error), 1)


def _fail(why: str, status: int) -> int:
    print(f"chat-gevent serve: error: {why}", file=sys.stderr)
    return status


def load_handler(name: str) -> Handler:
    """The function that ``package.module:function`` names, looked for in the current directory too.

    Raises StartError, and whatever the module itself raises when it is run.
    """
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module_name)
        for part in function_name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise StartError(f"handler {name}: {error}", 2) from error
    if not callable(found):
        raise StartError(f"handler {name}: not a function", 2)
    return found


class Service:
    """All that one ``serve`` process consists of. Raises StartError, ListenError, CertificateError."""

    def __init__(self, settings: ServiceSettings, repeats: logs.RepeatFilter) -> None:
        self.settings = settings
        self.stopping = False
        self._repeats = repeats
        self._signals = Event()
        handler = load_handler(settings.handler) if settings.handler else confirm
        self.timed_handler = None if handler is confirm else TimedHandler(handler)
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
            self.lot = ParkingLot(settings, self.timed_handler or confirm)
            self._make_servers()
            if settings.admin:
                self.admin = _admin(self)
        except BaseException:
            self._close_listeners()
            raise

    def __enter__(self) -> Service:
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
            self.servers.append(ChatServer(each.socket, lot=self.lot, opening=opening, proxies=proxies))
        carried = default_max_connections()
        limit = self.settings.max_connections or carried
        if limit > carried:
            log.warning("max_connections is %d, but the limit of open files carries about %d", limit, carried)
        for server in self.servers:
            server.max_connections = limit
        if self.settings.access_log:
            self.lot.on_close = self._log_access

    @property
    def max_connections(self) -> int:
        """Most clients at once, over all listeners."""
        return self.servers[0].max_connections

    # -- to run ------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until a signal ends it; returns the exit status."""
        for number in (signal.SIGINT, signal.SIGTERM):
            gevent.signal_handler(number, self._stop)
        gevent.signal_handler(signal.SIGHUP, self._reload)
        for server in self.servers:
            server.start()
        if self.admin is not None:
            self.admin.start()
        urls = " ".join(each.url for each in self.listeners)
        housekeeping = gevent.spawn(self._keep_house)
        log.info("serving %s to at most %d clients", urls, self.max_connections)
        gc.collect()
        gc.freeze()  # what start-up made stays: full collections need not walk it
        _say_ready(urls)
        systemd.notify("READY=1", f"STATUS=serving {urls}")
        self._signals.wait()
        status = self._drain()
        housekeeping.kill()
        return status

    def log_lines_dropped(self) -> int:
        """Log lines that nobody took in time."""
        return logs.dropped()

    def _stop(self) -> None:
        self._signals.set()

    def _reload(self) -> None:
        if self.stopping:
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

    def _log_access(self, connection: Connection) -> None:
        logs.access(connection, self.lot)

    # -- to end ------------------------------------------------------------------------------------

    def _drain(self) -> int:
        self.stopping = True
        seconds = self.settings.drain_timeout
        log.info("draining %d clients for at most %g s", self.lot.live, seconds)
        systemd.notify("STOPPING=1", f"STATUS=draining {self.lot.live} clients")
        for listener, server in zip(self.listeners, self.servers, strict=True):
            if not listener.inherited:
                take_no_more(listener.socket)
            server.accept_waiting()
            listener.remove_file()
            server.close()
        self._signals.clear()
        drain = gevent.spawn(self.lot.drain, seconds)
        drain.rawlink(lambda _: self._signals.set())
        self._signals.wait()
        if drain.ready():
            cut_off = drain.get()
        else:
            log.warning("second signal: %d clients are cut off", self.lot.live)
            drain.kill()
            cut_off = self.lot.drain(0)
        self.lot.close()
        log.info("stopped: %d messages answered, %d clients cut off", self.lot.past_messages, cut_off)
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
        sys.stdout = None


def _admin(service: Service) -> Admin:
    try:
        from chat_gevent.admin import Admin
    except ImportError as error:
        raise StartError(f"admin needs {error.name}: pip install 'chat-gevent[admin]'") from None
    return Admin(service)
