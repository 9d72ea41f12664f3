"""What the Python servers share: their options, the protocol's rules, and the line that says they are ready.

Only what is the same work whichever library waits for the bytes is here. How bytes are read, split
and answered is each server's own, in its own idiom.
"""

from __future__ import annotations

import argparse
import socket
import ssl
from collections.abc import Sequence
from typing import Final

from benchmarks.measure.servers.handler import handle

MAX_MESSAGE_BYTES: Final = 65_536
"""A line may have so many bytes without its terminator."""

TOO_LONG: Final = b"Error: message-too-long: a message is limited to 65536 bytes\n"
CONFIRMED: Final = b"Received: "
NEXT_CONFIRMED: Final = b"\nReceived: "
NOT_UTF8: Final = b"Error: invalid-utf8: the message is not UTF-8\n"


def options(description: str | None) -> argparse.Namespace:
    """Parse ``--host`` and ``--port``, which every server takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tls-certificate", help="speak TLS with this certificate, where the server can")
    parser.add_argument("--tls-key")
    parser.add_argument("--handler", action="store_true", help="call a Python function for each message")
    parser.add_argument("--push", type=int, default=0, help="1: send a line that begins with ! to many")
    parser.add_argument("--busy-ns", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def tls_context(given: argparse.Namespace) -> ssl.SSLContext | None:
    """The TLS context that the options ask for; None for plain TCP."""
    if not given.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(given.tls_certificate, given.tls_key)
    return context


def ready(address: tuple[str, int]) -> None:
    """Say on standard output that connections are accepted now."""
    print(f"ready tcp://{address[0]}:{address[1]}", flush=True)


def keep_large_blocks_in_the_heap() -> None:
    """Spare asyncio's own transports three system calls a read.

    They read into a new ``bytes`` of 256 KiB (``_SelectorTransport.max_size``), which glibc maps and
    unmaps each time until a mapped block of that size has been freed whole once (its threshold is
    dynamic, mallopt(3)). Many programs do so by chance, this one by intent: 31 µs a message become 12.
    """
    block = bytes(4 << 20)
    del block


def no_delay(connection: socket.socket) -> None:
    """Send small replies at once."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def reply_to(line: bytes) -> bytes | None:
    """Answer one line without its LF; None for ``/exit``, which ends the connection."""
    if line.endswith(b"\r"):
        line = line[:-1]
    if b"/" in line and line.strip().lower() == b"/exit":
        return None
    try:
        line.decode()
    except UnicodeDecodeError:
        return NOT_UTF8
    return b"Received: " + line + b"\n"


def handle_lines(lines: Sequence[bytes]) -> tuple[list[bytes], bool]:
    """Answer whole lines a message at a time, as servers with a handler of one's own do.

    Each is decoded, compared with ``/exit``, given to :func:`~benchmarks.measure.servers.handler.handle`, and
    its reply encoded. Returns the replies, and whether the connection goes on.
    """
    replies = []
    for line in lines:
        if line.endswith(b"\r"):
            line = line[:-1]
        if len(line) > MAX_MESSAGE_BYTES:
            replies.append(TOO_LONG)
            return replies, False
        try:
            message = line.decode()
        except UnicodeDecodeError:
            replies.append(NOT_UTF8)
            continue
        if "/" in message and message.strip().lower() == "/exit":
            return replies, False
        replies.append(handle(message, None).encode() + b"\n")
    return replies, True


def told(line: bytes) -> bytes | None:
    """What a line without its LF says to all: its text after ``!``, with LF; None where it says nothing."""
    if not line.startswith(b"!") or len(line) > MAX_MESSAGE_BYTES:
        return None
    try:
        line.decode()
    except UnicodeDecodeError:
        return None
    return line[1:].removesuffix(b"\r") + b"\n"


def confirm_lines(data: bytes | bytearray) -> bytes | None:
    """Confirm a read that is whole lines, all at once; None where each line needs a look of its own.

    ``data`` ends with LF. Peers have the short way that this project's server has, in code of their own.
    """
    if b"/" in data and b"/exit" in data.lower():
        return None
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            return None
    if data.find(b"\n") == len(data) - 1:
        return CONFIRMED + data
    return CONFIRMED + data[:-1].replace(b"\n", NEXT_CONFIRMED) + b"\n"
