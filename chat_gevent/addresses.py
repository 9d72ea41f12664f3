"""Addresses of peers: one shape for each family, what limits count by, and how people write them.

The kernel and a proxy give the address of one and the same client in several shapes: an IPv6 socket that
takes IPv4 as well says ``::ffff:192.0.2.1``, its ``getpeername`` adds a flow and a scope, and a UNIX socket
says ``""``, a path or bytes. :func:`peer_address` makes one of them:

* IPv4 and IPv6: ``(host, port)``, a tuple of two. A mapped IPv4 address is an IPv4 address. The host of a
  link-local IPv6 address keeps its scope (``fe80::1%eth0``), without which it names nobody.
* UNIX: a str, the path the client is bound to; ``"@name"`` for an abstract one, and ``""`` for most, which
  are bound to none.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Any, Final

Address = tuple[str, int] | str
"""A peer's address: host and port, or a str for a UNIX socket."""

WHOLE_IPV6: Final = 128
"""The prefix that tells all IPv6 addresses apart."""

MAPPED: Final = "::ffff:"
"""How an IPv4 address begins that an IPv6 socket tells."""


def peer_address(given: Any) -> Address | None:
    """The one shape of an address that ``accept``, ``getpeername`` or a PROXY header gave; None for None."""
    if given is None:
        return None
    if isinstance(given, tuple):
        host: str = given[0]
        if host.startswith(MAPPED) and "." in host:
            host = host[len(MAPPED) :]
        return host, given[1]
    if isinstance(given, bytes):
        given = given.decode(errors="surrogateescape")
    name: str = given
    return "@" + name[1:] if name.startswith("\0") else name


def counted_as(address: Address, ipv6_prefix: int = WHOLE_IPV6) -> str:
    """What clients of an address are counted under: the IPv4 address, or the IPv6 network.

    :param ipv6_prefix: the bits of that network.

    One customer has a whole /64 as a rule, and may take a new address for each connection. UNIX clients have
    none to count, which is the text ``""``.
    """
    if not isinstance(address, tuple):
        return ""
    host = address[0]
    return _network(host, ipv6_prefix) if ":" in host and ipv6_prefix < WHOLE_IPV6 else host


@lru_cache(maxsize=4096)
def _network(host: str, prefix: int) -> str:
    bare, _, scope = host.partition("%")
    network = ipaddress.IPv6Network((bare, prefix), strict=False)
    return f"{network}%{scope}" if scope else str(network)


def address_text(address: Any) -> str:
    """A peer's address as people write it: ``192.0.2.1:43``, ``[2001:db8::1]:43``, ``unix``, ``unknown``."""
    known = peer_address(address)
    if isinstance(known, tuple):
        host, port = known
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "unknown" if known is None else "unix"


def split_address(address: str) -> tuple[str, str, int]:
    """Scheme, host and port; of a UNIX socket the path and 0. Raises ValueError."""
    scheme, _, rest = address.partition("://")
    if scheme == "unix" and rest:
        return scheme, rest, 0
    if scheme not in ("tcp", "tls") or not rest:
        raise ValueError("must be tcp://HOST:PORT, tls://HOST:PORT or unix:///PATH")
    return scheme, *split_host_port(rest)


def split_host_port(text: str) -> tuple[str, int]:
    """``HOST:PORT`` or ``[HOST]:PORT`` to its parts. Raises ValueError."""
    match = re.fullmatch(r"(\[(?P<v6>[^\[\]]+)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})", text)
    if not match or int(match["port"]) > 65535:
        raise ValueError("must have HOST:PORT, the port from 0 to 65535, an IPv6 address in brackets")
    return match["v6"] or match["host"], int(match["port"])
