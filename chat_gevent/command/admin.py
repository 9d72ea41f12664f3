"""The admin pages over HTTP: what an operator's tools ask a running server.

===========  ===================================================================================
/            a page to look at, which renews itself (:mod:`chat_gevent.command.page`)
/metrics     counters for Prometheus; made for a part of the time only, however many ask (``command.paced``)
/healthz     200 while the process serves at all
/readyz      200 while new clients are welcome, 503 while the server drains; a lost backplane is said, and
             is a 503 only with the setting ``backplane_required``: a balancer that asks this page would
             otherwise take all servers out at once because of one Redis, though each serves its clients
/clients     who is connected, as JSON, in pages: ``?limit=`` (100, at most 1,000) and ``?after=``
             (``next`` of the page before); ordered by id, which a later client may get again
/status.json what the status page shows (:mod:`chat_gevent.command.status`); ``?after=`` leaves out older
             values of the last ten minutes
===========  ===================================================================================

The pages share the event loop with the clients, so there are bounds: :data:`MOST_CONNECTIONS`,
:data:`MOST_REQUESTS` for metrics and clients at once, :data:`REQUEST_SECONDS` from the connect to the last
byte read, one request a connection, no request body. ``/healthz`` and ``/readyz`` wait for none of the
others: where all connections are taken, those that have asked nothing for :data:`SILENT_SECONDS` are closed.

They listen on the loopback interface unless the operator names another one. A browser can be made to ask
them by a name of an attacker's that leads here, so all but the health pages answer only where the Host header
is the address that was connected to, a loopback name, or one of the setting ``admin_hosts``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

import gevent
from gevent.lock import BoundedSemaphore
from gevent.server import StreamServer

from chat_gevent.command import exposition, page, status
from chat_gevent.command.paced import Paced

if TYPE_CHECKING:
    import socket

    from chat_gevent.command.config import ServeSettings
    from chat_gevent.command.overview import Overview
    from chat_gevent.listeners import Listener

MOST_REQUESTS: Final = 16
MOST_CONNECTIONS: Final = 256
SILENT_SECONDS: Final = 0.5
LOOPBACK: Final = frozenset(("localhost", "127.0.0.1", "[::1]"))
REQUEST_SECONDS: Final = 10.0
LINGER_SECONDS: Final = 1.0
"""Most seconds that a client is given after that to close as well."""
LAST_SECONDS: Final = 1.0
"""Most seconds that requests under way are given when the process ends."""
HEALTH_PAGES: Final = ("/healthz", "/readyz")
PAGE: Final = 100
MOST_PER_PAGE: Final = 1000

MOST_UNREAD: Final = 2**20
"""Most bytes of a refused request's body that are read and dropped, so that the refusal arrives."""

log = logging.getLogger("chat_gevent")


class Admin:
    """The admin pages, of one process or of all workers, at ``listener``."""

    def __init__(self, overview: Overview, settings: ServeSettings, listener: Listener) -> None:
        self.listener = listener
        self._overview = overview
        metrics = exposition.registry(overview)
        self._metrics: Paced[str, tuple[str, bytes]] = Paced(
            lambda accept: exposition.expose(metrics, accept), overview.refresh
        )
        self._status: Paced[float | str | None, bytes] = Paced(self._look, overview.look)
        self._backplane_required = settings.backplane_required
        self._hosts = LOOPBACK | frozenset(settings.admin_hosts)
        self.places = BoundedSemaphore(MOST_REQUESTS)
        self.silent: dict[
            socket.socket, float
        ] = {}  # connections that have asked nothing yet, and since when
        self._server = StreamServer(self.listener.socket, self._handle, spawn=MOST_CONNECTIONS)
        self._server.max_accept = 4  # the clients of the server have their turn in between
        self._sweeper: gevent.Greenlet[[], None] | None = None

    def start(self) -> None:
        """Answer from now on."""
        self.listener.socket.setblocking(False)
        self._server.start()
        self._overview.start()
        self._sweeper = gevent.spawn(self._close_silent)

    def leave(self) -> None:
        """Leave further requests to other processes that hold the listener; those under way are answered."""
        self._server.close()

    def stop(self) -> None:
        """Answer no more; requests under way have :data:`LAST_SECONDS`."""
        if self._sweeper is not None:
            self._sweeper.kill()
        self._server.close()
        self._close_those_silent_since(time.monotonic())
        self._server.stop(LAST_SECONDS)
        self._overview.stop()

    def _close_silent(self) -> None:
        while True:
            gevent.sleep(SILENT_SECONDS / 4)
            if len(self.silent) < MOST_CONNECTIONS // 2:
                continue
            self._close_those_silent_since(time.monotonic() - SILENT_SECONDS)

    def _close_those_silent_since(self, oldest: float) -> None:
        for each, since in list(self.silent.items()):
            if since < oldest:
                with contextlib.suppress(OSError):
                    each.shutdown(2)  # its greenlet sees the end of the stream

    def knows_host(self, given: str | None, client: socket.socket) -> bool:
        """Whether a Host header is one that only who was told of this server would send; none is fine."""
        if given is None:
            return True
        name = re.sub(r":[0-9]*$", "", given.strip(" \t").lower()).removesuffix(".")
        here = client.getsockname()[0].removeprefix("::ffff:")
        return name in self._hosts or name == (f"[{here}]" if ":" in here else here)

    def _handle(self, client: socket.socket, address: Any) -> None:
        with gevent.Timeout(REQUEST_SECONDS, False):  # type: ignore[arg-type]  # False: end silently
            self.silent[client] = time.monotonic()
            try:
                _Request(client, address, self)
            except OSError as error:
                log.debug("admin client lost: %s", error)
            except Exception:
                log.exception("an admin request failed")
            finally:
                self.silent.pop(client, None)

    def _look(self, wanted: float | str | None) -> bytes:
        """The page at "/" where that is wanted, or ``/status.json`` with the history after that time."""
        if wanted == "/":
            return page.render(status.page(self._overview, None)).encode()
        assert not isinstance(wanted, str)
        return _json(status.page(self._overview, wanted))

    def answer(self, target: str, accept: str) -> tuple[HTTPStatus, str, bytes]:
        """The status, content type and body for the request of ``target``."""
        try:
            url = urlsplit(target)
        except ValueError as error:
            return HTTPStatus.BAD_REQUEST, "text/plain", f"{error}\n".encode()
        if url.path == "/metrics":
            return HTTPStatus.OK, *self._metrics.get(accept)
        if url.path == "/healthz":
            return HTTPStatus.OK, "text/plain", b"ok\n"
        if url.path == "/readyz":
            return self._readiness()
        if url.path == "/clients":
            asked = {name: values[-1] for name, values in parse_qs(url.query).items()}
            try:
                limit, after = int(asked.get("limit", PAGE)), int(asked.get("after", -1))
            except ValueError:
                limit = 0
            if not 1 <= limit <= MOST_PER_PAGE or after < -1:
                problem = f"limit must be 1 to {MOST_PER_PAGE}, after a number\n"
                return HTTPStatus.BAD_REQUEST, "text/plain", problem.encode()
            return HTTPStatus.OK, "application/json", _json(self._overview.clients(after, limit))
        if url.path == "/status.json":
            asked = {name: values[-1] for name, values in parse_qs(url.query).items()}
            try:
                after_time = float(asked["after"]) if "after" in asked else None
            except ValueError:
                after_time = math.nan
            if after_time is not None and not math.isfinite(after_time):
                return HTTPStatus.BAD_REQUEST, "text/plain", b"after must be a time in seconds\n"
            return HTTPStatus.OK, "application/json", self._status.get(after_time)
        if url.path == "/":
            return HTTPStatus.OK, "text/html; charset=utf-8", self._status.get("/")
        return HTTPStatus.NOT_FOUND, "text/plain", b"/ /metrics /healthz /readyz /clients /status.json\n"

    def _readiness(self) -> tuple[HTTPStatus, str, bytes]:
        ready, word = self._overview.readiness()
        if ready and self._overview.watched.backplane_lost:
            ready, word = not self._backplane_required, "backplane lost"
        code = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return code, "text/plain", f"{word}\n".encode()


def _json(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


class _Request(BaseHTTPRequestHandler):
    """One request; http.server parses it, and limits its line and headers."""

    server_version = "chat_gevent"
    sys_version = ""
    protocol_version = "HTTP/1.1"

    def __init__(self, client: Any, address: Any, admin: Admin) -> None:
        self._admin = admin
        super().__init__(client, address, admin)  # type: ignore[arg-type]  # it handles the request

    def do_GET(self) -> None:
        """Answer, and close."""
        self.close_connection = True
        self._admin.silent.pop(self.connection, None)
        has_body = self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers
        if has_body:
            self._reply(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "text/plain", b"a request has no body here\n")
        elif self.path in HEALTH_PAGES:
            self._reply(*self._answer(""))
        elif not self._admin.knows_host(self.headers.get("Host"), self.connection):
            refusal = b"not the address of this page, nor a name of the setting admin_hosts\n"
            self._reply(HTTPStatus.MISDIRECTED_REQUEST, "text/plain", refusal)
        else:
            with self._admin.places:
                gevent.sleep(0.001)  # clients of the server have their turn between two of these
                self._reply(*self._answer(self.headers.get("Accept", "")))

    def _answer(self, accept: str) -> tuple[HTTPStatus, str, bytes]:
        try:
            return self._admin.answer(self.path, accept)
        except Exception:  # no file is left to read figures from, maybe
            log.exception("the admin page %s failed", self.path[:100])
            return HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b"this page failed; the log says why\n"

    def _reply(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", page.POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Only questions are answered here."""
        self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)
        self.close_connection = True

    do_PUT = do_DELETE = do_PATCH = do_POST

    def finish(self) -> None:
        """End the output, and drop a bounded rest of the input: unread, it would make the close a reset."""
        super().finish()
        self.connection.shutdown(1)
        unread = 0
        with gevent.Timeout(LINGER_SECONDS, False):  # type: ignore[arg-type]  # the request's has run out, maybe
            while unread < MOST_UNREAD and (data := self.connection.recv(65536)):
                unread += len(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are no event for the log."""
        log.debug("admin %s: " + format, self.client_address, *arguments)
