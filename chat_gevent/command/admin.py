"""The HTTP side door: what an operator's tools ask a running server.

===========  ===================================================================================
/metrics     counters for Prometheus
/healthz     200 while the process serves at all
/readyz      200 while new clients are welcome, 503 while the server drains
/clients     who is connected, as JSON, in pages: ``?limit=`` (100, at most 1,000) and ``?after=``
             (``next`` of the page before); ordered by id, which a later client may get again
===========  ===================================================================================

It shares the event loop with the clients, so it is kept on a short lead: :data:`MOST_REQUESTS` at once,
:data:`REQUEST_SECONDS` from the connect to the last byte read, one request a connection, no request body.
It listens on the loopback interface unless the operator names another one.
"""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

import gevent
from gevent.server import StreamServer

from chat_gevent.command import exposition
from chat_gevent.listeners import listen, split_host_port

if TYPE_CHECKING:
    import socket

    from chat_gevent.command.config import ServeSettings
    from chat_gevent.command.snapshot import Watched

MOST_REQUESTS: Final = 16
REQUEST_SECONDS: Final = 10.0
LINGER_SECONDS: Final = 1.0
"""Most seconds that a client is given after that to close as well."""
PAGE: Final = 100
MOST_PER_PAGE: Final = 1000

MOST_UNREAD: Final = 2**20
"""Most bytes of a refused request's body that are read and dropped, so that the refusal arrives."""

log = logging.getLogger("chat_gevent")


class Admin:
    """The side door of one service. Raises ListenError."""

    def __init__(self, watched: Watched, settings: ServeSettings) -> None:
        host, port = split_host_port(settings.admin)
        host = f"[{host}]" if ":" in host else host or "127.0.0.1"
        listeners = listen(f"tcp://{host}:{port}", settings)
        for unwanted in listeners[1:]:  # a name with several addresses
            unwanted.socket.close()
        self.listener = listeners[0]
        self._watched = watched
        self._metrics = exposition.registry(watched)
        self._server = StreamServer(self.listener.socket, self._handle, spawn=MOST_REQUESTS)

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.listener.url.replace("tcp", "http", 1)

    def start(self) -> None:
        """Answer from now on."""
        self.listener.socket.setblocking(False)
        self._server.start()
        log.info("admin pages at %s", self.url)

    def stop(self) -> None:
        """Answer no more; requests under way are cut off."""
        self._server.stop(0)

    def _handle(self, client: socket.socket, address: Any) -> None:
        with gevent.Timeout(REQUEST_SECONDS, False):  # type: ignore[arg-type]  # False: end silently
            try:
                _Request(client, address, self)
            except OSError as error:
                log.debug("admin client lost: %s", error)

    def answer(self, target: str, accept: str) -> tuple[HTTPStatus, str, bytes]:
        """The status, content type and body for the request of ``target``."""
        try:
            url = urlsplit(target)
        except ValueError as error:
            return HTTPStatus.BAD_REQUEST, "text/plain", f"{error}\n".encode()
        if url.path == "/metrics":
            return HTTPStatus.OK, *exposition.expose(self._metrics, accept)
        if url.path == "/healthz":
            return HTTPStatus.OK, "text/plain", b"ok\n"
        if url.path == "/readyz":
            if self._watched.draining:
                return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"draining\n"
            return HTTPStatus.OK, "text/plain", b"ready\n"
        if url.path == "/clients":
            asked = {name: values[-1] for name, values in parse_qs(url.query).items()}
            try:
                limit, after = int(asked.get("limit", PAGE)), int(asked.get("after", -1))
            except ValueError:
                limit = 0
            if not 1 <= limit <= MOST_PER_PAGE or after < -1:
                problem = f"limit must be 1 to {MOST_PER_PAGE}, after a number\n"
                return HTTPStatus.BAD_REQUEST, "text/plain", problem.encode()
            return (
                HTTPStatus.OK,
                "application/json",
                json.dumps(self._watched.clients(after, limit)).encode() + b"\n",
            )
        known = b"/metrics /healthz /readyz /clients\n"
        return (HTTPStatus.OK if url.path == "/" else HTTPStatus.NOT_FOUND), "text/plain", known


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
        has_body = self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers
        if has_body:
            answer = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "text/plain", b"a request can't have a body here\n"
        else:
            answer = self._admin.answer(self.path, self.headers.get("Accept", ""))
        status, content_type, body = answer
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
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
