"""The client that a user calls: each request is timed, checked, counted, and fired as Locust's request event.

It takes the event that it fires, so that it works with any Locust environment. What a request
costs on top of the socket is here: two clock readings, one comparison, one dictionary update, and
the event itself, once a request. A request that was in flight when its user was stopped is counted as
aborted and fires nothing: it neither passed nor failed.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, time
from typing import Any

from loadtest.client.judgement import judge
from loadtest.client.tls import make_client
from loadtest.client.transport import ClientOptions
from loadtest.count.counters import Counters, Entry
from loadtest.errors import Failure, RequestFailed, UnexpectedData
from loadtest.framing import marks_ends, one_message
from loadtest.messages import Exchange
from loadtest.reply import Reply
from loadtest.reporting import Reporter, no_context


class TcpSession(Reporter):
    """One user's connection, with reporting."""

    __slots__ = ("confirms", "connected_at", "intended", "options", "tcp")

    def __init__(
        self,
        options: ClientOptions,
        request_event: Any,
        counters: Counters,
        context: Callable[[], dict[str, Any]] = no_context,
        name: str = "CONFIRM",
    ) -> None:
        target = options.target
        super().__init__(request_event, counters, target.scheme.upper(), str(target), context)
        self.options = options
        self.tcp = make_client(options)
        self.confirms: Entry = counters.entry(name)
        self.connected_at = 0.0
        self.intended = 0.0
        """Intended start of the next ``request``, where a schedule gave one."""

    # -- the connection --------------------------------------------------------------------------

    def connect(self) -> bool:
        """Open the connection, as a CONNECT request; whether it is open. Raises nothing of its own."""
        entry = self.counters.entry("CONNECT")
        start_time, begin = time(), perf_counter()
        if self.tcp.connected:
            self.close()
        try:
            seconds = self.tcp.connect()
        except RequestFailed as error:
            self._fail(entry, error, start_time, begin)
            return False
        except BaseException:
            entry.aborted += 1
            raise
        self.counters.open += 1
        self.counters.opened += 1
        self.connected_at = begin
        entry.whole[int(seconds * 1e6)] += 1
        self.report(entry.name, seconds * 1e3, 0, None, start_time)
        return True

    @property
    def connected(self) -> bool:
        """Whether the connection is open as far as this side knows."""
        return self.tcp.connected

    def close(self) -> None:
        """Close at once."""
        if self.tcp.connected:
            self.counters.open -= 1
            self.tcp.close()

    def exit(self, message: bytes = b"/exit") -> bool:
        """End the conversation with ``message``, as an EXIT request: the server must close in silence."""
        entry = self.counters.entry("EXIT")
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
        self.counters.open -= 1
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
            self._fail(self.counters.entry("HOLD"), error, start_time, begin)
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
        except RequestFailed as error:
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
        """Send several messages in one write and check each reply; one request for each message."""
        tcp = self.tcp
        entry = self.confirms
        wire = b"".join([exchange[0] for exchange in exchanges])
        framing = self.options.framing
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
                    error = judge(reply, one_message(framing, expected))
                    if error:
                        raise error
                end = perf_counter()
                entry.whole[int((end - begin) * 1e6)] += 1
                if intended:
                    entry.response[int((end - intended) * 1e6)] += 1
                answered += 1
                entry.bytes_in += len(expected)
                self.report(
                    entry.name, (end - (intended or begin)) * 1e3, len(expected), expected, start_time
                )
            if pending or tcp.extra:
                raise UnexpectedData(repr(pending[:80] or tcp.extra))
        except RequestFailed as error:
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
        Closes it where the request can't have been answered in full; a whole reply that is not
        ``expect`` leaves it open, unless the framing doesn't mark where a reply ends.
        Raises ValueError for a message that the framing can't carry, nothing for what the server does.
        """
        data = message.encode() if isinstance(message, str) else message
        wanted = expect.encode() if isinstance(expect, str) else expect
        intended, self.intended = intended or self.intended, 0.0
        reply = Reply(self, self.counters.entry(name), context, time(), intended)
        wire = self.options.framing.encode(data)
        if not self.tcp.connected and not self.connect():
            reply.error = Failure("not connected")
        else:
            self._exchange(reply, wire, wanted)
        if not catch_response:
            reply.report()
        return reply

    def _exchange(self, reply: Reply, wire: bytes, expected: bytes | None) -> None:
        """Send ``wire`` and fill in what comes back.

        A reply that was whole and not the expected one leaves requests and replies in step, so the
        connection is kept, with whatever the user has done on it (a login). Where nothing marks the end of
        a reply, a different one may go on, and the connection is closed.
        """
        tcp = self.tcp
        reply.began = perf_counter()
        try:
            first = tcp.ask(wire)
            reply.first_byte_at = perf_counter()
            reply.sent = len(wire)
            reply.data = tcp.complete(first, None if expected is None else len(expected))
            reply.answered_at = tcp.reply_at
            if expected is not None:
                reply.error = judge(reply.data, expected)
                if reply.error is not None and not marks_ends(self.options.framing):
                    self.close()
        except RequestFailed as error:
            self.close()
            reply.error = error
        except BaseException:
            reply.entry.aborted += 1
            self.close()
            raise

    def _fail(self, entry: Entry, error: RequestFailed, start_time: float, begin: float) -> None:
        self.count_failure(entry, error)
        self.report(entry.name, (perf_counter() - begin) * 1e3, 0, None, start_time, error)
