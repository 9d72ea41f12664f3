"""One client: read, answer, send, park, close.

A connection is a small object with slots and no greenlet of its own. Whoever calls :meth:`serve`
leases it a greenlet for that long; when nothing is left to read the call returns, and the client is
parked. What could be asked of the kernel (the peer's address) is not stored.

A connection's life is three phases: ``OPENING`` while a TLS handshake or a PROXY header is due,
``SERVING``, and ``CLOSING`` once its last reply is on the way. Closing a socket with unread input
makes the kernel send RST, which can destroy replies the client has not read. So :meth:`hang_up` shuts
down the write side, and what still comes in is read and dropped until the client closes as well, or
``linger_timeout`` is over.

Every message that was read is answered before the connection closes, unless the client vanished.
"""

from __future__ import annotations

import logging
import time
from _socket import MSG_PEEK, SHUT_WR
from enum import IntEnum
from errno import ECONNRESET, EPIPE
from select import EPOLLIN
from typing import TYPE_CHECKING, Any, Final

from gevent import GreenletExit, getcurrent, sleep, spawn_raw

from chat_gevent.confirm import ErrorCode, confirm_lines, error_reply, is_exit
from chat_gevent.framing import (
    AUTO_SECONDS,
    CHUNK_BYTES,
    Framing,
    MessageTooLong,
    split_chunk,
    split_lines,
)
from chat_gevent.stream import Stream, WriteTimeout

if TYPE_CHECKING:
    from _socket import socket as RawSocket
    from collections.abc import Callable

    from chat_gevent.parking import ParkingLot


READ_BYTES: Final = 16_384
"""Most bytes taken with one read. What is due to a client that reads nothing is what one read asked for."""

READS_PER_LEASE: Final = 16
"""Most reads before others have their turn, so that a client that floods can't starve them. One whole read
of :data:`READ_BYTES` ends it as well: 5,000 short messages that each need a look are work enough."""

REPLIES_PER_SEND: Final = 1024
"""Most replies gathered for one send: what is held for a client that doesn't read is held for long."""

log = logging.getLogger("chat_gevent")

EXPLANATIONS: Final[dict[str, str]] = {
    ErrorCode.SERVER_FULL: "no more clients are admitted now, try again later",
    ErrorCode.ADDRESS_FULL: "too many clients share your address",
    ErrorCode.SHUTTING_DOWN: "the server is going away",
}

REFUSALS: Final = frozenset((ErrorCode.SERVER_FULL, ErrorCode.ADDRESS_FULL))
"""Why a client never came in: the connection only tells it so."""


class Phase(IntEnum):
    """Where a connection is in its life."""

    OPENING = 0
    SERVING = 1
    CLOSING = 2


class Closed(Exception):
    """The connection ended while it was being served; nothing is left to do for it."""


class Connection(Stream):
    """A client's connection; it is also the :class:`chat_gevent.confirm.Client` that handlers are given.

    :param socket: non-blocking; the connection owns it.
    :param lot: what parks the connection and keeps the books.
    :param opening: called once in a leased greenlet before the first message is read, as
        ``opening(connection) -> bytes``; it does the TLS handshake or reads a PROXY header, and
        returns input that it read too much.
    """

    __slots__ = (
        "_opening",
        "framing",
        "leaving",
        "left_over",
        "messages",
        "paid_until",
        "peer",
        "phase",
        "quick",
        "reason",
        "received",
        "since",
        "state",
        "tick",
    )

    def __init__(
        self, socket: RawSocket, lot: ParkingLot, opening: Callable[[Connection], bytes] | None = None
    ) -> None:
        super().__init__(socket, lot)
        self._opening = opening
        self.phase = Phase.SERVING if opening is None else Phase.OPENING
        self.framing = lot.settings.framing
        self.left_over: bytes | bytearray = b""
        self.leaving = ""  # why it is to close after this message; the error code if there is one to tell
        self.reason = "killed"  # of the close; set by whoever knows better
        self.tick = self.since = lot.tick
        self.messages = self.received = 0
        self.paid_until = 0.0  # of message_rate: when all messages so far are paid for
        self.state: Any = None
        self.peer: Any = None  # the address that a PROXY header gave
        self._set_quick()

    def _set_quick(self) -> None:
        """Whether the next wake may go the short way (ParkingLot._work)."""
        self.quick = (
            self.lot.confirms
            and self.lot.parks
            and self.phase is Phase.SERVING
            and self.framing is Framing.LINE
            and not self.left_over
            and not self.tls
            and not self.leaving
        )

    # -- what a handler may use ----------------------------------------------------------------

    @property
    def address(self) -> Any:
        """The peer's address as ``getpeername`` or a PROXY header gives it; None once it is gone."""
        if self.peer is not None:
            return self.peer
        try:
            return self.socket.getpeername()
        except OSError:
            return None

    def close(self) -> None:
        """Close after the reply to the message that is being handled."""
        self.leaving = self.leaving or "handler"

    # -- serving: all of this runs in a greenlet that is leased to the connection -----------------

    def serve(
        self,
        event: int = 0,
        data: bytes | bytearray | None = None,
        unsent: bytes | memoryview = b"",
        resident: bool = False,
    ) -> None:
        """Send ``unsent``, answer ``data`` and all else that has come in, until the client is parked or gone.

        ``event`` is what epoll said, 0 where it said nothing. A ``resident`` client is parked only when
        :meth:`wait_readable` is told so.
        """
        if self.greenlet is not None:  # another greenlet is at it
            if self.waiting:
                self.waiting = False
                self.lot.resume(self.greenlet, event)
            else:
                self.missed |= event
            return
        self.greenlet = getcurrent()
        self.quick = False
        try:
            if unsent:
                self._send_rest(memoryview(unsent))
            self._serve(event, data, resident)
        except Closed:
            pass
        except WriteTimeout:
            self.drop("write-timeout")
        except OSError as error:
            self.lost(error)
        except BaseException:
            self.drop("killed")
            raise
        finally:
            self.greenlet = None
            self.waiting = False
        self._set_quick()

    def attend(self) -> None:
        """Serve a client that had no event: there is something to tell it. For a greenlet of its own."""
        if self.greenlet is None:
            self.serve()
        else:
            self.release(EPOLLIN)  # if it waits; if not, it will see by itself

    def serve_resident(self) -> None:
        """Serve the client in the current greenlet for as long as it is connected, never parking it."""
        while self.fd >= 0:
            self.serve(resident=True)

    def _serve(self, event: int, data: bytes | bytearray | None, resident: bool) -> None:
        if self._opening is not None:
            opening, self._opening = self._opening, None
            data = opening(self) or None
            if self.phase is Phase.OPENING:  # it has not hung up
                self.phase = Phase.SERVING
            self.tick = self.lot.tick
            event = 0
        if self.leaving in REFUSALS:
            self._leave_if_told()
        while True:
            self._exchange(event, data)
            if not resident or self.fd < 0:
                return
            event, data = self.wait_readable(), None
            if not event:
                return

    def _exchange(self, event: int, data: bytes | bytearray | None) -> None:
        """Read and answer until nothing is left.

        A short read shows that, unless the event said more than "input", or the socket decrypts: then
        only a read that finds nothing does.
        """
        to_the_end = event != EPOLLIN or self.tls
        reads = taken = 0
        while True:
            if reads == READS_PER_LEASE or taken >= READ_BYTES:  # others have their turn
                if not self.tls:
                    if self.fd >= 0:  # else it was cut off while its handler was at work
                        self.lot.defer(self)
                    return
                reads = taken = 0
                sleep(0)  # epoll would not tell of what is decrypted already
            reads += 1
            to_the_end |= self.missed != 0
            self.missed = 0
            asked = CHUNK_BYTES if self.framing is Framing.CHUNK else READ_BYTES
            if data is None:
                data = self.read(asked)
                if data is None:
                    self._leave_if_told()
                    if self.missed:  # it came while that was sent
                        continue
                    return
            taken += len(data)
            if self.phase is Phase.CLOSING:  # what comes after the last reply is dropped
                if not data:
                    self.drop(self.reason)
                    return
            elif not data:
                self._finish()
                return
            else:
                self.received += len(data)
                to_the_end |= self.framing is Framing.AUTO
                self._answer(data)
                if self._leave_if_told():
                    to_the_end = True
            if len(data) < asked and not (to_the_end or self.missed):
                return
            data = None

    def _leave_if_told(self) -> bool:
        """Hang up if somebody has asked for it; an error code is told to the client."""
        if not self.leaving or self.phase is Phase.CLOSING:
            return False
        explanation = EXPLANATIONS.get(self.leaving)
        self.hang_up(self.leaving, self._error(ErrorCode(self.leaving), explanation) if explanation else b"")
        return True

    def _answer(self, data: bytes | bytearray) -> None:
        if self.framing is Framing.AUTO:
            data = self._decide(data)
        lot = self.lot
        limit = lot.settings.max_message_bytes
        if (
            self.framing is Framing.LINE
            and lot.confirms
            and len(self.left_over) + len(data) <= limit  # so no line is longer
            and (end := data.rfind(b"\n") + 1)
            and (reply := confirm_lines(self.left_over + data[:end]))
        ):  # as in ParkingLot._work
            self.left_over = data[end:] or b""
            self.messages += data.count(b"\n")
            self.tick = lot.tick
            self.send(reply)
            return
        too_long = False
        try:
            if self.framing is Framing.LINE:
                if self.left_over and b"\n" not in data and len(self.left_over) + len(data) <= limit:
                    # It grows in place: a copy for each piece would cost a long line its length squared.
                    if not isinstance(self.left_over, bytearray):
                        self.left_over = bytearray(self.left_over)
                    self.left_over += data
                    return
                messages, self.left_over = split_lines(bytes(self.left_over), data, limit)
            else:
                messages, self.left_over = split_chunk(bytes(self.left_over), data, min(CHUNK_BYTES, limit))
        except MessageTooLong as error:
            messages, too_long = error.complete, True
        self._answer_each(messages)
        if too_long and self.phase is not Phase.CLOSING and self.leaving != "handler":
            self._refuse_too_long()

    def _refuse_too_long(self) -> None:
        explanation = f"a message is limited to {self.lot.settings.max_message_bytes} bytes"
        self.hang_up(ErrorCode.MESSAGE_TOO_LONG, self._error(ErrorCode.MESSAGE_TOO_LONG, explanation))

    def _answer_each(self, messages: list[bytes]) -> None:
        lot = self.lot
        handler, rate = lot.handler, lot.settings.message_rate
        now = lot.hub.loop.now
        end = self.framing.terminator
        replies: list[bytes] = []
        exiting = False
        for message in messages:
            began = now()
            if rate:
                self._pay(rate, replies)
            try:
                text = message.decode()
            except UnicodeDecodeError as error:
                explanation = f"byte {error.start} of the message: {error.reason}"
                replies.append(self._error(ErrorCode.INVALID_UTF8, explanation))
                continue
            if is_exit(text):
                exiting = True
                break
            try:
                reply = handler(text, self)
                if reply is not None:
                    replies.append(reply.encode() + end)
                self.messages += 1
            except (GreenletExit, KeyboardInterrupt, SystemExit):
                raise
            except BaseException:  # whatever else a handler raises is its own failure, not the server's
                log.exception("handler failed for %s", self.address)
                replies.append(
                    self._error(ErrorCode.HANDLER_FAILED, "the server could not handle the message")
                )
            # It has blocked, and what is due is kept no longer; or enough is due.
            if replies and (now() != began or len(replies) >= REPLIES_PER_SEND):
                self.send(b"".join(replies))
                replies.clear()
            if self.leaving == "handler":
                break
        if messages:
            self.tick = lot.tick
        if exiting:
            self.hang_up("exit", b"".join(replies))
        elif replies:
            self.send(b"".join(replies))

    def _decide(self, data: bytes | bytearray) -> bytes | bytearray:
        """Settle ``auto``: wait for an LF for as long as it may come; returns all that was read meanwhile.

        More than a message may have without an LF is a line, too: one that is too long.
        """
        self.tick = self.lot.tick
        deadline = time.monotonic() + AUTO_SECONDS
        limit = self.lot.settings.max_message_bytes
        data = bytearray(data)
        complete = b"\n" in data
        while not complete and len(data) <= limit:
            more = self.read(READ_BYTES)
            left = deadline - time.monotonic()
            if more is None:  # not before: epoll tells only of what comes from now on
                if left <= 0:
                    break
                # It may also end because the client is to be parked: the clock tells whether it is time.
                if not self.wait_readable(left) and self.phase is Phase.CLOSING:
                    raise Closed
                continue
            if more == b"":
                break  # the end shows again with the next read
            data += more
            self.received += len(more)
            complete = b"\n" in more
            if left <= 0:
                break
            sleep(0)  # others have their turn
        self.framing = Framing.LINE if complete or len(data) > limit else Framing.CHUNK
        return data

    def _finish(self) -> None:
        """End of stream: what no terminator closed is a last message."""
        last, self.left_over = self.left_over, b""
        if len(last) > self.lot.settings.max_message_bytes:  # by a CR, which an LF would have made its own
            self._refuse_too_long()
        elif last:
            self._answer_each([bytes(last)])
        if self.phase is Phase.SERVING:
            self.reason = "eof"
            if self.tls:
                self._end_output()  # TLS wants its own notice of the end; without it a client sees an error
        self.drop(self.reason)

    def _pay(self, rate: float, replies: list[bytes]) -> None:
        """Token bucket, one second deep: wait until the client may send a message again."""
        now = time.monotonic()
        ahead = self.paid_until - now - 1
        if ahead > 0 and not self.lot.draining.is_set():
            if replies:
                self.send(b"".join(replies))
                replies.clear()
            self.lot.draining.wait(ahead)
            now = time.monotonic()
        self.paid_until = max(self.paid_until, now) + 1 / rate

    def _error(self, code: ErrorCode, explanation: str) -> bytes:
        self.lot.errors[code] += 1
        end = b"" if self.framing is Framing.CHUNK else b"\n"
        return error_reply(code, explanation) + end

    # -- the end -----------------------------------------------------------------------------------

    def hang_up(self, reason: str, last: bytes = b"") -> None:
        """Send ``last``, end the write side, and drop what still comes in until the client closes too.

        Blocks as :meth:`send` does. Raises OSError, WriteTimeout.
        """
        self.reason = reason
        if last:
            self.send(last)
        self._end_output()

    def _end_output(self) -> None:
        self.phase = Phase.CLOSING
        self.quick = False
        self.tick = self.lot.tick
        try:
            self.socket.shutdown(SHUT_WR)
        except OSError as error:
            self.lost(error)
            raise Closed from None

    def expire(self, code: ErrorCode, reason: str) -> None:
        """Tell a client that is parked or waits for input why it must go, and close. Never blocks."""
        if self.greenlet is not None and not self.waiting:
            return  # a handler is at work, or a reply on its way: neither is idle
        self.reason = reason
        try:
            if self.phase is Phase.SERVING:
                self.sent += self.socket.send(self._error(code, "no complete message came for too long"))
                self._end_output()
            else:
                self.drop(reason)
        except (OSError, Closed):  # it takes no more: it has not read what it was sent before
            self.drop(reason)
        self.release()

    def dismiss(self) -> None:
        """Have the client told that the server goes away, once what it sent is answered. Never blocks."""
        if self.phase is Phase.CLOSING:
            return
        if self.leaving not in REFUSALS:
            self.leaving = ErrorCode.SHUTTING_DOWN
        if self._opening is not None and not self._has_input():
            self.drop("shutting-down")  # it has said nothing yet that could be answered
        elif self.greenlet is None:
            spawn_raw(self.attend)  # by the time that this runs, input may have come and be served
        elif self.waiting and self.phase is Phase.SERVING:
            self.release(EPOLLIN)

    def _has_input(self) -> bool:
        try:
            return bool(self.socket.recv(1, MSG_PEEK))  # type: ignore[call-arg]  # not TLS before the opening
        except OSError:
            return False

    def abort(self) -> None:
        """Close at once, whatever is due, and end the greenlet that serves the connection."""
        self.drop("cut-off")
        if self.greenlet is not None:
            self.lot.hub.loop.run_callback(self._end_greenlet)

    def _end_greenlet(self) -> None:
        if self.greenlet is not None:  # it may have ended meanwhile, and be another client's by now
            self.waiting = False
            self.greenlet.throw()

    def lost(self, error: OSError) -> None:
        """The client vanished: nothing that is due can reach it."""
        log.debug("client lost: %s", error)
        self.drop("reset" if error.errno in (ECONNRESET, EPIPE) else "lost")

    def drop(self, reason: str) -> None:
        """Close the socket now. A reason that was there before, of the hang-up, is kept."""
        fd = self.fd
        if fd < 0:
            return
        if self.phase is not Phase.CLOSING:
            self.reason = reason
        self.phase = Phase.CLOSING
        self.quick = False
        self.left_over = b""
        self.lot.forget(self, fd)
        self.socket.close()
        self.release()
