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

from loadtest.client.tls import make_client
from loadtest.client.transport import Settings
from loadtest.count.counters import Entry, Measures
from loadtest.errors import Failure, TcpError, UnexpectedData
from loadtest.messages import Exchange
from loadtest.reply import Reply, judge


def no_context() -> dict[str, Any]:
    """The context of a user that adds none."""
    return {}


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
        Closes it where the request can't have been answered in full; a whole reply that is not
        ``expect`` leaves it open, unless the framing doesn't mark where a reply ends.
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
