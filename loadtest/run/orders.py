"""How many users share a rate in all: what the runner was told to start where, without workers that are lost.

Locust's dispatcher says, step by step, how many users of each class each worker has to run. The last such
order is kept here, as it is given. While users are still being started, those that are yet to come count
too, or the first ones would send the whole rate. Once all are there, the order says exactly how many there
are, of which classes: a locustfile may have users beside ours, which keep to no rate, and classes of a fixed
count may make fewer users than were asked for.

The users of a worker that is lost stay in the order until Locust starts them elsewhere, which is an order
without that worker. So they count as long as they send, or somebody does in their stead, and not in between.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from locust.runners import STATE_MISSING

Order = dict[str, dict[str, int]]
"""Users by worker and class."""


class Orders:
    """The last order of one test; a single process is a worker of its own, called ``local``."""

    def __init__(self) -> None:
        self.last: Order = {}
        self.done = False
        """Whether it is the last of its series: all users are there, or on their way."""
        self.on_order: Callable[[], None] = lambda: None
        """Called at each order, before workers are told."""

    def clear(self) -> None:
        """Begin a new test."""
        self.last, self.done = {}, False

    def noted(self, kind: Any) -> Any:
        """The dispatcher class ``kind``, whose orders are noted here."""

        def give(dispatcher: Any) -> Order:
            try:
                order: Order = kind.__next__(dispatcher)
            except StopIteration:
                self.done = True
                raise
            self.last, self.done = order, False
            self.on_order()
            return order

        return type(kind.__name__, (kind,), {"__next__": give})

    def sharing(self, runner: Any, names: Collection[str]) -> int:
        """How many users of the classes called ``names`` share a rate; of all where there are none."""
        gone = self._gone(runner)
        there = lost = 0
        for worker, counts in self.last.items():
            users = sum(count for name, count in counts.items() if not names or name in names)
            if worker in gone:
                lost += users
            else:
                there += users
        if not self.done:
            there = expected(runner.user_classes, names, runner.target_user_count) - lost
        return max(1, there)

    def _gone(self, runner: Any) -> set[str]:
        """Workers that were told to run users, and are lost."""
        clients = getattr(runner, "clients", None)
        if clients is None:  # a single process
            return set()
        return {each for each in self.last if each not in clients or clients[each].state == STATE_MISSING}


def expected(classes: Iterable[Any], names: Collection[str], users: int) -> int:
    """How many of ``users`` users will be of the classes called ``names``; of all where there are none.

    Locust starts those of classes with a fixed count first, and the others in proportion to their weights.
    """
    fixed: dict[str, float] = {}
    weights: dict[str, float] = {}
    for each in classes:
        if each.fixed_count:
            fixed[each.__name__] = each.fixed_count
        else:
            weights[each.__name__] = each.weight
    first = min(users, sum(fixed.values()))
    return round(first * _share(fixed, names) + (users - first) * _share(weights, names))


def _share(parts: dict[str, float], names: Collection[str]) -> float:
    whole = sum(parts.values())
    return sum(part for name, part in parts.items() if not names or name in names) / whole if whole else 0.0
