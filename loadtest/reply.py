"""What came back for one request of a user's own protocol, and how it is reported."""

from __future__ import annotations

from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from chat_gevent.confirm import ErrorCode
from loadtest.count.counters import Entry
from loadtest.errors import ErrorReply, Failure, TcpError, WrongReply

if TYPE_CHECKING:
    from loadtest.session import TcpSession

_ERROR_CODES = frozenset(ErrorCode)


def judge(reply: bytes, expected: bytes) -> TcpError | None:
    """What is wrong with ``reply``, which has no framing any more."""
    if reply == expected:
        return None
    if reply.startswith(b"Error: "):
        code = reply.split(b":", 2)[1].strip().decode("ascii", "replace")
        if code in _ERROR_CODES:
            return ErrorReply(reply[:200].decode("utf-8", "replace"), reason=code)
    return WrongReply(f"expected {expected[:80]!r}, got {reply[:80]!r}")


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
        """Send and receive.

        A reply that was whole and not the expected one leaves requests and replies in step, so the
        connection is kept, with whatever the user has done on it (a login). Where nothing marks the end of
        a reply, a different one may go on, and the connection is closed.
        """
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
                if self.error is not None and not self._session.settings.framing.bounded:
                    self._session.close()
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
