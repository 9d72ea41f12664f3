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

Pushes are read in the loop while nobody waits for a reply, so a user that sleeps answers a server's PING
all the same. Their handler is called there, and can't wait for anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter, time, time_ns
from typing import TYPE_CHECKING, Any, Final

from loadtest.client.judgement import checked, judge_by
from loadtest.client.tls import TlsClient, default_context
from loadtest.count.counters import (
    CONNECTION,
    FIGURE,
    PUSH,
    RECEIVE,
    REQUEST,
    RESERVED,
    SEND,
    TRANSACTION,
    Entry,
)
from loadtest.errors import (
    ConnectionClosed,
    ConnectionInUse,
    Failure,
    ReadTimeout,
    RequestFailed,
    StepFailed,
    UnexpectedData,
)
from loadtest.framing import ReplyFraming, Wire, ends_with_stream, marks_ends
from loadtest.reply import Reply
from loadtest.reporting import is_control_flow
from loadtest.session import TcpSession

if TYPE_CHECKING:
    import ssl

_STAMP: Final = re.compile(rb"@(\d{19})@")
_NOT_CONNECTED: Final = "not connected"


class Pushes:
    """What a conversation does with messages that come unasked."""

    __slots__ = ("entry", "handler", "match")

    def __init__(self, entry: Entry, handler: Callable[[bytes], bytes | None], match: bytes | None) -> None:
        self.entry = entry
        self.handler = handler
        self.match = None if match is None else re.compile(match)

    def is_push(self, message: bytes) -> bool:
        """Whether ``message`` is a push although a reply is due."""
        return self.match is not None and self.match.match(message) is not None


class Conversation(TcpSession):
    """One user's connection; see the module's docstring."""

    __slots__ = ("_pushes", "paced")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._pushes: Pushes | None = None
        self.paced = False
        """Whether a schedule says when tasks start."""

    # -- requests --------------------------------------------------------------------------------

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

    # -- what comes unasked ----------------------------------------------------------------------

    def push(
        self,
        handler: Callable[[bytes], bytes | None] | None,
        *,
        name: str = "PUSH",
        match: bytes | None = None,
    ) -> None:
        """Have ``handler`` take what comes unasked from now on; each message is counted as ``name``.

        What it returns is sent, in the connection's framing. It runs in the loop, where nothing can be
        waited for. A message with a :meth:`stamp` in it has a latency, from when that was made. While a
        reply is due, the next message is the reply, unless the regular expression ``match`` says that it is
        a push. None as handler ends it.
        """
        self._pushes = Pushes(self._entry(name, PUSH), handler, match) if handler is not None else None
        self._opened()
        if self.tcp.connected and self._pushes is not None and not self.tcp.busy:
            try:
                self._take_pushes(self.tcp.take_surplus())
            except RequestFailed:
                pass  # found out again by what is done next

    @staticmethod
    def stamp() -> bytes:
        """The present time, to be put into a message that is pushed to others: 21 bytes without blanks.

        Their latency counts from it, by the clock of ``time.time_ns``: across machines it is as good as
        their clocks.
        """
        return b"@%d@" % time_ns()

    def surplus(self) -> None:
        """What came unasked are pushes, where somebody takes them."""
        if self._pushes is None:
            super().surplus()
        else:
            self._take_pushes(self.tcp.take_surplus())

    def _opened(self) -> None:
        self.tcp.on_input = None if self._pushes is None else self._on_input

    def _on_input(self) -> None:
        """There is input, and nobody waits for it."""
        try:
            self._take_pushes(self.tcp.read_pushed())
        except RequestFailed:
            self.tcp.on_input = None  # whatever is done next on the connection finds out, and counts it
            self.tcp.stop_watching()

    def _take_pushes(self, messages: list[bytes]) -> None:
        pushes = self._pushes
        assert pushes is not None
        entry = pushes.entry
        for message in messages:
            stamp = _STAMP.search(message) if b"@" in message else None
            seconds = max(0.0, (time_ns() - int(stamp[1])) / 1e9) if stamp else 0.0
            error: RequestFailed | None = None
            try:
                answer = pushes.handler(message)
                if answer is not None:
                    wire = self._wire(answer)
                    self.tcp.send_now(wire)
                    entry.bytes_out += len(wire)
            except RequestFailed as failure:
                error = failure
            except Exception as failure:  # noqa: BLE001 - the loop would only print it
                error = Failure(type(failure).__name__)
            entry.bytes_in += len(message)
            if error is not None:
                now = perf_counter()
                self.count_failure(entry, error, now, now, 0.0)
            elif stamp:
                entry.whole[int(seconds * 1e6)] += 1
            else:
                entry.untimed += 1
            self.report(entry.name, seconds * 1e3, len(message), message, time() - seconds, error)

    # -- several steps, one's own figures, TLS -----------------------------------------------------

    @contextmanager
    def transaction(self, name: str) -> Iterator[None]:
        """Count the steps of a block as one, ``transaction NAME``; it fails where a step in it failed.

        With a schedule it counts from the task's intended start. An exception of the block fails it, unless
        it is one of Locust's that end a task or user.
        """
        entry = self._entry(name, TRANSACTION)
        start_time, begin = time(), perf_counter()
        due = min(self.intended, begin) if self.intended else begin if self.paced else 0.0
        failed = self.failed
        error: RequestFailed | None = None
        aborted = False
        try:
            yield
        except Exception as raised:
            if not is_control_flow(raised):
                error = Failure(type(raised).__name__)
            raise
        except BaseException:
            aborted = True
            raise
        finally:
            if aborted:
                entry.aborted += 1
            else:
                if error is None and self.failed != failed:
                    error = StepFailed(reason=self.last_failed)
                self._count(entry, perf_counter() - begin, error, begin, due, start_time)

    def count(self, name: str, seconds: float, error: str | RequestFailed | None = None) -> None:
        """Count a figure of one's own under ``name``; ``error`` makes it a failure of that group.

        Raises ValueError: ``seconds`` are negative.
        """
        if not seconds >= 0:
            raise ValueError(f"{seconds} seconds can't have passed")
        now = perf_counter()
        failure = Failure(error) if isinstance(error, str) else error
        self._count(self._entry(name, FIGURE), seconds, failure, now - seconds, 0.0, time() - seconds)

    def _count(
        self,
        entry: Entry,
        seconds: float,
        error: RequestFailed | None,
        begin: float,
        due: float,
        start_time: float,
    ) -> None:
        end = begin + seconds
        if error is None:
            entry.whole[int(seconds * 1e6)] += 1
            if due:
                entry.response[int((end - due) * 1e6)] += 1
        else:
            self.count_failure(entry, error, begin, end, due)
        self.report(entry.name, (end - (due or begin)) * 1e3, 0, None, start_time, error)

    def start_tls(self, context: ssl.SSLContext | None = None) -> bool:
        """Begin TLS on the open connection, counted as ``TLS``; whether it is on.

        ``context`` is one of ``ssl``'s; what the ``--tls-`` options say unless given. The next connection
        begins in the clear again. Raises ConnectionInUse.
        """
        if self.tcp.busy:
            raise ConnectionInUse("another greenlet waits on this connection")
        context = context or self.options.tls or default_context()
        if not self.tcp.connected:
            return False
        entry = self.entry("TLS", CONNECTION)
        start_time, begin = time(), perf_counter()
        try:
            self.tcp = TlsClient.over(self.tcp, replace(self.options, tls=context))
        except RequestFailed as error:
            self.close()
            self._fail(entry, error, start_time, begin)
            return False
        except BaseException:
            entry.aborted += 1
            self.close()
            raise
        self._opened()
        entry.whole[int((perf_counter() - begin) * 1e6)] += 1
        self.report(entry.name, (perf_counter() - begin) * 1e3, 0, None, start_time)
        return True

    # -- arguments ---------------------------------------------------------------------------------

    def _wire(self, message: bytes | str) -> bytes:
        if type(message) is bytes:
            return self.options.framing.encode(message)
        if isinstance(message, str):
            return self.options.framing.encode(message.encode())
        if isinstance(message, bytes):
            return bytes(message) if isinstance(message, Wire) else self.options.framing.encode(message)
        raise TypeError(f"a message is bytes or a text, not {message!r}")

    def _entry(self, name: str, kind: str) -> Entry:
        """The entry that a user calls ``name``. Raises TypeError, ValueError."""
        if kind is REQUEST:
            found = self.counters.entries.get(name if not self.label else f"{name}{self.label}")
            if found is not None and found.kind is REQUEST and name not in RESERVED:
                return found
        if not isinstance(name, str):
            raise TypeError(f"a name is a text, not {name!r}")
        if name in RESERVED or name.startswith("transaction "):
            raise ValueError(f"{name!r} is an entry of the kit's own: choose another name")
        if not name or not name.isprintable() or " @" in name:
            raise ValueError(f"{name!r} can't be a name: it is printable, not empty, and has no ' @' in it")
        return self.entry(f"transaction {name}" if kind is TRANSACTION else name, kind)

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
