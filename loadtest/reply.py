"""What came back for one request of a user's own protocol, and how it is reported.

The conversation (conversation.py) asks and fills the reply in; the reply knows a
:class:`loadtest.reporting.Reporter` and no connection.
"""

from __future__ import annotations

from time import perf_counter
from types import TracebackType
from typing import Any, Literal, Self

from loadtest.count.counters import Entry
from loadtest.errors import Failure, NotCaught, RequestFailed
from loadtest.reporting import Reporter, is_control_flow


class Reply:
    """What came back for one request; as a context manager it is reported when the block ends."""

    __slots__ = (
        "_context",
        "_due",
        "_open",
        "_reporter",
        "_start_time",
        "began",
        "data",
        "ended_at",
        "entry",
        "error",
        "first_byte_at",
        "sent",
    )

    def __init__(
        self,
        reporter: Reporter,
        entry: Entry,
        context: dict[str, Any] | None,
        start_time: float,
        began: float,
        due: float,
    ) -> None:
        self.data = b""
        """The reply without its framing; empty where none came."""
        self.error: RequestFailed | None = None
        """Why the request failed, or None."""
        self.entry = entry
        self.sent = 0
        """Bytes of the request that were sent, with its framing."""
        self.began = began
        """When the request was sent; this and the two that follow are on the clock of ``perf_counter``."""
        self.first_byte_at = self.ended_at = 0.0
        self._reporter = reporter
        self._context = context
        self._start_time = start_time
        self._due = due
        self._open = True  # not reported yet

    def __bool__(self) -> bool:
        return self.error is None

    @property
    def text(self) -> str:
        """The reply as text; what is not UTF-8 is replaced."""
        return self.data.decode("utf-8", "replace")

    @property
    def response_time(self) -> float:
        """Milliseconds from sent (with a schedule: from when it was due) to answered, or to the failure."""
        return ((self.ended_at or perf_counter()) - (self._due or self.began)) * 1e3

    def failure(self, reason: str) -> None:
        """Call the request a failure; failures are grouped by ``reason``, so keep it short and constant.

        Raises NotCaught: the request has been counted, for want of ``catch_response=True``.
        """
        self._verdict("failure")
        self.error = Failure(reason)

    def success(self) -> None:
        """Call the request a success, whatever came back; one that got no reply stays a failure.

        Raises NotCaught as ``failure`` does.
        """
        self._verdict("success")
        if self.first_byte_at:
            self.error = None

    def _verdict(self, name: str) -> None:
        if not self._open:
            raise NotCaught(
                f"{name}() came after {self.entry.name!r} was counted: use it in "
                "'with client.request(..., catch_response=True) as reply'"
            )

    def uncounted(self, error: RequestFailed) -> None:
        """The request was never made, for a reason that is counted elsewhere."""
        self.error = error
        self.ended_at = perf_counter()
        self._open = False

    def report(self) -> None:
        """Count the request and fire its event, once."""
        if not self._open:
            return
        self._open = False
        reporter, entry = self._reporter, self.entry
        end = self.ended_at or perf_counter()
        began, due = self.began, self._due
        if self.error is not None:
            reporter.count_failure(entry, self.error, began, end, due)
        else:
            micros = int((end - began) * 1e6)
            first = int((self.first_byte_at - began) * 1e6)
            if micros - first < 20:  # one read, and the time to cut it
                entry.whole[micros] += 1
            else:
                entry.split_first[first] += 1
                entry.split_reply[micros] += 1
            if due:
                entry.response[int((end - due) * 1e6)] += 1
        entry.bytes_out += self.sent
        entry.bytes_in += len(self.data)
        reporter.report(
            entry.name,
            (end - (due or began)) * 1e3,
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
        if error is None or is_control_flow(error):
            self.report()
        elif isinstance(error, Exception):
            if self._open:
                self.error = Failure(type(error).__name__)
            self.report()
        elif self._open:
            self._open = False
            self.entry.aborted += 1
        return False
