"""Where to connect to, and from: targets, their look-up, and the pool of source addresses.

A host is written ``tcp://host:port``, ``tls://host:port``, ``host:port``, ``[v6]:port`` or
``unix:///path``. Its name is looked up once a process and kept, so that a load test measures the
server and not the resolver. A name may have several addresses: a connection tries one after another until one
takes it, beginning with the first, or with each in turn (``spread``).

One source address has about 28,000 ports (``net.ipv4.ip_local_port_range``) towards one destination.
For more connections the pool hands out several in turn; each is bound with ``IP_BIND_ADDRESS_NO_PORT``
(Linux 4.2), which leaves the choice of the port to ``connect``, when the destination is known, so that
a port may be used once a destination instead of once.
"""

from __future__ import annotations

import _socket  # the plain functions and types, which gevent does not patch
import errno
import ipaddress
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from gevent import socket as gevent_socket

IP_BIND_ADDRESS_NO_PORT: Final = 24
"""Option of ``IPPROTO_IP`` in Linux's ``include/uapi/linux/in.h``; Python names it only since 3.12."""

Scheme = Literal["tcp", "tls", "unix"]


@dataclass(slots=True)
class Target:
    """Where clients connect to. ``resolve`` gives the kernel's form of it."""

    scheme: Scheme
    host: str
    port: int = 0
    spread: bool = field(default=False, compare=False)
    """Whether connections begin with each of several addresses in turn."""
    _resolved: list[tuple[int, Any]] = field(default_factory=list, repr=False, compare=False)
    _turn: int = field(default=0, repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read a host as people write it. Raises ValueError with a sentence for a person."""
        if not text:
            raise ValueError("a host is missing: give --host tcp://HOST:PORT, or set it in the user class")
        if text.startswith("unix:"):
            path = text.removeprefix("unix:").removeprefix("//")
            if not path.startswith("/"):
                raise ValueError(f"{text!r}: a UNIX socket is written unix:///path")
            return cls("unix", path)
        url = urlsplit(text if "://" in text else f"tcp://{text}")
        if url.scheme not in ("tcp", "tls"):
            raise ValueError(f"{text!r}: the scheme is tcp, tls or unix")
        try:
            host, port = url.hostname, url.port
        except ValueError as error:
            raise ValueError(f"{text!r}: {error}") from None
        if not host or not port or url.path.strip("/"):
            raise ValueError(f"{text!r}: a host is written tcp://HOST:PORT")
        return cls("tls" if url.scheme == "tls" else "tcp", host, port)

    def resolve(self) -> list[tuple[int, Any]]:
        """Address families and socket addresses. Raises OSError (``gaierror``) where the name is unknown."""
        if not self._resolved:
            if self.scheme == "unix":
                self._resolved = [(_socket.AF_UNIX, self.host)]
            else:
                found = gevent_socket.getaddrinfo(self.host, self.port, type=_socket.SOCK_STREAM)
                self._resolved = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
        return self._resolved

    def in_turn(self) -> list[tuple[int, Any]]:
        """The addresses in the order in which the next connection tries them. Raises OSError."""
        addresses = self.resolve()
        if not self.spread or len(addresses) == 1:
            return addresses
        self._turn = (self._turn + 1) % len(addresses)
        return addresses[self._turn :] + addresses[: self._turn]

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


_FAMILIES: Final[dict[int, str]] = {_socket.AF_INET: "IPv4", _socket.AF_INET6: "IPv6"}


class SourcePool:
    """Source addresses, handed out in turn; those of IPv4 to connections to IPv4, and of IPv6 to IPv6."""

    def __init__(self, addresses: list[str]) -> None:
        if not addresses:
            raise ValueError("a pool has at least one source address")
        self.addresses = addresses
        groups: dict[int, list[str]] = {}
        for address in addresses:
            groups.setdefault(_family(address), []).append(address)
        self._turns = {family: itertools.cycle(group) for family, group in groups.items()}

    @classmethod
    def parse(cls, text: str, most: int = 65_536) -> SourcePool:
        """Read ``127.0.0.2-127.0.0.9,10.0.0.0/28,::1``. Raises ValueError with a sentence for a person."""
        addresses: list[str] = []
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            try:
                if "/" in part:
                    network = ipaddress.ip_network(part)
                    found: Iterable[str] = map(str, itertools.islice(network.hosts(), most + 1))
                elif "-" in part:
                    first, last = (ipaddress.ip_address(end.strip()) for end in part.split("-"))
                    if first.version != last.version or int(last) < int(first):
                        raise ValueError("the range is empty")
                    span = range(int(first), min(int(last), int(first) + most) + 1)
                    found = (str(type(first)(number)) for number in span)
                else:
                    found = [str(ipaddress.ip_address(part))]
            except ValueError as error:
                raise ValueError(f"source addresses {part!r}: {error}") from None
            addresses.extend(found)
            if len(addresses) > most:
                raise ValueError(f"more than {most} source addresses")
        return cls(addresses)

    def check(self, target: Target) -> None:
        """Make sure that there is an address to connect to ``target`` from, if that is an address itself.

        Raises ValueError with a sentence for a person.
        """
        try:
            family = _family(target.host)
        except ValueError:  # a name, whose addresses are known once it is looked up, or a path
            return
        if family not in self._turns:
            raise ValueError(f"source addresses: none of them is {_FAMILIES[family]}, as {target} is")

    def fitting(self, addresses: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
        """Those of a target's addresses that can be connected to from here. Raises OSError: none can."""
        found = [each for each in addresses if each[0] == _socket.AF_UNIX or each[0] in self._turns]
        if not found:
            wanted = " or ".join(sorted({_FAMILIES[family] for family, _ in addresses}))
            raise OSError(errno.EAFNOSUPPORT, f"none of the source addresses is {wanted}")
        return found

    def bind(self, sock: Any) -> None:
        """Give ``sock`` the next address of its family, without a port yet. Raises OSError."""
        if sock.family == _socket.AF_INET:
            sock.setsockopt(_socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((next(self._turns[sock.family]), 0))

    def __len__(self) -> int:
        return len(self.addresses)


def _family(address: str) -> int:
    """The address family of an IP address. Raises ValueError: it is none."""
    return _socket.AF_INET if ipaddress.ip_address(address).version == 4 else _socket.AF_INET6


def ports_per_address() -> int:
    """How many connections one source address may open to one destination, by the kernel's setting."""
    try:
        low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except (OSError, ValueError):
        return 28_232  # Linux's default range, 32768 to 60999
    return high - low + 1
