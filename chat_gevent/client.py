"""A client for one connection, as a library.

:class:`ChatClient` sends a message and waits for its reply, over a socket that it is given or makes, in any
framing, ``line`` unless told otherwise. It blocks as its socket does, so with ``gevent.socket`` it is a
gevent client. The time-out of the socket holds for a whole message and for a whole reply, not for each piece
of one.

With ``reconnect`` (:class:`chat_gevent.reconnect.Reconnect`) it comes back when the connection is lost: the
next call connects first. What was sent and not confirmed by then is reported, :class:`MessageLost`, and never
sent again by itself. A server may have handled it, and only the caller knows whether twice does harm. The one
exception is a server that did not let the client in (``server-full``, ``address-full``): it has read nothing.

How it works: each message that is sent is kept until a reply has come, one reply for each message, as the
protocol has it. (Where a server speaks unasked, or does not reply to some messages, that count is off: then
``confirm`` is not for it, and what is reported as lost is a guess.) Before a message is sent the client looks
whether the server has said its last word meanwhile: a connection that was closed while nothing was under way
costs no message.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from chat_gevent.confirm import ErrorCode, error_code, retry_seconds
from chat_gevent.errors import ConnectionLost, MessageLost, Unsendable
from chat_gevent.framing import AUTO, CHUNK, CHUNK_BYTES, LINE, Chunk, Delimiter, Framing, Kept, Line
from chat_gevent.reconnect import Attempts, Reconnect

READ_BYTES = 65_536
REPLY_BYTES = 2**20
"""Longest reply that is taken for one; a server that sends more without LF does not speak this protocol."""

MOST_UNCONFIRMED: Final = 10_000
"""Most messages that are remembered until they are confirmed: some servers reply to nothing."""

NOT_LET_IN: Final = frozenset((ErrorCode.SERVER_FULL, ErrorCode.ADDRESS_FULL))
"""Last words of a server that has read nothing of what the client sent."""

LAST_WORDS: Final = NOT_LET_IN | {ErrorCode.SHUTTING_DOWN, ErrorCode.SERVER_BUSY, ErrorCode.IDLE_TIMEOUT}
"""Errors that answer no message: the server closes for another reason, and handles nothing more."""


class ChatClient:
    """One connection to a server that confirms messages.

    :param sock: a connected stream socket; the client owns it.
    :param framing: how messages are told apart. To a server that is set to ``auto`` it speaks ``line``. Under
        ``chunk`` a reply is what one read returns.
    :param reconnect: come back when the connection is lost.
    :param dial: makes a new connected socket for that; raises OSError.

    Raises ValueError: ``reconnect`` without ``dial``.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        framing: Framing = LINE,
        reconnect: Reconnect | None = None,
        dial: Callable[[], socket.socket] | None = None,
    ) -> None:
        if reconnect is not None and dial is None:
            raise ValueError("reconnect needs dial, which makes a new connection")
        self.socket = sock
        self.framing = LINE if framing == AUTO else framing
        self._reading = Chunk(READ_BYTES) if self.framing == CHUNK else self.framing
        self._dial = dial
        self._attempts = Attempts(reconnect) if reconnect else None
        self._kept: Kept = b""  # the beginning of a reply
        self._replies: deque[str] = deque()
        self._unconfirmed: deque[str] = deque(maxlen=MOST_UNCONFIRMED)  # with reconnect: no reply has come
        self._last_word = ""  # what the server said before it closed
        self._gone = False  # with reconnect: the connection is to be made again

    @classmethod
    def connect(
        cls,
        host: str = "127.0.0.1",
        port: int = 12345,
        timeout: float | None = 10.0,
        *,
        framing: Framing = LINE,
        reconnect: Reconnect | None = None,
    ) -> ChatClient:
        """Connect; ``timeout`` seconds hold for the connect, and for each message and each reply after it.

        Raises OSError.
        """

        def dial() -> socket.socket:
            sock = socket.create_connection((host, port), timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock

        return cls(dial(), framing=framing, reconnect=reconnect, dial=dial)

    # -- messages ------------------------------------------------------------------------------------

    def send(self, message: str) -> None:
        """Send one message.

        Raises Unsendable: the framing can't carry it; ConnectionLost, MessageLost; TimeoutError.
        """
        data = encoded(message, self.framing)
        self._look_for_the_end()
        if self._attempts is not None:
            self._unconfirmed.append(message)
        try:
            self.socket.sendall(data)
        except ConnectionError as error:
            self._lose(f"the server is gone: {error.strerror}", error)
        except TimeoutError:
            self._drop("the server took nothing in time")  # a part of the message may be there
            raise
        if message.strip().lower() == "/exit":
            self._attempts = None  # the server closes now, as it was asked to

    def receive(self) -> str:
        """Wait for the next reply.

        Raises ConnectionLost, MessageLost; TimeoutError; ValueError (no UTF-8, or too long).
        """
        while not self._replies:
            self._come_back()
            try:
                self._wait_for_a_reply()
            except ConnectionLost as error:
                self._lose(str(error), error)
        return self._replies.popleft()

    def confirm(self, message: str) -> str:
        """Send one message and wait for the reply to it.

        Raises what :meth:`send` and :meth:`receive` do. A time-out closes the connection: the reply may come
        yet, and would be taken for the next message's.
        """
        while True:
            try:
                self.send(message)
                reply = self.receive()
            except TimeoutError:
                self._drop("the server did not answer in time")
                raise
            if self._attempts is None or not self._last_word or reply != self._last_word:
                return reply
            lost = tuple(self._unconfirmed) or (message,)
            self._drop(reply)
            if lost != (message,) or error_code(reply) not in NOT_LET_IN:
                raise MessageLost(lost, False, reply)

    def pending(self) -> bool:
        """Whether a reply is there, or the server has closed. Never blocks.

        Raises ValueError (no UTF-8), MessageLost. With ``reconnect`` a server that has closed has no reply,
        and :attr:`lost` is true.
        """
        if not self._replies and not self._gone:
            try:
                self._read_what_is_there()
            except ConnectionLost as error:
                if self._attempts is None:
                    return True
                self._lose(str(error), error)
        return bool(self._replies)

    def close(self) -> None:
        """Close the connection, for good."""
        self._attempts = None
        self.socket.close()

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- coming back ---------------------------------------------------------------------------------

    @property
    def lost(self) -> bool:
        """Whether the connection is known to be gone, and the next call will make it again."""
        return self._gone and self._attempts is not None

    @property
    def next_try(self) -> float:
        """When the next try to connect is due, on the monotonic clock; of a client that is :attr:`lost`."""
        return self._attempts.due if self._attempts else 0.0

    def try_again(self) -> bool:
        """Try once, now, to connect again; returns whether it did. Raises OSError where no try can help."""
        attempts = self._attempts
        if attempts is None or self._dial is None:
            return False
        try:
            sock = self._dial()
        except OSError as error:
            if getattr(error, "verify_code", 0):  # TLS: who answers there is not whom we know
                raise
            attempts.lost(None, error.strerror or str(error))
            return False
        self._take_back_last_word()
        self.socket, self._kept, self._last_word, self._gone = sock, b"", "", False
        if attempts.policy.on_reconnect is not None:
            self._attempts = None  # what it loses is no more than a try that failed
            try:
                attempts.policy.on_reconnect(self)
            except (ConnectionLost, TimeoutError) as error:
                self._last_word = self._last_word or str(error)
            finally:
                self._attempts = attempts
            if self._last_word:
                self._drop(self._last_word)
        return not self._gone

    def _come_back(self) -> None:
        """Connect again if the connection is lost. Raises ConnectionLost: not in time."""
        while self._gone and self._attempts is not None:
            self._attempts.wait_until_due()
            self.try_again()

    def _look_for_the_end(self) -> None:
        """With ``reconnect``: before a message is sent, see whether the server has gone, and come back."""
        if self._attempts is not None and not self._gone:
            try:
                while self._read_what_is_there():
                    pass
            except ConnectionLost as error:
                self._lose(str(error), error)
        self._come_back()

    def _lose(self, why: str, error: ConnectionError) -> None:
        """The connection is gone; raises ``error``, or MessageLost, unless nothing is lost by that."""
        if self._attempts is None:
            if isinstance(error, ConnectionLost):
                raise error
            raise ConnectionLost(why) from error
        with contextlib.suppress(OSError, ValueError):
            while self._read_what_is_there():  # replies that came before
                pass
        lost, word = tuple(self._unconfirmed), self._last_word
        self._drop(word or why)
        not_let_in = error_code(word) in NOT_LET_IN and word in self._replies  # which says it all
        if lost and not not_let_in:
            self._take_back_last_word()
            raise MessageLost(lost, not word, word or why)

    def _take_back_last_word(self) -> None:
        """Have nobody take the last word of a lost connection for a reply to something else."""
        if self._last_word and self._last_word in self._replies:
            self._replies.remove(self._last_word)

    def _drop(self, why: str) -> None:
        """Close the socket, and have the next call connect again if that was asked for."""
        self.socket.close()
        self._unconfirmed.clear()
        if self._attempts is not None and not self._gone:
            self._gone = True
            self._attempts.lost(retry_seconds(why), why)

    # -- reading -------------------------------------------------------------------------------------

    def _wait_for_a_reply(self) -> None:
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

    def _read_what_is_there(self) -> bool:
        """Read once without waiting; whether there was anything. Raises ConnectionLost, ValueError."""
        timeout = self.socket.gettimeout()
        self.socket.settimeout(0)
        try:
            self._read()
        except ConnectionLost:
            raise
        except OSError:  # nothing is there, or TLS has nothing to tell yet
            return False
        finally:
            self.socket.settimeout(timeout)
        return True

    def _read(self) -> None:
        try:
            data = self.socket.recv(READ_BYTES)
        except ConnectionError as error:
            raise ConnectionLost(f"the server is gone: {error.strerror}") from error
        if not data:
            kept, self._kept = bytes(self._kept), b""
            if kept and not isinstance(self._reading, Chunk):
                raise ConnectionLost(f"the server closed in the middle of a reply: {kept[:60]!r}")
            replies = self._reading.finish(kept, REPLY_BYTES)
            if not replies:
                raise ConnectionLost("the server closed the connection")
        else:
            replies, self._kept = self._reading.split(self._kept, data, REPLY_BYTES)
        for each in replies:
            reply = each.decode()
            self._replies.append(reply)
            if error_code(reply) in LAST_WORDS:
                self._last_word = reply
            elif self._attempts is not None:
                self._attempts.answered()
                if self._unconfirmed:
                    self._unconfirmed.popleft()


def encoded(message: str, framing: Framing = LINE) -> bytes:
    """``message`` as it goes over the wire. Raises Unsendable: the framing can't carry it as one message."""
    data = message.encode()
    if isinstance(framing, Line) and "\n" in message:
        raise Unsendable("a message can't contain a line feed: it would be two")
    if isinstance(framing, Delimiter) and (data + framing.end).find(framing.end) != len(data):
        raise Unsendable("a message can't contain the delimiter, or make one with its end: it would be two")
    if isinstance(framing, Chunk) and not 0 < len(data) <= CHUNK_BYTES:
        raise Unsendable(f"a chunk has 1 to {CHUNK_BYTES} bytes, this has {len(data)}")
    try:
        return framing.encode(data)
    except OverflowError:
        raise Unsendable(f"a message of {len(data)} bytes is longer than its count can say") from None
