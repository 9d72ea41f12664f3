"""The implementation of :class:`chat_gevent.workers.ChatWorker`: one process under gunicorn's arbiter.

The "application" is a handler, ``(message, client) -> reply``. gunicorn binds, forks, restarts workers
that die, and takes its usual signals (TTIN, TTOU, HUP, USR2); a worker serves with connections of its
own. What gunicorn's options for TLS, proxies and limits mean here is in
:mod:`chat_gevent.command.worker_options`. Other limits and time-outs come from the environment
(``CHAT_GEVENT_IDLE_TIMEOUT=600``), and hold for each worker; what is gunicorn's business (where to listen,
the handler, the log) or needs ``chat-gevent serve`` is refused. A worker that is told to stop asks its
clients to leave within gunicorn's ``graceful_timeout``.

The workers share gunicorn's listeners, so each new client wakes every worker that is idle. With
``--reuse-port`` each has listeners of its own, and the kernel picks one by the client's address and port:
better for many workers, and each gets about as many clients.

Needs the extra ``workers``.
"""

from __future__ import annotations

import dataclasses
import gc
import os
from typing import Any, Final

import gevent
from gevent.event import Event
from gunicorn.workers.base import Worker

from chat_gevent.command import config, worker_options
from chat_gevent.command.backplane import open_backplane
from chat_gevent.core import Core
from chat_gevent.errors import CertificateError
from chat_gevent.files import default_max_connections, raise_file_limit
from chat_gevent.listeners import await_handshakes, take_no_more
from chat_gevent.outgoing import Opening
from chat_gevent.server import ChatServer
from chat_gevent.settings import Settings

HEARTBEAT_SECONDS: Final = 1.0
"""How often the arbiter is told that the worker's loop runs; it must be less than gunicorn's ``timeout``."""

DRAIN_SHARE: Final = 0.9
"""Part of ``graceful_timeout`` to drain in: at its end the arbiter kills the worker."""


class ChatWorker(Worker):  # type: ignore[misc]  # gunicorn has no types
    """Serves the listeners that gunicorn bound, in one process."""

    def init_process(self) -> None:
        """Read the settings, then run. What this raises stops the arbiter, rather than have it try again.

        Raises ConfigError, CertificateError.
        """
        gevent.reinit()
        self._stop = Event()
        self._quick = False
        self._settings, self._opening = _checked(self.cfg)
        self._proxies = worker_options.proxies(self.cfg)
        raise_file_limit()
        super().init_process()

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Called by the arbiter before it starts workers. Raises RuntimeError, which it prints, and ends."""
        try:
            _checked(cfg)
        except (config.ConfigError, CertificateError) as error:
            raise RuntimeError(str(error)) from None

    def run(self) -> None:
        """Serve until the arbiter says stop, or is gone."""
        core = Core(self._settings, self.wsgi)
        open_backplane(self._settings, core)
        servers = [
            ChatServer(each.sock, core=core, opening=self._opening, proxies=self._proxies)
            for each in self.sockets
        ]
        servers[0].begin_serving()
        most = self._settings.max_connections or worker_options.worker_connections(self.cfg)
        for server in servers:
            server.max_connections = most or default_max_connections()
            if not self.cfg.reuse_port:
                server.max_accept = 1  # all workers wake for a new client: let the one that is free take it
            server.start()
        gc.freeze()  # without collecting first, which would write to every page that the arbiter shares
        while self.alive and not self._stop.wait(HEARTBEAT_SECONDS) and self.ppid == os.getppid():
            self.notify()
        beating = gevent.spawn(self._beat)  # while it drains, too: the arbiter kills who is silent
        own = [each.socket for each in servers] if self.cfg.reuse_port else []  # else others still accept
        for each in own:
            take_no_more(each)
        await_handshakes(own, core.registry.live)
        for server in servers:
            server.accept_waiting()  # the last one to close the listener would reset who waits
            server.close()
        core.stopping(servers[0])
        core.end_kept()
        cut_off = core.drain(0 if self._quick else self.cfg.graceful_timeout * DRAIN_SHARE)
        if cut_off:
            self.log.warning("%d clients were cut off", cut_off)
        core.close()
        beating.kill()

    def _beat(self) -> None:
        while True:
            self.notify()
            gevent.sleep(HEARTBEAT_SECONDS)

    def handle_exit(self, sig: int, frame: object) -> None:
        """SIGTERM: drain."""
        self.alive = False
        self._stop.set()

    def handle_quit(self, sig: int, frame: object) -> None:
        """SIGINT and SIGQUIT: at once."""
        self._quick = True
        self.handle_exit(sig, frame)


def _checked(cfg: Any) -> tuple[config.ServeSettings, Opening | None]:
    """Settings and TLS as environment and options ask. Raises ConfigError, CertificateError."""
    worker_options.check(cfg)
    return _settings(), worker_options.opening(cfg)


def _settings() -> config.ServeSettings:
    """A worker's settings. Raises ConfigError: one is wrong, or does nothing in a worker."""
    loaded = config.load({})
    own = {field.name for field in dataclasses.fields(Settings)} | {"backplane", "backplane_prefix"}
    for name, origin in loaded.origins.items():
        if origin != "default" and name not in own:
            raise config.ConfigError(f"{origin}: {name} does nothing in a gunicorn worker")
    return loaded.settings
