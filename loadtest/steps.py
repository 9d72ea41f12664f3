"""Several steps counted as one, a user's own figures, and TLS that begins later, for a conversation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter, time
from typing import TYPE_CHECKING, Any

from loadtest.client.tls import TlsClient, default_context
from loadtest.count.counters import CONNECTION, FIGURE, TRANSACTION, Entry
from loadtest.errors import ConnectionInUse, Failure, RequestFailed, StepFailed
from loadtest.pushes import PushSession
from loadtest.reporting import is_control_flow

if TYPE_CHECKING:
    import ssl


class StepSession(PushSession):
    """A session with transactions, figures of one's own, and ``start_tls``."""

    __slots__ = ("paced",)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.paced = False
        """Whether a schedule says when tasks start."""

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
