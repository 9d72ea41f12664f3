"""How a finished request becomes a count and one of Locust's request events.

A :class:`Reporter` takes the event that it fires, so it works with any Locust environment. The session
(session.py) is one, and each :class:`loadtest.reply.Reply` holds it: a reply can be reported after the call
that made it has returned, and needs to know nothing of connections for that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loadtest.count.counters import Counters, Entry
from loadtest.errors import RequestFailed


def no_context() -> dict[str, Any]:
    """The context of a user that adds none."""
    return {}


class Reporter:
    """Counts requests and fires their events, for one user."""

    __slots__ = ("context", "counters", "fire", "kind", "url")

    def __init__(
        self,
        request_event: Any,
        counters: Counters,
        kind: str,
        url: str,
        context: Callable[[], dict[str, Any]] = no_context,
    ) -> None:
        self.fire = request_event.fire
        self.counters = counters
        self.kind = kind
        """Locust's ``request_type``: TCP, TLS or UNIX."""
        self.url = url
        self.context = context

    def count_failure(self, entry: Entry, error: RequestFailed) -> None:
        """Count a failed request, and keep the first of its group as an example."""
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
