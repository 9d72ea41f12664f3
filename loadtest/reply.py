"""What came back for one request of a user's own protocol, and how it is reported.

The session (session.py) asks and fills the reply in; the reply knows a :class:`loadtest.reporting.Reporter`
and no connection.
"""

from __future__ import annotations

from time import perf_counter
from types import TracebackType
from typing import Any, Literal, Self

from loadtest.count.counters import Entry
from loadtest.errors import Failure, RequestFailed
from loadtest.reporting import Reporter


class Reply:
    """What came back for one request; as a context manager it is reported when the block ends."""

    def __init__(
        self,
        reporter: Reporter,
        entry: Entry,
        context: dict[str, Any] | None,
        start_time: float,
        intended: float,
    ) -> None:
        self.data = b""
        """The reply without its framing; empty where none came."""
        self.error: RequestFailed | None = None
        """Why the request failed, or None."""
        self.response_time = 0.0
        """Milliseconds from sent (or from the intended start) to answered."""
        self.entry = entry
        self.sent = 0
        """Bytes of the request that were sent, with its framing."""
        self.began = perf_counter()
        """When the request was sent; this and the two that follow are on the clock of ``perf_counter``."""
        self.first_byte_at = self.answered_at = 0.0
        self._reporter = reporter
        self._context = context
        self._start_time = start_time
        self._intended = intended
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
        if self.answered_at:
            self.error = None

    def report(self) -> None:
        """Count the request and fire its event, once."""
        if self._reported:
            return
        self._reported = True
        reporter, entry = self._reporter, self.entry
        end = self.answered_at or perf_counter()
        self.response_time = (end - (self._intended or self.began)) * 1e3
        if self.error is not None:
            reporter.count_failure(entry, self.error)
        else:
            entry.split_first[int((self.first_byte_at - self.began) * 1e6)] += 1
            entry.split_reply[int((end - self.began) * 1e6)] += 1
            if self._intended:
                entry.response[int((end - self._intended) * 1e6)] += 1
        entry.bytes_out += self.sent
        entry.bytes_in += len(self.data)
        reporter.report(
            entry.name,
            self.response_time,
            len(self.data),
            self.data,
            self._start_time,
            self.error,
            self._context,
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
            self.entry.aborted += 1
        return False
