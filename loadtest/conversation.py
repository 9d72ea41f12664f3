"""The client of a protocol of one's own: requests, messages without a reply, greetings, pushes, logins, TLS.

Each call is counted under a name and fired as Locust's request event; none raises for what a server does.
What a figure means:

* A reply is judged with what was read together with it: something behind it fails the request. What comes
  later is counted as ``UNEXPECTED``, and fails neither neighbour; with :meth:`Conversation.push` it is a
  push.
* A request that timed out is in the percentiles with the time that it took. A connection that is lost fails
  the request that finds it out; the next one connects, and the user's ``on_connect`` logs in again, before
  it sends. A connect that failed is counted as that, and not as a failed request too.
* With a schedule, the response time of a task's first request counts from the task's intended start, and
  that of each later one from when it was due: when it was called.

Pushes are in :mod:`loadtest.pushes`, transactions and TLS in :mod:`loadtest.steps`.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, time
from typing import Any, Final

from loadtest.client.judgement import checked, judge_by
from loadtest.count.counters import RECEIVE, REQUEST, SEND, Entry
from loadtest.errors import (
    ConnectionClosed,
    ConnectionInUse,
    Failure,
    ReadTimeout,
    RequestFailed,
    UnexpectedData,
)
from loadtest.framing import ReplyFraming, ends_with_stream, marks_ends
from loadtest.reply import Reply
from loadtest.steps import StepSession

_NOT_CONNECTED: Final = "not connected"


class Conversation(StepSession):
    """One user's connection; see the module's docstring."""

    __slots__ = ()

    def request(
        self,
        message: bytes | str,
        *,
        name: str,
        expect: Any = None,
        until: ReplyFraming | None = None,
        timeout: float | None = None,
        catch_response: bool = False,
        context: dict[str, Any] | None = None,
        intended: float = 0.0,
    ) -> Reply:
        """Send ``message`` and return its :class:`Reply`; one that is not what ``expect`` says is a failure.

        :param message: is framed as the connection is, unless it is a :class:`loadtest.framing.Wire`.
        :param expect: bytes, a text, a ``Prefix``, a compiled pattern or a function
            (:mod:`loadtest.client.judgement`).
        :param until: the framing of this reply, where it is not that of the connection.
        :param timeout: seconds for this reply; the read time-out unless given.
        :param catch_response: the reply is a context manager, and the request is reported when its block
            ends: call ``reply.failure("why")`` in it.

        Connects first where there is no connection, and closes it where the request can't have been
        answered in full. Raises TypeError or ValueError, before anything is sent, for what is wrong with
        the arguments; ConnectionInUse; nothing for what the server does.
        """
        wire = self._wire(message)
        expected = expect if type(expect) is bytes else checked(expect)
        entry = self._entry(name, REQUEST)
        allowed = self._allowed(timeout)
        reply = self._begin(entry, context, intended)
        if reply._open:
            if self._pushes is None:
                self._exchange(reply, wire, expected, until, allowed)
            else:
                self._exchange_among_pushes(reply, wire, expected, until, allowed)
            if not catch_response:
                reply.report()
        return reply

    def send(
        self, message: bytes | str, *, name: str | None = None, context: dict[str, Any] | None = None
    ) -> bool:
        """Send a message that has no reply; whether the kernel took it. Raises as ``request``."""
        wire = self._wire(message)
        entry = self._entry(name or "SEND", SEND)
        reply = self._begin(entry, context)
        if not reply._open:
            return False
        try:
            if not self.tcp._watching and self._pushes is None:
                self._notice_end()
            self.tcp.send(wire)
            if not self.tcp._watching and self._pushes is not None:
                self._take_pushes(self.tcp.take_surplus())
        except RequestFailed as error:
            self.close()
            reply.error = error
            reply.ended_at = perf_counter()
            reply.report()
            return False
        except BaseException:
            entry.aborted += 1
            self.close()
            raise
        entry.untimed += 1
        entry.bytes_out += len(wire)
        self.report(entry.name, 0.0, 0, None, reply._start_time, None, context)
        return True

    def receive(
        self,
        *,
        name: str | None = None,
        expect: Any = None,
        until: ReplyFraming | None = None,
        timeout: float | None = None,
        catch_response: bool = False,
    ) -> Reply:
        """Wait for a message that nothing was sent for (a greeting, a push); its time is that of the wait.

        Arguments and errors are those of ``request``.
        """
        expected = checked(expect)
        entry = self._entry(name or "RECEIVE", RECEIVE)
        allowed = self._allowed(timeout)
        reply = self._begin(entry, None)
        if not reply._open:
            return reply
        reply.began = perf_counter()
        deadline = reply.began + allowed
        self._within(
            reply, expected, until, lambda: self._next_reply(expected, deadline, until, reply), False
        )
        if not catch_response:
            reply.report()
        return reply

    def _begin(self, entry: Entry, context: dict[str, Any] | None, intended: float = 0.0) -> Reply:
        """The reply to a request that begins now, with an open connection; or one that is over already."""
        if self.tcp.busy:
            raise ConnectionInUse(
                "another greenlet waits on this connection: give each a connection of its own"
            )
        called = perf_counter()
        if intended or self.intended:
            due = min(intended or self.intended, called)
            self.intended = 0.0
        else:
            due = called if self.paced else 0.0
        reply = Reply(self, entry, context, time(), called, due)
        if not self.tcp.connected:
            self._reopen(reply)
        return reply

    def _reopen(self, reply: Reply) -> None:
        """Connect; where that fails, it is counted as what it is, and the request is not."""
        if self._greeting:  # what the loss has failed already; on_connect runs to its end
            reply.uncounted(Failure(_NOT_CONNECTED))
            return
        if self.owner is not None:
            self.owner.ensure_connected()
        elif not self.connect():
            self.failed += 1
            self.last_failed = "CONNECT"
            reply.uncounted(self.connect_error or Failure(_NOT_CONNECTED))

    def _exchange(
        self, reply: Reply, wire: bytes, expected: Any, until: ReplyFraming | None, allowed: float
    ) -> None:
        """Send ``wire`` and fill in what comes back.

        A reply that was whole and not the expected one leaves requests and replies in step, so the
        connection is kept, with whatever the user has done on it (a login). Where nothing marks the end of
        a reply, a different one may go on, and the connection is closed.
        """
        tcp = self.tcp
        try:
            if tcp.restless:
                self._settle()
                tcp = self.tcp
            reply.began = perf_counter()
            first = tcp.ask(wire, allowed)
            reply.first_byte_at = perf_counter()
            reply.sent = len(wire)
            reply.data = data = tcp.complete(first, len(expected) if type(expected) is bytes else None, until)
            reply.ended_at = tcp.reply_at
            framing = until or self.options.framing
            if data != expected or tcp.has_surplus or ends_with_stream(framing):
                self._judge(reply, expected, until, alone=True)
        except RequestFailed as error:
            self.close()
            reply.ended_at = perf_counter()
            reply.error = error
        except BaseException:
            if reply._open:
                reply.entry.aborted += 1
            self.close()
            raise

    def _exchange_among_pushes(
        self, reply: Reply, wire: bytes, expected: Any, until: ReplyFraming | None, allowed: float
    ) -> None:
        """As ``_exchange``; what comes before it is sent, and what matches, are pushes."""

        def exchange() -> bytes:
            self._take_pushes(self.tcp.take_surplus())
            reply.began = perf_counter()
            self.tcp.send(wire)
            reply.sent = len(wire)
            return self._next_reply(expected, reply.began + allowed, until, reply)

        self._within(reply, expected, until, exchange, False)
        try:
            if self.tcp.connected and self.tcp.has_surplus and not self.tcp.unfinished:
                self._take_pushes(self.tcp.take_surplus())
        except RequestFailed:
            pass  # found out again by what comes next

    def _next_reply(self, expected: Any, deadline: float, until: ReplyFraming | None, reply: Reply) -> bytes:
        """The next message that is no push."""
        length = len(expected) if type(expected) is bytes else None
        while True:
            data = self.tcp.receive(length, deadline, until)
            if self._pushes is None or not self._pushes.is_push(data):
                reply.first_byte_at = self.tcp.first_byte_at
                return data
            self._take_pushes([data])
            if perf_counter() >= deadline:
                raise ReadTimeout("nothing but pushes by the time-out")

    def _within(
        self,
        reply: Reply,
        expected: Any,
        until: ReplyFraming | None,
        exchange: Callable[[], bytes],
        alone: bool,
    ) -> None:
        """Fill ``reply`` with what ``exchange`` returns, and judge it."""
        try:
            reply.data = exchange()
            reply.ended_at = self.tcp.reply_at
            self._judge(reply, expected, until, alone=alone)
        except RequestFailed as error:
            self.close()
            reply.ended_at = perf_counter()
            reply.error = error
        except BaseException:
            if reply._open:
                reply.entry.aborted += 1
            self.close()
            raise

    def _judge(self, reply: Reply, expected: Any, until: ReplyFraming | None, *, alone: bool) -> None:
        """Say what is wrong with a reply; ``alone`` if nothing may have come with it."""
        framing = until or self.options.framing
        if expected is not None:
            try:
                reply.error = judge_by(reply.data, expected)
            except Exception as error:
                reply.error = Failure(type(error).__name__)
                reply.report()
                raise
        if alone and self.tcp.has_surplus:
            reply.error = reply.error or UnexpectedData(repr(self.tcp.extra))
            if not self.tcp.drop_surplus():
                self.close()
        if ends_with_stream(framing) or (reply.error is not None and not marks_ends(framing)):
            self.close()

    def _notice_end(self) -> None:
        """Find out that the server has left, before a message is sent that nobody would answer for."""
        if len(self.tcp._buffer) < self.options.reply_limit:
            data = self.tcp.available()
            if data == b"":
                raise ConnectionClosed("while nothing was asked for")
            self.tcp._buffer += data or b""
            if data is None:
                self.tcp.watch()

    def _allowed(self, timeout: float | None) -> float:
        if timeout is None:
            return self.options.read_timeout
        if not timeout > 0:
            raise ValueError(f"a time-out of {timeout} seconds is none")
        return timeout


class SecondConversation(Conversation):
    """A connection that a user has beside its first one; its connects have a name of their own."""

    __slots__ = ("name",)

    def __init__(self, *arguments: Any, connect_name: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.name = connect_name

    @property
    def _connect_name(self) -> str:
        return f"CONNECT {self.name}"
