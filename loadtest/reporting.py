"""How a finished request becomes a count and one of Locust's request events.

A :class:`Reporter` takes the event that it fires, so it works with any Locust environment. The session
(session.py) is one, and each :class:`loadtest.reply.Reply` holds it: a reply can be reported after the call
that made it has returned, and needs to know nothing of connections for that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loadtest.count.counters import Counters, Entry
from loadtest.errors import ConnectTimeout, ReadTimeout, RequestFailed, SendTimeout

TIMEOUTS = (ReadTimeout, SendTimeout, ConnectTimeout)
"""Failures that say how long a request took at least."""


def no_context() -> dict[str, Any]:
    """The context of a user that adds none."""
    return {}


def is_control_flow(error: BaseException) -> bool:
    """Whether ``error`` is one that Locust's users raise to end a task, a task set, a user or the test.

    It is told by where it is defined, because to import Locust patches the standard library.
    """
    return any(kind.__module__ == "locust.exception" for kind in type(error).__mro__)


class Reporter:
    """Counts requests and fires their events, for one user."""

    __slots__ = ("context", "counters", "failed", "fire", "kind", "label", "last_failed", "url")

    def __init__(
        self,
        request_event: Any,
        counters: Counters,
        kind: str,
        url: str,
        context: Callable[[], dict[str, Any]] = no_context,
        label: str = "",
    ) -> None:
        self.fire = request_event.fire
        self.counters = counters
        self.kind = kind
        """Locust's ``request_type``: TCP, TLS or UNIX."""
        self.url = url
        self.context = context
        self.label = label
        """What entries of this user have behind their names, where a run has several hosts or framings."""
        self.failed = 0
        """Requests that failed so far."""
        self.last_failed = ""
        """The name of the last one."""

    def entry(self, name: str, kind: str) -> Entry:
        """The entry of this name and kind. Raises ValueError: the name is that of another kind."""
        return self.counters.entry(name + self.label, kind)

    def count_failure(self, entry: Entry, error: RequestFailed, began: float, end: float, due: float) -> None:
        """Count a failed request, and keep the first of its group as an example.

        One that timed out has a latency too: it took at least that long. ``began`` is when it was sent,
        ``due`` when it should have been, or 0.
        """
        self.failed += 1
        self.last_failed = entry.name
        if isinstance(error, TIMEOUTS):
            entry.timeouts[int((end - began) * 1e6)] += 1
            if due:
                entry.response[int((end - due) * 1e6)] += 1
        group = error.group
        entry.failures[group] += 1
        if group not in self.counters.samples:
            self.counters.samples[group] = f"{entry.name}: {error}"

    def report(
        self,
        name: str,
        milliseconds: float,
        length: int,
        response: Any,
        start_time: float,
        error: BaseException | None = None,
        context: dict[str, Any] | None = None,
    ) -> None:
        """Fire the event of one request. ``start_time`` is Unix time; ``context`` is added to the user's."""
        own = self.context()
        self.fire(
            request_type=self.kind,
            name=name,
            response_time=milliseconds,
            response_length=length,
            exception=error,
            response=response,
            context={**own, **context} if context else own,
            start_time=start_time,
            url=self.url,
        )
