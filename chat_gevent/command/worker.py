"""The implementation of :class:`chat_gevent.workers.ChatWorker`: one process under gunicorn's arbiter.

The "application" is a handler, ``(message, client) -> reply``. gunicorn binds, forks, restarts workers
that die, and takes its usual signals (TTIN, TTOU, HUP, USR2); a worker serves with connections of its
own. TLS is gunicorn's ``--certfile`` and ``--keyfile``, and ``--ca-certs`` with ``--cert-reqs 2``. Limits
and time-outs come from the environment (``CHAT_GEVENT_IDLE_TIMEOUT=600``), and hold for each worker; what
is gunicorn's business (where to listen, the handler, the log) or needs ``chat-gevent serve`` is refused.
A worker that is told to stop asks its clients to leave within gunicorn's ``graceful_timeout``.

The workers share gunicorn's listeners, so each new client wakes every worker that is idle. With
``--reuse-port`` each has listeners of its own, and the kernel picks one by the client's address and port:
better for many workers, and each gets about as many clients.

Needs the extra ``workers``.
"""

from __future__ import annotations

import dataclasses
import gc
import os
from typing import Final

import gevent
from gevent.event import Event
from gunicorn.workers.base import Worker

from chat_gevent import tls
from chat_gevent.command import config
from chat_gevent.command.backplane import open_backplane
from chat_gevent.core import Core
from chat_gevent.files import default_max_connections, raise_file_limit
from chat_gevent.listeners import take_no_more
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
        self._settings = _settings()
        self._opening = None
        if self.cfg.is_ssl:
            ca = self.cfg.ca_certs if self.cfg.cert_reqs else ""
            certificates = tls.Certificates(self.cfg.certfile or "", self.cfg.keyfile or "", ca or "")
            self._opening = tls.opening(certificates, server_side=True)
        raise_file_limit()
        super().init_process()

    def run(self) -> None:
        """Serve until the arbiter says stop, or is gone."""
        core = Core(self._settings, self.wsgi)
        open_backplane(self._settings, core)
        servers = [ChatServer(each.sock, core=core, opening=self._opening) for each in self.sockets]
        for server in servers:
            server.max_connections = self._settings.max_connections or default_max_connections()
            if not self.cfg.reuse_port:
                server.max_accept = 1  # all workers wake for a new client: let the one that is free take it
            server.start()
        servers[0].begin_serving()
        gc.freeze()  # without collecting first, which would write to every page that the arbiter shares
        while not self._stop.wait(HEARTBEAT_SECONDS) and self.ppid == os.getppid():
            self.notify()
        for server in servers:
            if self.cfg.reuse_port:  # else others may still want to accept
                take_no_more(server.socket)
            server.accept_waiting()  # the last one to close the listener would reset who waits
            server.close()
        core.stopping(servers[0])
        core.end_kept()
        cut_off = core.drain(0 if self._quick else self.cfg.graceful_timeout * DRAIN_SHARE)
        if cut_off:
            self.log.warning("%d clients were cut off", cut_off)
        core.close()

    def handle_exit(self, sig: int, frame: object) -> None:
        """SIGTERM: drain."""
        self.alive = False
        self._stop.set()

    def handle_quit(self, sig: int, frame: object) -> None:
        """SIGINT and SIGQUIT: at once."""
        self._quick = True
        self.handle_exit(sig, frame)


def _settings() -> config.ServeSettings:
    """A worker's settings. Raises ConfigError: one is wrong, or does nothing in a worker."""
    loaded = config.load({})
    own = {field.name for field in dataclasses.fields(Settings)} | {"backplane", "backplane_prefix"}
    for name, origin in loaded.origins.items():
        if origin != "default" and name not in own:
            raise config.ConfigError(f"{origin}: {name} does nothing in a gunicorn worker")
    return loaded.settings
