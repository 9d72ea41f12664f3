"""The client that a user calls: each request is timed, checked, counted, and fired as Locust's request event.

It takes the event that it fires, so that it works with any Locust environment. What a request
costs on top of the socket is here: two clock readings, one comparison, one dictionary update, and
the event itself, once a request. A request that was in flight when its user was stopped is counted as
aborted and fires nothing: it neither passed nor failed.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, time
from types import TracebackType
from typing import Any, Literal, Self

from chat_gevent.confirm import ErrorCode
from loadtest.client import Settings
from loadtest.errors import ErrorReply, Failure, TcpError, UnexpectedData, WrongReply
from loadtest.measures import Entry, Measures
from loadtest.messages import Exchange
from loadtest.tls import make_client

_ERROR_CODES = frozenset(ErrorCode)


def no_context() -> dict[str, Any]:
    """The context of a user that adds none."""
    return {}


def judge(reply: bytes, expected: bytes) -> TcpError | None:
    """What is wrong with ``reply``, which has no framing any more."""
    if reply == expected:
        return None
    if reply.startswith(b"Error: "):
        code = reply.split(b":", 2)[1].strip().decode("ascii", "replace")
        if code in _ERROR_CODES:
            return ErrorReply(reply[:200].decode("utf-8", "replace"), reason=code)
    return WrongReply(f"expected {expected[:80]!r}, got {reply[:80]!r}")


class TcpSession:
    """One user's connection, with reporting."""

    __slots__ = (
        "confirms",
        "connected_at",
        "context",
        "fire",
        "intended",
        "kind",
        "measures",
        "settings",
        "tcp",
        "url",
    )

    def __init__(
        self,
        settings: Settings,
        request_event: Any,
        measures: Measures,
        context: Callable[[], dict[str, Any]] = no_context,
        name: str = "CONFIRM",
    ) -> None:
        self.settings = settings
        self.tcp = make_client(settings)
        self.measures = measures
        self.fire = request_event.fire
        self.context = context
        self.kind = settings.target.scheme.upper()
        self.url = str(settings.target)
        self.confirms: Entry = measures.entry(name)
        self.connected_at = 0.0
        self.intended = 0.0
        """Intended start of the next ``request``, where a schedule gave one."""

    # -- the connection --------------------------------------------------------------------------

    def connect(self) -> bool:
        """Open the connection, as a CONNECT request; whether it is open. Raises nothing of its own."""
        entry = self.measures.entry("CONNECT")
        start_time, begin = time(), perf_counter()
        if self.tcp.connected:
            self.close()
        try:
            seconds = self.tcp.connect()
        except TcpError as error:
            self._fail(entry, error, start_time, begin)
            return False
        except BaseException:
            entry.aborted += 1
            raise
        self.measures.open += 1
        self.measures.opened += 1
        self.connected_at = begin
        entry.whole[int(seconds * 1e6)] += 1
        self._report(entry.name, seconds * 1e3, 0, None, start_time)
        return True

    @property
    def connected(self) -> bool:
        """Whether the connection is open as far as this side knows."""
        return self.tcp.connected

    def close(self) -> None:
        """Close at once."""
        if self.tcp.connected:
            self.measures.open -= 1
            self.tcp.close()

    def exit(self, message: bytes = b"/exit") -> bool:
        """End the conversation with ``message``, as an EXIT request: the server must close in silence."""
        entry = self.measures.entry("EXIT")
        start_time, begin = time(), perf_counter()
        try:
            seconds = self.tcp.finish(message)
        except TcpError as error:
            self.close()
            self._fail(entry, error, start_time, begin)
            return False
        except BaseException:
            entry.aborted += 1
            self.close()
            raise
        self.measures.open -= 1
        entry.whole[int(seconds * 1e6)] += 1
        entry.bytes_out += len(message)
        self._report(entry.name, seconds * 1e3, 0, None, start_time)
        return True

    def idle(self, seconds: float) -> bool:
        """Hold the connection; False, and a failed HOLD request, if the server speaks or leaves meanwhile."""
        start_time, begin = time(), perf_counter()
        try:
            self.tcp.idle(seconds)
        except TcpError as error:
            self.close()
            self._fail(self.measures.entry("HOLD"), error, start_time, begin)
            return False
        return True

    # -- requests --------------------------------------------------------------------------------

    def confirm(self, exchange: Exchange, intended: float = 0.0) -> bool:
        """Send one message and compare what comes back, byte for byte. Raises nothing of its own.

        ``intended`` is the start that a schedule gave it, on the clock of ``time.perf_counter``.
        """
        tcp = self.tcp
        entry = self.confirms
        wire, expected = exchange
        start_time = time()
        begin = perf_counter()
        try:
            data = tcp.ask(wire)
            end = perf_counter()
            if data == expected:
                entry.whole[int((end - begin) * 1e6)] += 1
            else:
                data = self._confirm_rest(entry, data, expected, begin)
                end = tcp.reply_at
        except TcpError as error:
            if not error.in_step:
                self.close()
            self._fail(entry, error, start_time, intended or begin)
            return False
        except BaseException:
            entry.aborted += 1
            self.close()
            raise
        entry.bytes_out += len(wire)
        entry.bytes_in += len(data)
        if intended:
            begin = intended
            entry.response[int((end - intended) * 1e6)] += 1
        self.fire(
            request_type=self.kind,
            name=entry.name,
            response_time=(end - begin) * 1e3,
            response_length=len(data),
            exception=None,
            response=data,
            context=self.context(),
            start_time=start_time,
            url=self.url,
        )
        return True

    def _confirm_rest(self, entry: Entry, data: bytes, expected: bytes, begin: float) -> bytes:
        """The first read was not the whole expected reply: read on, and say what is wrong."""
        first = perf_counter()
        framing = self.settings.framing
        wanted = expected if not framing.bounded else framing.split(expected)[0][0]
        reply = self.tcp.complete(data, len(wanted))
        error = judge(reply, wanted)
        if error:
            raise error
        if self.tcp.extra:
            raise UnexpectedData(repr(self.tcp.extra))
        entry.split_first[int(((first if data else self.tcp.first_byte_at) - begin) * 1e6)] += 1
        entry.split_reply[int((self.tcp.reply_at - begin) * 1e6)] += 1
        return expected

    def confirm_many(self, exchanges: list[Exchange], intended: float = 0.0) -> bool:
        """Send several messages in one write and check each reply; one request for each message."""
        tcp = self.tcp
        entry = self.confirms
        wire = b"".join([exchange[0] for exchange in exchanges])
        split = self.settings.framing.split
        start_time = time()
        begin = perf_counter()
        answered = 0
        try:
            pending = tcp.ask(wire)
            for _, expected in exchanges:
                if pending.startswith(expected):
                    pending = pending[len(expected) :]
                else:
                    tcp.put_back(pending)
                    pending = b""
                    reply = tcp.receive()
                    error = judge(reply, split(expected)[0][0])
                    if error:
                        raise error
                end = perf_counter()
                entry.whole[int((end - begin) * 1e6)] += 1
                if intended:
                    entry.response[int((end - intended) * 1e6)] += 1
                answered += 1
                entry.bytes_in += len(expected)
                self._report(
                    entry.name, (end - (intended or begin)) * 1e3, len(expected), expected, start_time
                )
            if pending or tcp.extra:
                raise UnexpectedData(repr(pending[:80] or tcp.extra))
        except TcpError as error:
            self.close()  # the replies that are still due would be taken for those of the next batch
            for _ in exchanges[answered:] or exchanges[:1]:
                self._fail(entry, error, start_time, intended or begin)
            return False
        except BaseException:
            entry.aborted += len(exchanges) - answered
            self.close()
            raise
        entry.bytes_out += len(wire)
        return True

    def request(
        self,
        message: bytes | str,
        *,
        name: str = "REQUEST",
        expect: bytes | str | None = None,
        catch_response: bool = False,
        context: dict[str, Any] | None = None,
        intended: float = 0.0,
    ) -> Reply:
        """Send ``message`` and return its :class:`Reply`; one that is not what ``expect`` says is a failure.

        With ``catch_response`` the reply is a context manager, and the request is reported when its
        block ends: call ``reply.failure("why")`` in it. Connects first where there is no connection.
        Raises ValueError for a message that the framing can't carry, nothing for what the server does.
        """
        data = message.encode() if isinstance(message, str) else message
        wanted = expect.encode() if isinstance(expect, str) else expect
        intended, self.intended = intended or self.intended, 0.0
        reply = Reply(self, self.measures.entry(name), context, time(), intended)
        wire = self.settings.framing.encode(data)
        if not self.tcp.connected and not self.connect():
            reply.error = Failure("not connected")
        else:
            reply.run(wire, wanted)
        if not catch_response:
            reply.report()
        return reply

    # -- reporting -------------------------------------------------------------------------------

    def _fail(self, entry: Entry, error: TcpError, start_time: float, begin: float) -> None:
        group = error.group
        entry.failures[group] += 1
        if group not in self.measures.samples:
            self.measures.samples[group] = f"{entry.name}: {error}"
        self._report(entry.name, (perf_counter() - begin) * 1e3, 0, None, start_time, error)

    def _report(
        self,
        name: str,
        milliseconds: float,
        length: int,
        response: Any,
        start_time: float,
        error: BaseException | None = None,
    ) -> None:
        self.fire(
            request_type=self.kind,
            name=name,
            response_time=milliseconds,
            response_length=length,
            exception=error,
            response=response,
            context=self.context(),
            start_time=start_time,
            url=self.url,
        )


class Reply:
    """What came back for one request; as a context manager it is reported when the block ends."""

    def __init__(
        self,
        session: TcpSession,
        entry: Entry,
        context: dict[str, Any] | None,
        start_time: float,
        intended: float,
    ) -> None:
        self.data = b""
        """The reply without its framing; empty where none came."""
        self.error: TcpError | None = None
        """Why the request failed, or None."""
        self.response_time = 0.0
        """Milliseconds from sent (or from the intended start) to answered."""
        self._session = session
        self._entry = entry
        self._context = context
        self._start_time = start_time
        self._intended = intended
        self._begin = perf_counter()
        self._first = self._end = 0.0
        self._sent = 0
        self._reported = False

    def __bool__(self) -> bool:
        return self.error is None

    @property
    def text(self) -> str:
        """The reply as text; what is not UTF-8 is replaced."""
        return self.data.decode("utf-8", "replace")

    def failure(self, reason: str) -> None:
        """Call the request a failure; failures are grouped by ``reason``, so keep it short and constant."""
        self.error = Failure(reason)

    def success(self) -> None:
        """Call the request a success, whatever came back; a request that got no reply stays a failure."""
        if self._end:
            self.error = None

    def run(self, wire: bytes, expected: bytes | None) -> None:
        """Send and receive."""
        tcp = self._session.tcp
        self._begin = perf_counter()
        try:
            first = tcp.ask(wire)
            self._first = perf_counter()
            self._sent = len(wire)
            self.data = tcp.complete(first, None if expected is None else len(expected))
            self._end = tcp.reply_at
            if expected is not None:
                self.error = judge(self.data, expected)
        except TcpError as error:
            self._session.close()
            self.error = error
        except BaseException:
            self._entry.aborted += 1
            self._session.close()
            raise

    def report(self) -> None:
        """Count the request and fire its event, once."""
        if self._reported:
            return
        self._reported = True
        session, entry = self._session, self._entry
        end = self._end or perf_counter()
        self.response_time = (end - (self._intended or self._begin)) * 1e3
        if self.error is not None:
            group = self.error.group
            entry.failures[group] += 1
            session.measures.samples.setdefault(group, f"{entry.name}: {self.error}")
        else:
            entry.split_first[int((self._first - self._begin) * 1e6)] += 1
            entry.split_reply[int((end - self._begin) * 1e6)] += 1
            if self._intended:
                entry.response[int((end - self._intended) * 1e6)] += 1
        entry.bytes_out += self._sent
        entry.bytes_in += len(self.data)
        context = session.context()
        session.fire(
            request_type=session.kind,
            name=entry.name,
            response_time=self.response_time,
            response_length=len(self.data),
            exception=self.error,
            response=self.data,
            context={**context, **self._context} if self._context else context,
            start_time=self._start_time,
            url=session.url,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if error is None:
            self.report()
        elif isinstance(error, Exception):
            self.error = Failure(type(error).__name__)
            self.report()
        elif not self._reported:
            self._reported = True
            self._entry.aborted += 1
        return False
