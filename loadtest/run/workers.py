"""What a master knows of its workers: which were lost, what became of their rate, and their clocks.

Locust calls a worker missing when it has sent no heartbeat for about 4 s. With ``--enable-rebalancing`` it
then starts its users on the others; otherwise it does so when it gives the worker up, about 60 s later, or
when the number of users changes before that. Until then fewer users are left to share a rate in all, so they
are told how many, and send so much more (orders.py). What a lost worker had counted since its last report,
up to 3 s before, is lost with it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from time import time
from typing import Any, Final

from locust.runners import STATE_MISSING, STATE_RUNNING, STATE_SPAWNING

from loadtest.run.options import Plan

CLOCK_SECONDS: Final = 0.5
"""A worker's clock that differs by more is told: the seconds of the course are put together by it."""

logger = logging.getLogger("loadtest")


@dataclass(slots=True)
class Worker:
    """One worker of a test. Times are Unix times, by the master's clock."""

    name: str
    heard_at: float
    users: int
    clock: float | None
    """Seconds its clock is ahead of the master's, by the quickest report; None before the first."""
    lost_at: float = 0.0
    replaced_at: float = 0.0
    """When its users were started elsewhere; 0 before."""


class Workers:
    """The workers that have reported in one test."""

    def __init__(self) -> None:
        self.known: dict[str, Worker] = {}

    def clear(self) -> None:
        """Begin a new test."""
        self.known.clear()

    def heard(self, client_id: str, name: str, users: int, clock: float) -> None:
        """A worker has reported; ``clock`` is what its clock said when it did."""
        now = time()
        ahead = clock - now
        worker = self.known.get(client_id)
        if worker is None:
            self.known[client_id] = Worker(name, now, users, ahead)
            return
        worker.name, worker.heard_at, worker.users = name, now, users
        worker.lost_at = worker.replaced_at = 0.0
        worker.clock = ahead if worker.clock is None else max(worker.clock, ahead)

    def look(self, runner: Any, ordered: Collection[str]) -> list[str]:
        """Find out which workers are missing; the names of those that were not before.

        Those whose ids are ``ordered`` have users to run.
        """
        if runner.state not in (STATE_RUNNING, STATE_SPAWNING):
            return []
        states = {client.id: client.state for client in runner.clients.all}
        for client in runner.clients.all:
            # One that is killed before its first report, which takes up to 3 s, has users to miss as well.
            if client.id not in self.known and client.state in (STATE_RUNNING, STATE_SPAWNING):
                self.known[client.id] = Worker(client.id, time(), client.user_count, None)
            elif client.user_count and client.state != STATE_MISSING and client.id in self.known:
                self.known[client.id].users = client.user_count
        found = []
        for client_id, worker in self.known.items():
            if not worker.lost_at and states.get(client_id, STATE_MISSING) == STATE_MISSING:
                worker.lost_at = time()
                found.append(worker.name)
                logger.warning("worker %s is lost; it had %d users", worker.name, worker.users)
            if worker.lost_at and not worker.replaced_at and client_id not in ordered:
                worker.replaced_at = time()
        return found

    @property
    def lost(self) -> list[Worker]:
        """Those that are lost, and have not come back."""
        return [worker for worker in self.known.values() if worker.lost_at]

    @property
    def left(self) -> int:
        """How many are there still."""
        return len(self.known) - len(self.lost)

    def troubles(self, began: float, missing: str) -> list[tuple[str, str]]:
        """In words, with a short name each; ``missing`` is what :func:`shortfall` says."""
        found = []
        for worker in self.lost:
            said = (
                f"worker {worker.name} was lost {worker.heard_at - began:.1f} s into the test, "
                f"with {worker.users:,} users: what it counted after that (up to 3 s) is not in these figures"
            )
            said += "; " + missing.format(after=worker.lost_at - worker.heard_at)
            if worker.replaced_at:
                after = worker.replaced_at - worker.heard_at
                said += f"; its users were started elsewhere {after:.1f} s later"
            found.append(("worker-lost", said))
        for worker in self.known.values():
            if worker.clock is not None and abs(worker.clock) > CLOCK_SECONDS:
                way = "ahead of" if worker.clock > 0 else "behind"
                found.append(
                    (
                        "clocks",
                        f"the clock of worker {worker.name} is {abs(worker.clock):.1f} s {way} the master's: "
                        "totals and percentiles are right, but the course puts its seconds beside others",
                    )
                )
        return found


def shortfall(plan: Plan, seconds: float, intended: float) -> str:
    """What lost workers cost a test that has sent for ``seconds``; ``{after}`` stands for the delay."""
    if not plan.rate:
        return "what its users would have sent is missing since then"
    if plan.rate_per_user:
        return "the rate is one for each user, and so its share is missing since then"
    due = plan.rate * seconds
    return (
        "its share of the rate was given to the others {after:.1f} s later; "
        f"about {max(0.0, due - intended):,.0f} of {due:,.0f} messages were never due to anybody, "
        "or not reported"
    )
