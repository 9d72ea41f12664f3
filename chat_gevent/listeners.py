"""Addresses to listening sockets.

An address is text, as an operator writes it:

``tcp://HOST:PORT``, ``tls://HOST:PORT``
    HOST is an IPv4 address, an IPv6 address in brackets, or a name (all of its addresses are listened
    on, with one port). ``[::]`` and ``*`` take IPv6 and IPv4, unless that is asked not to be.
``unix:///PATH``, ``unix://@NAME``
    a UNIX socket; ``@`` means Linux's abstract names. A socket file that nobody listens on any more
    is replaced; one in use, or a file of another kind, is an error. The file is removed at the close.

Sockets may also be handed over by whoever started the process (``LISTEN_FDS``).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import time
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import gevent

from chat_gevent.addresses import split_address
from chat_gevent.errors import ListenError

if TYPE_CHECKING:
    from chat_gevent.settings import Settings

SO_ATTACH_FILTER: Final = 26
"""Linux's number for a socket option that Python has no name for (asm-generic/socket.h)."""


SYN_RECEIVED: Final = "03"
"""The state of a connection that is not established yet, in /proc/net/tcp."""

HANDSHAKE_SECONDS: Final = 1.2
"""How long a stop waits for handshakes that are under way: a SYN-ACK that was lost is repeated after 1 s."""

HANDSHAKES_LOOKED_FOR: Final = 20_000
"""Most clients with which a stop looks for handshakes: that takes time for each connection there is."""


UNSENT_BYTES: Final = 131_072
"""Most bytes that the kernel takes for a client whose receive window is closed. Without it, the send buffer
of one that never reads grows to the limit of ``tcp_wmem``, 4 MiB as a rule."""


@dataclass(slots=True)
class Listener:
    """A listening socket, and what is to happen with those who connect to it."""

    socket: socket.socket
    scheme: str
    """``tcp``, ``tls`` or ``unix``."""
    inherited: bool = False
    """Whether another process may hold the socket too, and go on with it after us."""
    _inode: tuple[int, int] | None = field(default=None)

    @property
    def url(self) -> str:
        """The address as it is written on the command line, with the port that it got."""
        name = self.socket.getsockname()
        if self.socket.family == socket.AF_UNIX:
            shown = name.decode(errors="replace").replace("\0", "@", 1) if isinstance(name, bytes) else name
            return f"{'tls' if self.scheme == 'tls' else 'unix'}://{shown}"
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        return f"{self.scheme}://{host}:{name[1]}"

    @property
    def http_url(self) -> str:
        """The address of one for HTTP."""
        return self.url.replace("tcp", "http", 1)

    @property
    def plain_scheme(self) -> str:
        """``unix`` or ``tcp``, by the socket's family."""
        return "unix" if self.socket.family == socket.AF_UNIX else "tcp"

    def remove_file(self) -> None:
        """Remove the file of a UNIX socket, unless somebody else has put another in its place."""
        if self._inode is None:
            return
        path = Path(self.socket.getsockname())
        with contextlib.suppress(OSError):
            found = path.stat()
            if (found.st_dev, found.st_ino) == self._inode:
                path.unlink()
        self._inode = None


def listen(
    address: str,
    settings: Settings,
    *,
    ipv6_only: bool = False,
    unix_mode: int = 0o660,
    reserve: bool = False,
) -> list[Listener]:
    """Open the listening sockets of one address; several where a name has several addresses.

    :param reserve: bind TCP sockets only, so that nobody else can listen there; those of
        :func:`listen_beside` listen in their stead.

    Raises ListenError.
    """
    scheme, host, port = split_address(address)
    if scheme == "unix":
        return [_listen_unix(address, host, settings.backlog, unix_mode)]
    try:
        found = socket.getaddrinfo(
            None if host in ("*", "") else host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise ListenError(f"{address}: {error.strerror if isinstance(error, OSError) else error}") from None
    targets = dict.fromkeys((family, sockaddr) for family, _, _, _, sockaddr in found)
    both = [target for target in targets if target[1][0] == "::"]
    if host in ("*", "") and both and not ipv6_only:
        targets = dict.fromkeys(both)  # it takes IPv4 as well
    listeners: list[Listener] = []
    absent: OSError | None = None
    for family, sockaddr in targets:
        if listeners:  # with port 0 the first one has got the port for all
            sockaddr = (sockaddr[0], listeners[0].socket.getsockname()[1], *sockaddr[2:])
        try:
            bound = _bind_tcp(family, sockaddr, ipv6_only)
            listeners.append(Listener(bound, scheme))
            if reserve:  # after the bind, which fails where anybody listens, also one who would share
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            else:
                bound.listen(settings.backlog)
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):  # a name may have more than we do
                absent = error
                continue
            for each in listeners:
                each.socket.close()
            raise ListenError(f"{address}: {error.strerror}") from None
    if not listeners and absent is not None:
        raise ListenError(f"{address}: {absent.strerror}")
    return listeners


def listen_beside(reserved: Listener, settings: Settings) -> Listener:
    """One more listening socket on the address of a TCP listener that :func:`listen` has reserved.

    The kernel spreads new clients over all of them, by a hash of their addresses and ports. Raises
    ListenError.
    """
    held = reserved.socket
    beside = socket.socket(held.family, socket.SOCK_STREAM)
    try:
        beside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        beside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if held.family == socket.AF_INET6:
            only = held.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            beside.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        beside.bind(held.getsockname())
        beside.listen(settings.backlog)
    except OSError as error:
        beside.close()
        raise ListenError(f"{reserved.url}: {error.strerror}") from None
    return Listener(beside, reserved.scheme)


def _bind_tcp(family: int, address: tuple[object, ...], ipv6_only: bool) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            only = ipv6_only or address[0] != "::"
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _listen_unix(address: str, name: str, backlog: int, unix_mode: int) -> Listener:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if name.startswith("@"):
            listener.bind("\0" + name[1:])
            listener.listen(backlog)
            return Listener(listener, "unix")
        _remove_stale(name)
        before = os.umask(0o777 & ~unix_mode)  # from its first moment nobody else may connect
        try:
            listener.bind(name)
        finally:
            os.umask(before)
        Path(name).chmod(unix_mode)
        listener.listen(backlog)
        found = Path(name).stat()
        return Listener(listener, "unix", _inode=(found.st_dev, found.st_ino))
    except OSError as error:
        listener.close()
        problem = error.strerror or str(error)  # a path that is too long has no errno
        raise ListenError(f"{address}: {problem}") from None


def _remove_stale(name: str) -> None:
    """Remove the socket file that a server left which ended without cleaning up. Raises OSError."""
    try:
        kind = Path(name).lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise OSError(errno.EEXIST, "there is a file of that name that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a backlog that is full must not hold us up
        try:
            probe.connect(name)
        except ConnectionRefusedError:
            Path(name).unlink()
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def tune(listener: socket.socket, settings: Settings) -> None:
    """Set on a TCP listener what its clients inherit: no delay, bounded output, keepalive, user timeout.

    Linux copies these from the listening socket, so that no accepted one needs a system call for them.
    """
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    tcp = socket.IPPROTO_TCP
    listener.setsockopt(tcp, socket.TCP_NODELAY, 1)
    listener.setsockopt(tcp, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    if settings.keepalive_idle:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(tcp, socket.TCP_KEEPIDLE, settings.keepalive_idle)
        listener.setsockopt(tcp, socket.TCP_KEEPINTVL, settings.keepalive_interval)
        listener.setsockopt(tcp, socket.TCP_KEEPCNT, settings.keepalive_probes)
    # Also where it is 0: the listener may have been handed over with another value.
    listener.setsockopt(tcp, socket.TCP_USER_TIMEOUT, int(settings.user_timeout * 1000))


def take_no_more(listener: socket.socket) -> None:
    """Have the kernel ignore new connection requests on a TCP listener that is about to be closed.

    Those that have connected stay in its queue and can be accepted, so that the close resets nobody, and
    those whose handshake is under way can end it. Not for a listener that another process holds too.
    Those that come now repeat their SYN after a second, and are refused, or find the next server.
    """
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    program = b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in (
            (0x30, 0, 0, 13),  # load the byte of the TCP header that holds the flags
            (0x54, 0, 0, 0x12),  # SYN and ACK of them
            (0x15, 0, 1, 0x02),  # only SYN: go on, else skip one
            (0x06, 0, 0, 0),  # drop the packet
            (0x06, 0, 0, 0xFFFFFFFF),  # keep it, whole
        )
    )
    buffer = array("B", program)
    address, size = buffer.buffer_info()
    with contextlib.suppress(OSError):  # a sandbox may forbid it; then only the last moment is less gentle
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", size // 8, address))


def await_handshakes(listeners: list[socket.socket], clients: int) -> None:
    """Let handshakes that are under way end, on listeners that take no more.

    They have to be accepted afterwards. Blocks its greenlet, for :data:`HANDSHAKE_SECONDS` at most, and only
    where there are such, or more ``clients`` than :data:`HANDSHAKES_LOOKED_FOR`.
    """
    deadline = time.monotonic() + HANDSHAKE_SECONDS
    while listeners and (clients > HANDSHAKES_LOOKED_FOR or handshakes_under_way(listeners)):
        if time.monotonic() > deadline:
            break
        gevent.sleep(0.02)


def handshakes_under_way(listeners: list[socket.socket]) -> bool:
    """Whether somebody has sent a SYN to one of these TCP listeners, and waits for the end of the handshake.

    The kernel tells it in a table of all connections of this network namespace: 1 s for a million of them.
    """
    ports = {each.getsockname()[1] for each in listeners if each.family != socket.AF_UNIX}
    for table in ("/proc/net/tcp", "/proc/net/tcp6") if ports else ():
        with contextlib.suppress(OSError), open(table) as lines:  # noqa: PTH123 - a line at a time
            for line in lines:
                words = line.split(None, 4)  # number, local address, remote address, state
                if words[3] == SYN_RECEIVED and int(words[1].rpartition(":")[2], 16) in ports:
                    return True
    return False
