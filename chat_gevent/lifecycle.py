"""How a connection ends.

:class:`Lifecycle` is the part of a connection that any greenlet may touch, and the hub: nothing here reads.
There are three endings:

* :meth:`Lifecycle.finish`, in its own greenlet: send what is due, and end the output. Closing a socket with
  unread input makes the kernel send RST, which can destroy replies that the client has not read. So what
  still comes in is read and dropped until the client closes as well, or ``linger_timeout`` is over.
* :meth:`Lifecycle.ask_to_leave`, from anywhere: have it finish as soon as what it has sent is answered.
* :meth:`Lifecycle.cut`, from anywhere: close at once.
"""

from __future__ import annotations

import contextlib
import logging
import random
from _socket import MSG_PEEK, SHUT_RDWR, SHUT_WR
from _socket import socket as RawSocket
from errno import ECONNRESET, EPIPE
from select import EPOLLIN
from typing import Any, Final

from gevent import GreenletExit, getcurrent

from chat_gevent.confirm import ErrorCode, with_retry
from chat_gevent.errors import Closed, WriteTimeout
from chat_gevent.framing import Auto
from chat_gevent.outgoing import Outgoing, error_bytes
from chat_gevent.state import BUSY, CLOSED, CLOSING, OPENING, PARKED, PARKED_SHORT, QUEUED, WAITING

log = logging.getLogger("chat_gevent")

EXPLANATIONS: Final[dict[str, str]] = {
    ErrorCode.SERVER_FULL: "no more clients are admitted now, try again later",
    ErrorCode.ADDRESS_FULL: "too many clients share your address",
    ErrorCode.SHUTTING_DOWN: "the server is going away",
    ErrorCode.SERVER_BUSY: "too many messages are unfinished, and yours is among the longest",
    ErrorCode.IDLE_TIMEOUT: "no complete message came for too long",
}

TEMPORARY: Final = frozenset(
    (ErrorCode.SERVER_FULL, ErrorCode.ADDRESS_FULL, ErrorCode.SHUTTING_DOWN, ErrorCode.SERVER_BUSY)
)
"""Why a client must go that is welcome again later: it is told when."""

REFUSED_LINGERING: Final = 32
"""Most refused clients that are waited for to read their refusal; those beyond are told, and closed at once.

Half of the files that :data:`chat_gevent.files.RESERVED_FILES` keeps."""

REFUSALS: Final = frozenset((ErrorCode.SERVER_FULL, ErrorCode.ADDRESS_FULL))
"""Why a client was not admitted: the connection only tells it so."""

UNUSED: Final = "unused"
"""The reason of a close by a client that connected and sent no message, as health checks do."""

GIVEN_UP: Final = frozenset(("slow", "write-timeout", "lost", "reset", UNUSED))
"""Why a client was given up that is gone, or does not take what is sent to it."""

BY_SERVICE: Final = "handler"
"""The reason of a close that a handler or service asked for."""


def explain(code: str, spread: float, problem: str = "") -> str:
    """What a client is told for ``code``, and when to come back, if it may.

    :param spread: seconds over which clients are spread at random; 0: nothing is said of when.
    :param problem: to be said instead of the usual explanation.
    """
    explanation = problem or EXPLANATIONS[code]
    if spread and code in TEMPORARY:
        return with_retry(explanation, max(0.1, random.uniform(0, spread)))
    return explanation


def refuse_at_once(core: Any, client: RawSocket, code: ErrorCode, problem: str = "") -> None:
    """Tell a client why it can't come in, as well as that can be done without waiting for it, and close."""
    _tell_at_once(core, client, code, problem)
    client.close()


def _tell_at_once(core: Any, client: RawSocket, code: ErrorCode, problem: str = "") -> None:
    try:
        told = error_bytes(core, core.framing, code, explain(code, core.settings.retry_spread, problem))
    except BaseException:  # whatever a hook raises is its own failure, not the server's
        log.exception("error_reply failed")
        told = b""
    try:
        client.send(told)
        client.shutdown(SHUT_WR)
        client.recv(16_384)  # what is left unread at the close would make it a reset
    except OSError:
        pass


class Lifecycle(Outgoing):
    """The endings of a connection. Parameters as of :class:`chat_gevent.connection.Connection`."""

    __slots__ = ()

    def opening_deadline(self) -> float:
        """Until when an opening may take, on the system's clock."""
        now: float = self.core.system.monotonic()
        return now + (self.core.settings.handshake_timeout or 2**31)

    def wait_opening(self, deadline: float) -> None:
        """Wait for input that the opening needs. Raises Closed: it did not come in time."""
        if not self.wait_readable(max(0.001, deadline - self.core.system.monotonic())):
            self.cut("handshake-timeout")
            raise Closed

    def close_by_service(self, last: str | bytes | None) -> None:
        """Close once all that is due is sent."""
        framed = None if last is None else self._framed(last)
        if not self.is_leaving:
            self.core.broadcasts.catch_up(self)
            self.known_client()._last = framed
            self.leaving = BY_SERVICE
            if self.greenlet is None or self.waiter is not None:
                self._look_up()

    def look_for_room(self, ticks: int, untaken: int) -> None:
        """Close if the client takes too little of what is due, or nothing for too long. Never blocks.

        ``untaken`` bytes were left of what was sent when it last took something, ``ticks`` ago.
        """
        try:
            left = self.core.system.untaken(self.fd)
        except OSError:
            left = untaken
        if left < untaken:
            self.core.engine.room_is_made(self, left)
        elif ticks >= self.core.write_ticks:
            self.give_up("write-timeout")
            return
        since, before = self.core.waited_for.get(self, (0.0, 0))
        if since:
            try:
                self.core.demand_rate(self.core.system.monotonic() - since, self.taken() - before)
            except (OSError, WriteTimeout):
                self.give_up("write-timeout")

    def give_up(self, reason: str) -> None:
        """Close at once, because the client does not take what is due. Never blocks.

        A greenlet that is at work for it is not interrupted: it fails at its next try to send.
        """
        if self.greenlet is None or self.waiter is not None:
            self.cut(reason)
        elif not self.is_leaving:
            self.leaving = reason
            with contextlib.suppress(OSError):  # it may be gone already
                self.socket.abandon() if self.encrypted else self.socket.shutdown(SHUT_RDWR)

    # -- endings -------------------------------------------------------------------------------------

    def finish(self, reason: str, code: ErrorCode | None = None, explanation: str = "") -> None:
        """Send what is due and an error, if there is one to tell, and end the output.

        What still comes in is dropped, until the client closes too. Blocks as :meth:`send_due` does. Raises
        OSError, WriteTimeout, Closed.
        """
        self.reason = reason
        self.core.broadcasts.catch_up(self)
        if code is not None:
            self._tell_error(code, explanation)
        self._say_last()
        self.send_due()
        self._end_output()

    def _say_last(self) -> None:
        """Put the service's last message into what is due: all else is there by now."""
        client = self.client
        if client is not None and client._last is not None and self.leaving == BY_SERVICE:
            self._due().append(client._last)
            client._last = None
            self.core.registry.pushes += 1

    def _end_output(self) -> None:
        if self.state is CLOSED:  # it was cut off while its hook was at work
            raise Closed
        self.move(CLOSING)
        self._drop_input()
        self.tick = self.core.engine.tick
        try:
            self.socket.shutdown(SHUT_WR)
        except OSError as error:
            self.lost(error)
            raise Closed from None

    def _drop_input(self) -> None:
        """Let go of what was read and is not answered any more."""
        if self.kept:
            self.core.input.hold(-len(self.kept))
            self.kept = b""
        self.input = None

    def _leave_if_asked(self) -> bool:
        """Finish if somebody has asked for it; an error code is told to the client."""
        if not self.leaving or self.state >= CLOSING:
            return False
        if self.leaving in EXPLANATIONS:
            explanation = explain(self.leaving, self.core.settings.retry_spread)
            self.finish(self.leaving, ErrorCode(self.leaving), explanation)
        else:
            self.finish(self.leaving)
        return True

    def refuse(self, code: ErrorCode) -> None:
        """Have the client told why it can't come in, as soon as it is served."""
        self.leaving = code
        if self.state is PARKED_SHORT:
            self.move(PARKED)

    def refuse_early(self) -> None:
        """Close now, if the client is refused and too many of these are there. Raises Closed: it was done."""
        if self.leaving in REFUSALS and self.core.registry.refusals > REFUSED_LINGERING:
            _tell_at_once(self.core, self.socket, ErrorCode(self.leaving))
            self.cut(self.leaving)
            raise Closed

    def ask_to_leave(self, reason: str) -> None:
        """Have the client told why it must go, once what it has sent is answered. Never blocks."""
        if self.state >= CLOSING:
            return
        if not self.leaving:
            self.core.broadcasts.catch_up(self)  # what it was promised comes before the end
            self.leaving = reason
        if self.opening is not None and not self._has_input():
            self.cut(reason)  # it has said nothing yet that could be answered
        elif self.greenlet is None or (self.waiter is not None and self.state is not OPENING):
            self._look_up()

    def _look_up(self) -> None:
        """Have a greenlet look at the connection, although there was no event."""
        if self.greenlet is None:
            if self.state is PARKED_SHORT:
                self.move(PARKED)
            self.core.engine.call(self)
        else:
            self.end_wait(EPOLLIN)  # if it waits; if not, it will see by itself

    def _has_input(self) -> bool:
        try:
            return bool(self.socket.recv(1, MSG_PEEK))
        except OSError:
            return False

    def overdue(self, age: int) -> None:
        """Close if it is time; ``age`` is in ticks since its last activity. In the hub; never blocks."""
        core = self.core
        if self.state is CLOSING:
            if age >= core.linger_ticks:
                self.cut("linger")
        elif self.state is OPENING and self.greenlet is self.waiter:
            if age >= core.opening_ticks:
                self.expire("handshake-timeout")
        elif self.state is QUEUED:  # it waits for us, not we for it
            self.tick = core.engine.tick
        elif age >= core.idle_ticks and self.state not in (OPENING, BUSY):
            if self.state is WAITING and type(self.framing) is Auto:
                return  # what it sent will be answered in a moment
            if self._has_input():
                return  # it came in time, and we are late: the process stood still, or was busy
            self.expire("idle-timeout")

    def expire(self, reason: str) -> None:
        """Tell a client that is parked or waits for input why it must go, and close. Never blocks."""
        self.reason = reason
        try:
            if self.state is OPENING:
                self.cut(reason)
            else:
                self._tell_error(ErrorCode(reason), EXPLANATIONS[reason])
                if self.flush():
                    self._end_output()
                else:
                    self.cut(reason)  # it takes no more: it has not read what it was sent before
        except (OSError, Closed):
            self.cut(reason)
        self.end_wait()

    def abort(self, reason: str = "cut-off") -> None:
        """Close at once, whatever is due, and end the greenlet that serves the connection."""
        self.cut(reason)
        if self.greenlet is not None:
            self.core.system.hub.loop.run_callback(self._end_greenlet)

    def _end_greenlet(self) -> None:
        if self.greenlet is not None:  # it may have ended meanwhile, and be another client's by now
            self.waiter = None
            self.greenlet.throw(GreenletExit)

    def lost(self, error: OSError) -> None:
        """The client vanished: nothing that is due can reach it."""
        log.debug("client lost: %s", error)
        reason = "lost"
        if error.errno in (ECONNRESET, EPIPE):
            reason = "reset" if self.received or self.sent else UNUSED
        if self.greenlet is None or self.greenlet is getcurrent():
            self.cut(reason)
        else:  # which may wait for room in the socket: it would wait on, once that is closed
            self.give_up(reason)

    def without_memory(self) -> None:
        """Close, because there is no memory for what the client has sent: what it had is given back."""
        log.error("out of memory: closed a client that has sent %d bytes", self.received)
        self.cut("no-memory")

    def cut(self, reason: str) -> None:
        """Close the socket now. A reason that was there before, of the finish, is kept."""
        if self.state is CLOSED:
            return
        if self.state is not CLOSING:
            self.reason = self.leaving if self.leaving in GIVEN_UP else reason
        fd = self.fd
        self.move(CLOSED)
        self._drop_input()
        self.core.gone(self, fd)
        self.socket.close()
        self.end_wait()
        if self.greenlet is None:
            self.outbox = None
            self._tell_disconnected()

    def _tell_disconnected(self) -> None:
        client, self.client = self.client, None
        if client is not None and client._connected:
            client._connected = False
            self.core.tell_disconnected(client, str(self.reason))
