"""A TCP client that sends messages and takes replies, whatever the reads that they arrive in.

The client knows nothing of Locust. It raises the classes of :mod:`loadtest.errors`, and keeps apart
how long the connection took (``connect_seconds``, with the TLS handshake ``tls_seconds`` of it), when
the first byte of a reply came (``first_byte_at``) and when the reply was complete (``reply_at``), both
on the clock of ``time.perf_counter``. One greenlet uses a client at a time.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any, Final

from gevent import getcurrent

from chat_gevent.framing import FramingError
from loadtest.client.transport import AGAIN, READ_BYTES, ClientOptions, Transport
from loadtest.errors import (
    ConnectionBroken,
    ConnectionClosed,
    DeadlinePassed,
    FramingBroken,
    ReadTimeout,
    UnexpectedData,
)
from loadtest.framing import ReplyFraming, ends_with_stream, marks_ends

MOST_READ_BYTES: Final = 4 * 2**20
"""Most bytes of a later read of a long reply."""
SHOWN_BYTES: Final = 80
"""How much of a reply an error shows."""


class TcpClient(Transport):
    """A connection at a time to ``options.target``, and the messages on it; see the module's docstring."""

    __slots__ = ("_kept", "_ready", "first_byte_at", "reply_at")

    def __init__(self, options: ClientOptions) -> None:
        super().__init__(options)
        self.first_byte_at = self.reply_at = 0.0
        self._kept: Any = b""  # what the framing keeps of an unfinished reply
        self._ready: list[bytes] | None = None  # replies that were read and not taken yet

    def close(self) -> None:
        """Close at once, and drop what was read and not taken."""
        super().close()
        self._kept = b""
        self._ready = None

    def receive(
        self, length: int | None = None, deadline: float = 0.0, framing: ReplyFraming | None = None
    ) -> bytes:
        """The next reply, without its framing; ``length`` says its size where the framing can't.

        ``deadline`` is on the clock of ``time.perf_counter``; the read time-out from now unless given.
        ``framing`` is that of this reply alone; what came together with an earlier one was cut by the
        framing of that.

        Raises ReadTimeout, ConnectionClosed, ConnectionBroken, FramingBroken.
        """
        if self._ready:
            data = self._ready.pop(0)
            self._ready = self._ready or None
            self.first_byte_at = self.reply_at = perf_counter()
            return data
        options = self.options
        framing = framing or options.framing
        deadline = deadline or perf_counter() + options.read_timeout
        kept, self._kept = self._kept, b""
        data, self._buffer = self._buffer, b""
        self.first_byte_at = perf_counter() if data or kept else 0.0
        if not marks_ends(framing):
            return self._receive_unmarked(data, length, deadline)
        split, limit = framing.split, options.reply_limit
        beginning, gathered = data[:SHOWN_BYTES], len(data)
        while True:
            if data:
                try:
                    replies, kept = split(kept, data, limit)
                except FramingError as error:
                    raise FramingBroken(str(error)) from None
                if replies:
                    self._kept = kept
                    self.reply_at = perf_counter()
                    first = replies.pop(0)
                    self._ready = replies or None
                    return first
            try:
                data = self._read_more(deadline, beginning, gathered)
            except ConnectionClosed:
                if not (ends_with_stream(framing) and gathered):
                    raise
                self.reply_at = perf_counter()
                return framing.finish(kept, limit)[0]
            beginning = beginning or data[:SHOWN_BYTES]
            gathered += len(data)

    def _receive_unmarked(self, data: bytes, length: int | None, deadline: float) -> bytes:
        """A reply whose end nothing marks: of at least ``length`` bytes, or what one read returns."""
        pieces, gathered = [data], len(data)
        while gathered < (length or 1):
            data = self._read_more(deadline, b"".join(pieces)[:SHOWN_BYTES], gathered)
            pieces.append(data)
            gathered += len(data)
        self.reply_at = perf_counter()
        return b"".join(pieces)

    def _read_more(self, deadline: float, beginning: bytes, gathered: int) -> bytes:
        """Read once more of a reply, ``gathered`` bytes of which are here; long replies take large reads."""
        try:
            data = self.read(deadline, max(READ_BYTES, min(gathered, MOST_READ_BYTES)))
        except DeadlinePassed:
            raise ReadTimeout(f"{gathered} bytes by the time-out: {beginning!r}") from None
        if not self.first_byte_at:
            self.first_byte_at = perf_counter()
        if not data:
            raise ConnectionClosed(f"after {gathered} bytes of a reply: {beginning!r}")
        return data

    def ask(self, wire: bytes, timeout: float = 0.0) -> bytes:
        """Send ``wire`` and return what the first read then brings: the whole reply, nearly always.

        ``timeout`` is for this reply, in seconds; the read time-out unless given.

        The hot path, so written out in one piece. Raises what ``send`` and ``receive`` raise, and
        UnexpectedData where bytes had come before anything was asked for. What is missing of the reply
        is read by ``complete``.
        """
        if self._buffer or self._kept or self._ready or not self._watching:
            self.expect_silence()
        sock = self._socket
        try:
            sent = sock.send(wire)
        except OSError as error:
            if error.errno not in AGAIN:
                raise ConnectionBroken(error.errno or 0, str(error.strerror)) from None
            sent = 0
        if sent != len(wire):
            self._send_rest(wire, sent)
        if not self._watching:  # only sending it in parts stops the watcher
            self._watcher.start(self._wake)
            self._watching = True
        timeout = timeout or self.options.read_timeout
        self._deadline = deadline = perf_counter() + timeout
        if self._timer is None or deadline < self._armed_until:
            self._arm()
        self._waiting = getcurrent()
        try:
            self._hub.switch()
        except DeadlinePassed:
            raise ReadTimeout(f"no reply after {timeout:g} s") from None
        finally:
            self._waiting = None
        try:
            data: bytes = sock.recv(READ_BYTES)
        except OSError as error:
            if error.errno not in AGAIN:
                raise ConnectionBroken(error.errno or 0, str(error.strerror)) from None
            return b""
        if not data:
            raise ConnectionClosed("before a reply")
        return data

    def complete(self, data: bytes, length: int | None = None, framing: ReplyFraming | None = None) -> bytes:
        """The reply that began with ``data``, which ``ask`` returned; otherwise as ``receive``."""
        self._buffer += data
        return self.receive(length, self._deadline, framing)

    def request(self, message: bytes, length: int | None = None) -> bytes:
        """Send one message and return its reply. Raises as ``send``, ``receive`` and ``expect_silence``."""
        self.expect_silence()
        self.send(self.options.framing.encode(message))
        return self.receive(length)

    def pipeline(self, messages: list[bytes]) -> list[bytes]:
        """Send messages in one write and return their replies, in order. Raises as ``request``."""
        self.expect_silence()
        encode = self.options.framing.encode
        self.send(b"".join([encode(message) for message in messages]))
        return [self.receive() for _ in messages]

    @property
    def extra(self) -> bytes:
        """The beginning of what was read beyond the replies that were taken; empty where there is nothing."""
        if self._ready:
            return self._ready[0][:SHOWN_BYTES]
        if self._kept:
            unfinished = b"".join(self.options.framing.finish(self._kept, self.options.reply_limit))
            return unfinished[:SHOWN_BYTES] or b"(an unfinished message)"
        return self._buffer[:SHOWN_BYTES]

    @property
    def unfinished(self) -> bool:
        """Whether a message has begun to come that nobody has asked for, and its rest has not come yet."""
        return bool(self._kept)

    @property
    def has_surplus(self) -> bool:
        """Whether something was read beyond the replies that were taken."""
        return bool(self._ready or self._kept or self._buffer)

    @property
    def restless(self) -> bool:
        """Whether something was read that nobody took, or may be there to be read."""
        return not self._watching or bool(self._buffer or self._kept or self._ready)

    def take_surplus(self) -> list[bytes]:
        """All whole messages that have come and were not taken, without waiting for more.

        What is unfinished stays, unless the framing doesn't mark ends. Raises ConnectionClosed,
        ConnectionBroken, FramingBroken.
        """
        found, self._ready = self._ready or [], None
        data, self._buffer = self._buffer, b""
        while True:
            if data:
                try:
                    messages, self._kept = self.options.framing.split(
                        self._kept, data, self.options.reply_limit
                    )
                except FramingError as error:
                    raise FramingBroken(str(error)) from None
                found += messages
            if self._watching:
                return found
            more = self.available()
            if more is None:
                self.watch()
                return found
            if not more:
                if found:  # these first; the end will be found again
                    return found
                raise ConnectionClosed("while nothing was asked for")
            data = more

    def read_pushed(self) -> list[bytes]:
        """The whole messages that have come, to be called in the loop when there is input.

        Raises as ``take_surplus``, which this is but for looking once, and at once.
        """
        found = self.available()
        if found == b"":
            raise ConnectionClosed("while nothing was asked for")
        data, self._buffer = self._buffer + (found or b""), b""
        try:
            messages, self._kept = self.options.framing.split(self._kept, data, self.options.reply_limit)
        except FramingError as error:
            raise FramingBroken(str(error)) from None
        return messages

    def drop_surplus(self) -> bool:
        """Forget what was read and not taken; whether all of it was whole, and what follows is in step."""
        whole = not self._kept and not self._buffer
        self._ready, self._kept, self._buffer = None, b"", b""
        return whole

    def put_back(self, data: bytes) -> None:
        """Let ``receive`` begin with ``data``, the rest of what ``ask`` returned."""
        self._buffer += data

    def expect_silence(self) -> None:
        """Make sure that nothing is waiting to be read; a system call only where the watcher saw something.

        Raises UnexpectedData, ConnectionClosed, ConnectionBroken.
        """
        if self._buffer or self._kept or self._ready:
            raise UnexpectedData(repr(self.extra))
        if self._watching:
            return
        if self._socket is None:
            raise ConnectionClosed("not connected")
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            self._watcher.start(self._wake)
            self._watching = True
            return
        except OSError as error:
            raise ConnectionBroken(error.errno or 0, str(error.strerror)) from None
        if not data:
            raise ConnectionClosed("while nothing was asked for")
        self._buffer = data
        raise UnexpectedData(repr(data[:SHOWN_BYTES]))

    def idle(self, seconds: float) -> None:
        """Hold the connection for ``seconds`` and notice at once when the server speaks or leaves.

        Raises UnexpectedData, ConnectionClosed, ConnectionBroken.
        """
        deadline = perf_counter() + seconds
        try:
            while True:
                self.expect_silence()
                self._await_input(deadline)
                self._watcher.stop()
                self._watching = False
        except DeadlinePassed:
            return

    def finish(self, message: bytes) -> float:
        """Send ``message``, which ends the conversation, wait for the end of the stream, and close.

        Returns the seconds from sending to the end of the stream. Raises UnexpectedData where anything
        else comes before it, ReadTimeout where it does not come, and what ``send`` raises.
        """
        self.expect_silence()
        begin = perf_counter()
        self.send(self.options.framing.encode(message))
        try:
            data = self.read(begin + self.options.read_timeout)
        except DeadlinePassed:
            raise ReadTimeout("the stream did not end") from None
        if data:
            raise UnexpectedData(repr(data[:SHOWN_BYTES]))
        seconds = perf_counter() - begin
        self.close()
        return seconds
