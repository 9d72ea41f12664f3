"""A client for one connection, as a library.

:class:`ChatClient` sends a message and waits for its reply, over a socket that it is given or makes. It
uses ``line`` framing: a message of its own never contains LF. It blocks as its socket does, so with
``gevent.socket`` it is a gevent client. The time-out of the socket holds for a whole message and for a whole
reply, not for each piece of one.
"""

from __future__ import annotations

import socket
import time
from collections import deque

from chat_gevent.errors import ConnectionLost
from chat_gevent.framing import LINE, Kept

READ_BYTES = 65_536
REPLY_BYTES = 2**20
"""Longest reply that is taken for one; a server that sends more without LF does not speak this protocol."""


class ChatClient:
    """One connection to a server that confirms messages.

    :param sock: a connected stream socket; the client owns it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._kept: Kept = b""  # the beginning of a reply
        self._replies: deque[str] = deque()

    @classmethod
    def connect(cls, host: str = "127.0.0.1", port: int = 12345, timeout: float | None = 10.0) -> ChatClient:
        """Connect; ``timeout`` seconds hold for the connect, and for each message and each reply after it.

        Raises OSError.
        """
        sock = socket.create_connection((host, port), timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(sock)

    def send(self, message: str) -> None:
        """Send one message. Raises ValueError: it contains LF; ConnectionLost; TimeoutError."""
        if "\n" in message:
            raise ValueError("a message can't contain a line feed: it would be two")
        try:
            self.socket.sendall(message.encode() + b"\n")
        except ConnectionError as error:
            raise ConnectionLost(f"the server is gone: {error.strerror}") from error

    def receive(self) -> str:
        """Wait for the next reply. Raises ConnectionLost, TimeoutError, ValueError (no UTF-8, or no LF)."""
        timeout = self.socket.gettimeout()
        deadline = time.monotonic() + (timeout or 0)
        try:
            while not self._replies:
                if timeout:  # 0 and None stay what they mean to a socket
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise TimeoutError("timed out")
                    self.socket.settimeout(left)
                self._read()
        finally:
            if self.socket.fileno() >= 0:
                self.socket.settimeout(timeout)
        return self._replies.popleft()

    def _read(self) -> None:
        try:
            data = self.socket.recv(READ_BYTES)
        except ConnectionError as error:
            raise ConnectionLost(f"the server is gone: {error.strerror}") from error
        if not data:
            replies, self._kept = LINE.finish(self._kept, REPLY_BYTES), b""
            if not replies:
                raise ConnectionLost("the server closed the connection")
        else:
            replies, self._kept = LINE.split(self._kept, data, REPLY_BYTES)
        self._replies.extend(reply.decode() for reply in replies)

    def confirm(self, message: str) -> str:
        """Send one message and wait for the reply to it.

        Raises what :meth:`send` and :meth:`receive` do. A time-out closes the connection: the reply may come
        yet, and would be taken for the next message's.
        """
        try:
            self.send(message)
            return self.receive()
        except TimeoutError:
            self.close()
            raise

    def pending(self) -> bool:
        """Whether a reply is there, or the server has closed. Never blocks. Raises ValueError (no UTF-8)."""
        if not self._replies:
            timeout = self.socket.gettimeout()
            self.socket.settimeout(0)
            try:
                self._read()
            except ConnectionLost:
                return True
            except OSError:  # nothing is there, or TLS has nothing to tell yet
                pass
            finally:
                self.socket.settimeout(timeout)
        return bool(self._replies)

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
