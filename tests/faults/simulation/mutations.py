"""Bugs that are put into the server by hand, to show that the simulation finds such bugs.

Each is one change of a method's source. ``python -m tests.faults.simulation.mutations`` looks for all of them
from the first seed on, and prints the seed that finds each; tests begin at that seed.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any
from unittest import mock

from chat_gevent.answering import Answering
from chat_gevent.broadcast import Broadcasts
from chat_gevent.connection import Connection
from chat_gevent.core import Core
from chat_gevent.engine import Engine
from chat_gevent.lifecycle import Lifecycle
from chat_gevent.outgoing import Outgoing
from chat_gevent.places import Places
from chat_gevent.stream import Stream
from tests.faults.simulation.run import Failure, simulation


@dataclass(frozen=True)
class Mutation:
    """One bug: in ``method`` of ``owner`` the text ``old``, which is there once, is ``new``."""

    name: str
    owner: Any
    method: str
    old: str
    new: str
    seed: int = 0
    """The first seed of those that tests look for it with: near the one that finds it."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        """With the bug in the server."""
        function = inspect.unwrap(getattr(self.owner, self.method))
        source = textwrap.dedent(inspect.getsource(function))
        if source.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.old!r} is {source.count(self.old)} times in {self.method}")
        module = vars(sys.modules[function.__module__])
        made: dict[str, Any] = {}
        # The class cell is what super() without arguments needs.
        code = f"def make(__class__):\n{textwrap.indent(source.replace(self.old, self.new), '    ')}"
        exec(f"{code}\n    return {self.method}", module, made)
        with mock.patch.object(self.owner, self.method, made["make"](self.owner)):
            yield


MUTATIONS = [
    Mutation(
        "a lost edge: a short read is taken for the last, also where the event said more",
        Connection, "_exchange", "and not to_the_end and not self.missed", "and not self.missed",
        seed=20,
    ),
    Mutation(
        "a lost edge: events that come while the handler is at work are not noted",
        Connection, "serve", "self.missed |= event", "pass",
        seed=19,
    ),
    Mutation(
        "a missed flush: of several clients that were pushed to, the second is not flushed",
        Engine, "flush_soon",
        "self._pushed[connection] = None", "self._pushed or self._pushed.update({connection: None})",
        seed=4,
    ),
    Mutation(
        "a missed flush: nobody watches for room",
        Engine, "wait_for_room", "self._mask(connection) | EPOLLOUT", "self._mask(connection)",
        seed=82,
    ),
    Mutation(
        "a double close",
        Lifecycle, "cut", "if self.state is CLOSED:", "if self.state is CLOSED and self.greenlet is None:",
        seed=24,
    ),
    Mutation(
        "a reply out of order: what was sent in part is sent on behind the others",
        Stream, "flush",
        "outbox.insert(0, data[sent:] if sent else data)", "outbox.append(data[sent:] if sent else data)",
        seed=2,
    ),
    Mutation(
        "a client forgotten in the queue of those who flood",
        Engine, "_resume_queued", "    if self._queue:", "    if len(self._queue) > 1:",
        seed=146,
    ),
    Mutation(
        "a counter that is not decreased: of pushes that a client which is gone had not taken",
        Core, "gone", "self.queued -= client._queued", "pass",
    ),
    Mutation(
        "a counter that is not decreased: of the clients of an address",
        Places, "give_back", "self._taken[host] -= 1", "pass",
    ),
    Mutation(
        "a partial send that loses its tail, on the short way",
        Connection, "wake", "self.outbox = [reply[sent:]]", "return False",
        seed=32,
    ),
    Mutation(
        "a timer that is not cancelled: of a wait that input has ended",
        Stream, "wait_readable", "timer.close()", "pass",
        seed=1,
    ),
    Mutation(
        "a broadcast that skips one: the one that was sent to before it",
        Broadcasts, "catch_up", "each.push(connection)", "pass",
        seed=2,
    ),
    Mutation(
        "a drain that ends early: it does not wait for the clients",
        Core, "drain", "self._finished.wait(max(0.0, deadline - system.monotonic()))", "pass",
        seed=3,
    ),
    Mutation(
        "a hook that is not told: of a client that goes while it is parked",
        Lifecycle, "cut", "self._tell_disconnected()", "pass",
        seed=84,
    ),
    Mutation(
        "a client that is pushed to is answered the short way, before the push",
        Outgoing, "push_framed", "self.move(PARKED)", "pass",
        seed=91,
    ),
]  # fmt: skip
"""Bugs of the kinds that such servers have."""

MENDED = [
    Mutation(
        "one that had its turn and had sent no more by then was never idle",
        Engine, "_resume_queued",
        "due.append((connection, EPOLLIN))", "connection.encrypted and due.append((connection, EPOLLIN))",
        seed=27,
    ),
    Mutation(
        "what a failed send had been given was lost, and what followed was sent",
        Stream, "flush", "outbox.insert(0, data)", "pass",
        seed=1036,
    ),
    Mutation(
        "pushes were cut off at the end of a client's stream, though it read on",
        Answering, "_end_of_input", "if self.outbox:", "if False:",
        seed=591,
    ),
    Mutation(
        "a service's last message came before the reply that its hook returned",
        Lifecycle, "close_by_service",
        "self.known_client()._last = framed", "framed is None or self._due().append(framed)",
        seed=3,
    ),
]  # fmt: skip
"""Bugs that the simulation has found, as they were."""


def find(mutation: Mutation, seconds: float, first: int = 0) -> tuple[Failure | None, float]:
    """The first failure that a mutation makes, and after how many seconds; None: none in that time."""
    with mutation.applied(), simulation() as running:
        began = perf_counter()
        seed = first
        while (spent := perf_counter() - began) < seconds:
            failure = running.seed(seed)
            if failure is not None:
                return failure, perf_counter() - began
            seed += 1
        return None, spent


def main() -> int:
    """Print for each mutation the seed that finds it."""
    missed = 0
    for mutation in MUTATIONS + MENDED:
        failure, seconds = find(mutation, 60)
        found = "NOT FOUND" if failure is None else f"seed {failure.seed}: {failure.what}"
        missed += failure is None
        print(f"{seconds:5.1f} s  {mutation.name}\n         {found}", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(main())
