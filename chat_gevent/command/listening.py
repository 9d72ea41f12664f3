"""Open what a server is to listen on, by its settings, and its certificate; it needs no event loop.

One process serves these listeners. Of several workers each has TCP sockets of its own on the same addresses
(``SO_REUSEPORT``), so that each gets an even share of the clients; then TCP addresses are only reserved here.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from typing import Any, Final

from gevent.monkey import get_original

from chat_gevent import tls
from chat_gevent.addresses import split_host_port
from chat_gevent.command import systemd
from chat_gevent.command.config import ServeSettings
from chat_gevent.command.handler import StartError
from chat_gevent.errors import ListenError
from chat_gevent.listeners import Listener, listen

UNIX_MODE: Final = "0660"
"""Permissions of a UNIX socket's file, unless others are set: its owner and group may connect."""

NAME_SECONDS: Final = 1.0
"""How long the start waits for the address of this machine's own name."""

_allocate_lock: Any = get_original("_thread", "allocate_lock")
_start_new_thread: Any = get_original("_thread", "start_new_thread")
_gethostbyname: Any = get_original("socket", "gethostbyname")

log = logging.getLogger("chat_gevent")


def read_certificates(settings: ServeSettings) -> tls.Certificates | None:
    """The certificate that the settings name, if they name one. Raises CertificateError."""
    if not settings.tls_certificate:
        return None
    return tls.Certificates(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)


def open_listeners(
    settings: ServeSettings, *, by_default: bool = False, reserve: bool = False
) -> list[Listener]:
    """Open all listeners, those that are handed over included.

    :param by_default: whether nobody has said where to listen.
    :param reserve: only keep the TCP addresses from others, see :func:`chat_gevent.listeners.listen`.

    Raises StartError, ListenError.
    """
    try:
        handed_over = systemd.inherited_sockets()
    except OSError as error:
        raise StartError(str(error)) from None
    listeners = [
        Listener(each, _scheme_of(name, each, settings), inherited=True) for name, each in handed_over
    ]
    if listeners and not settings.listen:
        return listeners  # host and port have defaults, so they don't say that these are wanted as well
    try:
        for address in settings.addresses:
            mode = int(settings.unix_mode or UNIX_MODE, 8)
            only = settings.ipv6_only
            listeners += listen(address, settings, ipv6_only=only, unix_mode=mode, reserve=reserve)
        if by_default and not settings.tls_certificate:
            listeners += _listen_at_own_name(settings, listeners[0], reserve)
    except BaseException:
        close_listeners(listeners)
        raise
    return listeners


def close_listeners(listeners: list[Listener]) -> None:
    """Close those that are open still, and remove the files of UNIX sockets."""
    for each in listeners:
        if each.socket.fileno() >= 0:
            each.remove_file()
            each.socket.close()


def open_admin_listener(settings: ServeSettings) -> Listener:
    """Open the listener of the admin pages, on loopback unless a host is named. Raises ListenError."""
    host, port = split_host_port(settings.admin)
    host = f"[{host}]" if ":" in host else host or "127.0.0.1"
    listeners = listen(f"tcp://{host}:{port}", settings)
    close_listeners(listeners[1:])  # a name with several addresses
    return listeners[0]


def _scheme_of(name: str, inherited: socket.socket, settings: ServeSettings) -> str:
    if name.startswith("tls"):
        if not settings.tls_certificate:
            raise StartError(f"the socket {name!r} that was handed over needs --tls-certificate", 2)
        return "tls"
    return Listener(inherited, "tcp").plain_scheme


def _listen_at_own_name(settings: ServeSettings, first: Listener, reserve: bool) -> list[Listener]:
    """Listen also where clients look that connect to the machine's own name, if it is a loopback address.

    It connects to ``gethostbyname(gethostname())``, which is 127.0.1.1 on Debian and Ubuntu as they come.
    """
    name = socket.gethostname()
    found = _address_of(name)
    if not found or found == settings.host:
        return []
    if not ipaddress.IPv4Address(found).is_loopback:
        log.info("for clients that look for this machine by its name, %s: serve --host %s", name, found)
        return []
    try:
        return listen(f"tcp://{found}:{first.socket.getsockname()[1]}", settings, reserve=reserve)
    except ListenError as error:
        log.warning("clients that look for this machine by its name, %s, find nobody: %s", name, error)
        return []


def _address_of(name: str) -> str:
    """The IPv4 address of a name, or nothing where it has none, or finding it takes too long."""
    found: list[str] = []
    ended = _allocate_lock()
    ended.acquire()

    def look() -> None:
        try:
            found.append(_gethostbyname(name))
        except (OSError, UnicodeError):
            pass
        finally:
            ended.release()

    # A thread of the interpreter's own: the master of several workers must not start an event loop.
    _start_new_thread(look, ())
    ended.acquire(timeout=NAME_SECONDS)
    return found[0] if found else ""
