"""A user's connection and the messages of the confirm protocol, each timed, checked, counted and fired.

:class:`loadtest.conversation.Conversation` adds to it what a protocol of one's own needs.

It takes the event that it fires, so that it works with any Locust environment. What a request
costs on top of the socket is here: two clock readings, one comparison, one dictionary update, and
the event itself, once a request. A request that was in flight when its user was stopped is counted as
aborted and fires nothing: it neither passed nor failed.
"""

from __future__ import annotations

from collections.abc import Callable
from sys import intern
from time import perf_counter, time
from typing import Any, Protocol, Self

from loadtest.client.judgement import judge
from loadtest.client.tls import make_client
from loadtest.client.transport import ClientOptions
from loadtest.count.counters import CONNECTION, REQUEST, Counters, Entry
from loadtest.errors import ConnectionInUse, Failure, RequestFailed, UnexpectedData
from loadtest.framing import one_message
from loadtest.messages import Exchange
from loadtest.reporting import Reporter, no_context


class Owner(Protocol):
    """What a session asks of the user that has it."""

    def on_connect(self) -> object:
        """Greet the server and log in, after every connect; False closes the connection."""

    def ensure_connected(self) -> None:
        """Connect, in as many attempts as it takes, with pauses between them."""


class TcpSession(Reporter):
    """One user's connection, with reporting."""

    __slots__ = (
        "_counted",
        "_greeting",
        "confirms",
        "connect_error",
        "connected_at",
        "intended",
        "options",
        "owner",
        "tcp",
    )

    def __init__(
        self,
        options: ClientOptions,
        request_event: Any,
        counters: Counters,
        context: Callable[[], dict[str, Any]] = no_context,
        name: str = "CONFIRM",
        *,
        label: str = "",
        owner: Owner | None = None,
    ) -> None:
        target = options.target
        super().__init__(
            request_event, counters, intern(target.scheme.upper()), intern(str(target)), context, label
        )
        self.options = options
        self.tcp = make_client(options)
        self.confirms: Entry = self.entry(name, REQUEST)
        self.owner = owner
        self._counted = False  # among the open connections
        self._greeting = False  # ``on_connect`` runs
        self.connect_error: RequestFailed | None = None
        """Why the last connect failed."""
        self.connected_at = 0.0
        self.intended = 0.0
        """Intended start of the next ``request``, where a schedule gave one."""

    # -- the connection --------------------------------------------------------------------------

    def connect(self) -> bool:
        """Open the connection, as a CONNECT request; whether it is open. Raises nothing of its own.

        Then the user's ``on_connect`` runs. A connection in whose ``on_connect`` a request failed, or that
        it was not content with (it returned False), is closed.
        """
        entry = self.entry(self._connect_name, CONNECTION)
        start_time, begin = time(), perf_counter()
        self.close()
        if self.tcp.options is not self.options:  # it had begun TLS, and begins in the clear again
            self.tcp = make_client(self.options)
        try:
            seconds = self.tcp.connect()
        except RequestFailed as error:
            self.connect_error = error
            self._fail(entry, error, start_time, begin)
            return False
        except BaseException:
            entry.aborted += 1
            raise
        self._counted = True
        self.counters.open += 1
        self.counters.opened += 1
        self.connected_at = begin
        entry.whole[int(seconds * 1e6)] += 1
        self.report(entry.name, seconds * 1e3, 0, None, start_time)
        return self._greet()

    @property
    def _connect_name(self) -> str:
        """The entry that connects are counted as."""
        return "CONNECT"

    def _opened(self) -> None:
        """The connection is open, and nothing was said on it yet."""

    def _greet(self) -> bool:
        self._opened()
        if self.owner is None:
            return True
        self._greeting, failed = True, self.failed
        try:
            content = self.owner.on_connect()
        except BaseException:
            self.close()
            raise
        finally:
            self._greeting = False
        if content is False or self.failed != failed or not self.tcp.connected:
            self.connect_error = Failure("not greeted")
            self.close()
            return False
        return True

    @property
    def connected(self) -> bool:
        """Whether the connection is open as far as this side knows."""
        return self.tcp.connected

    def close(self) -> None:
        """Close at once."""
        self._count_closed()
        self.tcp.close()

    def _count_closed(self) -> None:
        """The connection is open no more, whoever has closed it."""
        if self._counted:
            self._counted = False
            self.counters.open -= 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Close, once what has come unasked since the last reply is counted."""
        try:
            if self.tcp.connected and not self.tcp.busy and self.tcp.restless:
                self.surplus()
        except RequestFailed:
            pass  # that the server ended it first fails nothing
        self.close()

    def exit(self, message: bytes = b"/exit") -> bool:
        """End the conversation with ``message``, as an EXIT request: the server must close in silence."""
        entry = self.entry("EXIT", CONNECTION)
        start_time, begin = time(), perf_counter()
        try:
            seconds = self.tcp.finish(message)
        except RequestFailed as error:
            self.close()
            self._fail(entry, error, start_time, begin)
            return False
        except BaseException:
            entry.aborted += 1
            self.close()
            raise
        self._count_closed()
        entry.whole[int(seconds * 1e6)] += 1
        entry.bytes_out += len(message)
        self.report(entry.name, seconds * 1e3, 0, None, start_time)
        return True

    def idle(self, seconds: float) -> bool:
        """Hold the connection; False, and a failed HOLD request, if the server speaks or leaves meanwhile."""
        start_time, begin = time(), perf_counter()
        try:
            self.tcp.idle(seconds)
        except RequestFailed as error:
            self.close()
            self._fail(self.entry("HOLD", CONNECTION), error, start_time, begin)
            return False
        return True

    # -- requests --------------------------------------------------------------------------------

    def confirm(self, exchange: Exchange, intended: float = 0.0) -> bool:
        """Send one message and compare what comes back, byte for byte. Raises ConnectionInUse.

        ``intended`` is the start that a schedule gave it, on the clock of ``time.perf_counter``.
        """
        tcp = self.tcp
        if tcp.busy:
            raise ConnectionInUse("another greenlet waits on this connection")
        entry = self.confirms
        wire, expected = exchange
        start_time = time()
        begin = perf_counter()
        try:
            if tcp.restless:
                self._settle()
                tcp = self.tcp
            data = tcp.ask(wire)
            end = perf_counter()
            if data == expected:
                entry.whole[int((end - begin) * 1e6)] += 1
            else:
                data = self._confirm_rest(entry, data, expected, begin)
                end = tcp.reply_at
        except RequestFailed as error:
            if not error.in_step:
                self.close()
            self._fail(entry, error, start_time, begin, intended)
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
        wanted = one_message(self.options.framing, expected)
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
        """Send several messages in one write and check each reply; one request for each message.

        What comes behind the last reply fails the last message.
        """
        tcp = self.tcp
        entry = self.confirms
        wire = b"".join([exchange[0] for exchange in exchanges])
        framing = self.options.framing
        start_time = time()
        begin = perf_counter()
        answered = 0
        try:
            if tcp.restless:
                self._settle()
                tcp = self.tcp
            pending = tcp.ask(wire)
            for sent, expected in exchanges:
                if pending.startswith(expected):
                    pending = pending[len(expected) :]
                else:
                    tcp.put_back(pending)
                    pending = b""
                    reply = tcp.receive()
                    error = judge(reply, one_message(framing, expected))
                    if error:
                        raise error
                if answered + 1 == len(exchanges) and (pending or tcp.extra):
                    raise UnexpectedData(repr(pending[:80] or tcp.extra))
                end = perf_counter()
                entry.whole[int((end - begin) * 1e6)] += 1
                if intended:
                    entry.response[int((end - intended) * 1e6)] += 1
                answered += 1
                entry.bytes_out += len(sent)
                entry.bytes_in += len(expected)
                self.report(
                    entry.name, (end - (intended or begin)) * 1e3, len(expected), expected, start_time
                )
        except RequestFailed as error:
            self.close()  # the replies that are still due would be taken for those of the next batch
            for _ in exchanges[answered:]:
                self._fail(entry, error, start_time, begin, intended)
            return False
        except BaseException:
            entry.aborted += len(exchanges) - answered
            self.close()
            raise
        return True

    def _settle(self) -> None:
        """Count what came unasked, and connect anew where that cost the connection."""
        if self.tcp.connected:
            self.surplus()
            if not self.tcp.connected and not self.connect():
                raise self.connect_error or Failure("not connected")

    def surplus(self) -> None:
        """Take what came unasked since the last reply: each message is a failed ``UNEXPECTED``.

        The connection is closed where only the beginning of one is there: its rest would be taken for a
        reply. Raises ConnectionClosed, ConnectionBroken, FramingBroken.
        """
        for message in self.tcp.take_surplus():
            self.unexpected(message)
        if self.tcp.unfinished:
            self.unexpected(self.tcp.extra)
            self.close()

    def unexpected(self, message: bytes) -> None:
        """Count a message that nothing had asked for."""
        entry = self.entry("UNEXPECTED", CONNECTION)
        error = UnexpectedData(repr(message[:80]))
        failed, last = self.failed, self.last_failed  # it fails nothing else
        now = perf_counter()
        self.count_failure(entry, error, now, now, 0.0)
        self.failed, self.last_failed = failed, last
        self.report(entry.name, 0.0, len(message), message, time(), error)

    def _fail(
        self, entry: Entry, error: RequestFailed, start_time: float, begin: float, due: float = 0.0
    ) -> None:
        end = perf_counter()
        self.count_failure(entry, error, begin, end, due)
        self.report(entry.name, (end - (due or begin)) * 1e3, 0, None, start_time, error)
