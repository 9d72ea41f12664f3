"""Connections of the client library for Redis that wait without holding gevent's loop.

The library does the protocol, authentication and the reading of URLs. Only ``_connect`` is overridden, to
make gevent's sockets, so it does not matter whether the process is monkey patched. The alternatives were
worse: patching the library's module changes it for a handler that uses Redis in native threads, and a
thread of our own would compete with the loop for the interpreter's lock at each message.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from gevent.socket import (
    AF_UNIX,
    IPPROTO_TCP,
    SO_KEEPALIVE,
    SOL_SOCKET,
    TCP_NODELAY,
    create_connection,
    socket,
)
from gevent.ssl import PROTOCOL_TLS_CLIENT, SSLContext
from redis import connection as library
from redis.exceptions import RedisError

_ADDRESS: Final = {"host": "localhost", "port": 6379}  # of a URL that does not name them


def _connect_tcp(connection: Any) -> socket:
    address = (connection.host, connection.port)
    try:
        made = create_connection(address, connection.socket_connect_timeout)
    except UnicodeError as error:  # a part of the name is longer than names may be
        raise OSError(f"{connection.host}: {error}") from None
    made.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    made.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
    made.settimeout(connection.socket_timeout)
    return made


class _Tcp(library.Connection):
    def _connect(self) -> socket:
        return _connect_tcp(self)


class _Tls(library.SSLConnection):
    def _connect(self) -> Any:
        context = SSLContext(PROTOCOL_TLS_CLIENT)
        context.check_hostname = self.check_hostname
        context.verify_mode = self.cert_reqs
        context.load_default_certs()
        if self.ca_certs or self.ca_path or self.ca_data:
            context.load_verify_locations(self.ca_certs, self.ca_path, self.ca_data)
        if self.certfile:
            context.load_cert_chain(self.certfile, self.keyfile, self.certificate_password)
        if self.ssl_ciphers:
            context.set_ciphers(self.ssl_ciphers)
        made = _connect_tcp(self)
        try:
            return context.wrap_socket(made, server_hostname=self.host)
        except BaseException:
            made.close()
            raise


class _Unix(library.UnixDomainSocketConnection):
    def _connect(self) -> socket:
        made = socket(AF_UNIX)
        made.settimeout(self.socket_timeout)
        try:
            made.connect(self.path)
        except BaseException:
            made.close()
            raise
        return made


def connections(url: str, seconds: float) -> tuple[Callable[[], Any], str]:
    """What makes connections to the Redis of a URL, and where that is, without a password.

    ``seconds`` is how long a connect, a read or a write may take. Raises ValueError: the URL can't be used.
    """
    options = library.parse_url(url)  # type: ignore[no-untyped-call]
    options.pop("connection_class", None)
    parts = urlsplit(url)
    kind: Callable[..., Any] = {"redis": _Tcp, "rediss": _Tls, "unix": _Unix}[parts.scheme]
    if kind is _Unix and not parts.path:
        raise ValueError("unix:// must name a path")
    if kind is not _Unix and not re.fullmatch(r"/?[0-9]*", parts.path):
        raise ValueError("what follows the host must be the number of a database")
    times = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
    make: Any = partial(kind, **{**options, **times, "protocol": 2, "decode_responses": False})
    try:
        make()
    except TypeError as error:
        raise ValueError(f"no such option in a URL: {str(error).rpartition(' ')[2]}") from None
    except RedisError as error:
        raise ValueError(str(error)) from None
    return make, options.get("path") or "{host}:{port}".format(**_ADDRESS | options)
