"""PROXY headers from a real socket, in any pieces: an address, none, or a refusal, and not a byte too many.

What is to be read is said a second time here, by the specification's own words: version 1 as one regular
expression, version 2 as a structure.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Any, Final

from chat_gevent.errors import HeaderError
from chat_gevent.proxy_protocol import V1_BYTES, V2_BYTES, V2_SIGNATURE, _SaidNothing, read_header
from tests.faults.fuzz.choices import Choices

V1: Final = re.compile(
    rb"PROXY (?:(UNKNOWN)(?: [^\n]*)?|(TCP[46]) ([^ \n]+) ([^ \n]+) ([0-9]+) ([0-9]+))\r\n"
)


class _Late(Exception):
    """The rest of a header did not come in time."""


class _Registry:
    def __init__(self) -> None:
        self.proxied: dict[Any, Any] = {}


class _Connection:
    """What :func:`read_header` needs of a connection; the other end writes a piece each time it waits."""

    def __init__(self, pieces: list[bytes], ends: bool) -> None:
        self.socket, self._far = socket.socketpair()
        self.socket.setblocking(False)
        self._pieces = pieces
        self._ends = ends
        self.core = self
        self.registry = _Registry()

    def opening_deadline(self) -> float:
        return 0.0

    def wait_opening(self, deadline: float) -> None:
        if self._pieces:
            self._far.sendall(self._pieces.pop(0))
        elif self._ends:
            self._far.shutdown(socket.SHUT_WR)
            self._ends = False
        else:
            raise _Late

    def left(self) -> bytes:
        """All that was not read, sent or not."""
        try:
            return self.socket.recv(2**20) + b"".join(self._pieces)
        except BlockingIOError:
            return b"".join(self._pieces)

    def close(self) -> None:
        self.socket.close()
        self._far.close()


def check(data: bytes) -> None:
    """Raise AssertionError where a header is not read as the specification has it."""
    chosen = Choices(data)
    flags = chosen.byte()
    pieces = chosen.pieces()
    stream = b"".join(pieces)[:20_000]
    if flags & 2:  # else the fuzzer would have to find the signature byte by byte
        stream, pieces = V2_SIGNATURE + stream, [V2_SIGNATURE, *pieces]
    outcome, left = outcome_of(pieces, bool(flags & 1))
    assert outcome == expected(stream, bool(flags & 1)), f"{pieces}: {outcome}"
    if outcome not in ("refused", "late", "nothing"):
        size = (
            16 + int.from_bytes(stream[14:16]) if stream.startswith(V2_SIGNATURE) else stream.find(b"\n") + 1
        )
        assert left == stream[size:], f"{pieces}: {len(left)} bytes are left"


def outcome_of(pieces: list[bytes], ends: bool) -> tuple[Any, bytes]:
    """The address, or a word for what else came of it, and what was left in the socket."""
    connection = _Connection(list(pieces), ends)
    try:
        outcome: Any = read_header(connection)  # type: ignore[arg-type]  # all that it uses is there
    except HeaderError as error:
        assert len(str(error)) < 1000, "the log line has a bound"
        outcome = "refused"
    except _SaidNothing:
        outcome = "nothing"
    except _Late:
        outcome = "late"
    finally:
        left = connection.left()
        connection.close()
    for identity in connection.registry.proxied.values():
        assert all(each is None or isinstance(each, str) for each in identity)
    return outcome, left


def expected(stream: bytes, ends: bool) -> Any:
    """What the specification has for ``stream``, all of it."""
    if not stream:
        return "nothing" if ends else "late"
    short = "refused" if ends else "late"
    if V2_SIGNATURE.startswith(stream[: len(V2_SIGNATURE)]):
        if len(stream) < 16:
            return short
        command, family, size = stream[12], stream[13], int.from_bytes(stream[14:16])
        if size > V2_BYTES:
            return "refused"
        if len(stream) < 16 + size:
            return short
        addresses = {0x11: 4, 0x21: 16}.get(family)
        if command == 0x20 or (command == 0x21 and addresses is None):
            return None
        if command != 0x21 or addresses is None or size < 2 * addresses + 4:
            return "refused"
        body = stream[16 : 16 + size]
        return _address(body[:addresses], int.from_bytes(body[2 * addresses : 2 * addresses + 2]))
    line, found, _ = stream.partition(b"\n")
    begins = b"PROXY "
    if not found and begins.startswith(line[:6]) and len(stream) < 12:
        return short
    if not line.startswith(begins):
        return "refused"
    if not found and len(stream) < V1_BYTES:
        return short
    if (
        not found
        or len(line) + 1 > V1_BYTES
        or not (match := V1.fullmatch(line + b"\n"))
        or not line.isascii()
    ):
        return "refused"
    if match[1]:
        return None
    version = 4 if match[2] == b"TCP4" else 6
    try:
        hosts = [ipaddress.ip_address(each.decode()) for each in match.group(3, 4)]
    except ValueError:
        return "refused"
    ports = match.group(5, 6)
    if any(host.version != version or getattr(host, "scope_id", None) is not None for host in hosts) or any(
        int(port) > 65535 or str(int(port)).encode() != port for port in ports
    ):
        return "refused"
    return _address(hosts[0].packed, int(ports[0]))


def _address(packed: bytes, port: int) -> tuple[str, int]:
    host = ipaddress.ip_address(packed)
    mapped = getattr(host, "ipv4_mapped", None)
    if mapped is not None:
        return str(mapped), port
    return socket.inet_ntop(socket.AF_INET if host.version == 4 else socket.AF_INET6, packed), port
