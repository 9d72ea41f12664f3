"""When a client that has lost its server tries to come back.

A server that goes takes all its clients with it in one moment. If they all came back in one moment, the next
server would have to admit them all before it could serve any. So each waits for a while of its own:

* as long as the server's last word says (``; retry in N s``): the server has spread these over its clients;
* where it said nothing, for a random time between 0 and a bound that doubles with each try that fails
  (exponential back-off with full jitter, so that no two clients keep in step).

:class:`Reconnect` has the figures, :class:`Attempts` counts the tries of one client.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chat_gevent.errors import ConnectionLost


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnect:
    """How a :class:`chat_gevent.ChatClient` comes back. Times are in seconds.

    Raises ValueError: a time is not above 0.
    """

    first: float = 1.0
    """The first try comes within this time, at random."""

    longest: float = 30.0
    """No try is put off for longer than this, unless the server asks for it."""

    within: float = 120.0
    """After this time without success the call that waits for it raises ConnectionLost."""

    on_reconnect: Callable[[Any], object] | None = None
    """Called with the client once it is connected again, before anything else is sent: to log in, or to join
    a room again. It may use the client; if it loses the connection too, that counts as a try that failed."""

    sleep: Callable[[float], object] | None = None
    """What waits; ``time.sleep`` unless given. A client of ``gevent.socket`` takes ``gevent.sleep``."""

    def __post_init__(self) -> None:
        for name in ("first", "longest", "within"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)!r}: must be above 0 s")

    def wait(self, failures: int, hint: float | None = None) -> float:
        """How long to wait before the next try, after so many tries that failed in a row.

        :param hint: what the server asked for, if it did; it is kept to from the first try on.
        """
        if hint is not None and not failures:
            return hint
        bound = min(self.longest, self.first * 2 ** min(failures, 60))
        return max(hint or 0.0, random.uniform(0, bound))


class Attempts:
    """The tries of one client, from a loss until a server answers it again."""

    def __init__(self, policy: Reconnect) -> None:
        self.policy = policy
        self.due = 0.0
        """When the next try is to be made, on the monotonic clock."""
        self._failures = 0
        self._deadline: float | None = None
        self._why = ""

    def lost(self, hint: float | None, why: str) -> None:
        """The connection is gone, or could not be made: put the next try off."""
        self.due = time.monotonic() + self.policy.wait(self._failures, hint)
        self._failures += 1
        self._why = why

    def answered(self) -> None:
        """A server has answered: the next loss is a new one."""
        self._failures = 0
        self._deadline = None

    def wait_until_due(self) -> None:
        """Wait for the moment of the next try. Raises ConnectionLost: it comes after ``within``."""
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self.policy.within
        wait = max(0.0, self.due - now)
        if now + wait > self._deadline:
            self._deadline = None  # whoever tries again has the whole time
            raise ConnectionLost(f"not connected again within {self.policy.within:g} s: {self._why}")
        (self.policy.sleep or time.sleep)(wait)
