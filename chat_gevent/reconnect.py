"""When a client that has lost its server tries to come back.

A server that goes takes all its clients with it in one moment. If they all came back in one moment, the next
server would have to admit them all before it could serve any. So each waits for a while of its own:

* as long as the server's last word says (``; retry in N s``): the server has spread these over its clients;
* where it said nothing, for a random time between 0 and the time that it has been away (exponential back-off
  with full jitter: the bound doubles at most with each try that fails, and no two clients keep in step).

The bound is that time, not a power of the number of tries, because many tries may fall into a short outage
by chance. Of 18,000 clients whose server was killed and was there again after 1 s, the last was back 4.5 s
after it by powers of two, 1.6 s after it by this bound (``python -m benchmarks experiment storm``). However
long an outage was, a client waits for as long again at most, or for ``first``.

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

    def wait(self, away: float, hint: float | None = None) -> float:
        """How long to wait before the next try, ``away`` seconds after the loss.

        :param hint: what the server asked for, if it did; no try is made before that.
        """
        if hint is not None and not away:
            return hint
        return max(hint or 0.0, random.uniform(0, min(self.longest, max(self.first, away))))


class Attempts:
    """The tries of one client, from a loss until a server answers it again."""

    __slots__ = ("_deadline", "_since", "_why", "due", "policy")

    def __init__(self, policy: Reconnect) -> None:
        self.policy = policy
        self.due = 0.0  # when the next try is to be made, on the monotonic clock
        self._since: float | None = None  # the loss
        self._deadline: float | None = None
        self._why = ""

    def lost(self, hint: float | None, why: str) -> None:
        """The connection is gone, or could not be made: put the next try off."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        self.due = now + self.policy.wait(now - self._since, hint)
        self._why = why

    def answered(self) -> None:
        """A server has answered: the next loss is a new one."""
        self._since = self._deadline = None

    def wait_until_due(self) -> None:
        """Wait for the moment of the next try. Raises ConnectionLost: it comes after ``within``."""
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self.policy.within
            if now > self.due:  # nobody has tried since
                self._since = now
        wait = max(0.0, self.due - now)
        if now + wait > self._deadline:
            self._deadline = None  # whoever tries again has the whole time
            raise ConnectionLost(f"not connected again within {self.policy.within:g} s: {self._why}")
        (self.policy.sleep or time.sleep)(wait)
