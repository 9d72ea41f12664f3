"""Any bytes at the admin pages get one HTTP response or none, and only who names the address sees a secret.

The request goes over a real TCP connection to the code that serves the pages; behind it is a real server with
a client, whose address is what must not be told.
"""

from __future__ import annotations

import functools
import re
import socket
from typing import Any, Final
from unittest import mock

import gevent
from gevent import socket as gevent_socket

from chat_gevent.command import listening
from chat_gevent.command.admin import Admin
from chat_gevent.command.config import ServeSettings
from chat_gevent.command.overview import Overview
from chat_gevent.command.snapshot import Snapshot
from chat_gevent.core import Core
from tests.chat_gevent.command.figures import figures
from tests.faults.fuzz.choices import Choices

SECRET: Final = "192.0.2.77:4321"
STATUSES: Final = {200, 400, 404, 405, 408, 413, 414, 421, 431, 501, 503, 505}
"""What is answered; none of them is a failure of the server (503 is ``/readyz``, which says so itself)."""


class _Watched:
    """A process that serves one client."""

    draining = False
    backplane_lost = False

    def snapshot(self) -> Snapshot:
        """The figures of a server that has done nothing."""
        return figures()

    def clients(self, after: int, limit: int) -> dict[str, Any]:
        """The client whose address nobody may see."""
        assert 1 <= limit <= 1000
        return {"total": 1, "clients": [{"address": SECRET}], "next": None}


@functools.cache
def pages() -> tuple[Admin, socket.socket]:
    """The pages, which answer what this process gives them, and a listener to make connections with."""
    settings = ServeSettings(admin="127.0.0.1:0")
    at = listening.open_admin_listener(settings)
    admin = Admin(Overview(_Watched(), Core(settings)), settings, at)  # type: ignore[arg-type]
    listener = socket.create_server(("127.0.0.1", 0))
    return admin, listener


def check(data: bytes) -> None:
    """Raise AssertionError where a request is not answered as it should be."""
    chosen = Choices(data)
    flags = chosen.byte()
    request = chosen.rest()[:60_000]
    if flags & 1:
        request = b"GET /clients HTTP/1.1\r\nHost: " + request
    admin, listener = pages()
    client = socket.create_connection(listener.getsockname())
    accepted, address = listener.accept()
    with client, gevent_socket.socket(fileno=accepted.detach()) as served:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        raised: list[Any] = []
        with mock.patch.object(gevent.get_hub(), "handle_error", lambda *error: raised.append(error)):
            admin._handle(served, address)
        assert not raised, raised
        served.close()
        response = b""
        while more := client.recv(65536):
            response += more
    look_at(request, response)


def look_at(request: bytes, response: bytes) -> None:
    """Raise AssertionError unless ``response`` is one that may be given."""
    response = response.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    if not response:
        return
    head, found, _ = response.partition(b"\r\n\r\n")
    if not found:  # HTTP/0.9 has no head; http.server speaks it, and its pages are those without a Host
        words = request.split(b"\n")[0].decode("latin-1").split()
        assert SECRET.encode() not in response or len(words) == 2, response
        return
    lines = head.split(b"\r\n")
    status = re.match(rb"HTTP/1\.[01] (\d{3}) ", lines[0])
    assert status, response
    assert int(status[1]) in STATUSES, response
    for line in lines[1:]:
        assert re.fullmatch(rb"[A-Za-z-]+: [ -~]*", line), f"a header that was put in: {line!r}"
    names = [line.split(b":")[0].lower() for line in lines[1:]]
    assert len(set(names)) == len(names), head
    if SECRET.encode() in response:
        hosts = [
            line.split(b":", 1)[1].strip().lower()
            for line in re.split(rb"\r\n|\r|\n", request.split(b"\r\n\r\n")[0])[1:]
            if line.lower().startswith(b"host:")
        ]
        allowed = rb"(localhost|127\.0\.0\.1|\[::1\])\.?(:[0-9]*)?"
        assert not hosts or re.fullmatch(allowed, hosts[0]), f"told to {hosts}"
