"""Run worlds: by their seeds, one after the other; and make the operations of one that fails few."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from traceback import format_exception
from typing import Any
from unittest import mock

from chat_gevent import answering, broadcast, connection, core, engine, lifecycle, stream
from chat_gevent.lifecycle import Lifecycle
from chat_gevent.state import CLOSING, MOVES
from tests.faults.simulation import checks
from tests.faults.simulation.loop import Loop, run_in_hub, virtual_hub
from tests.faults.simulation.operations import plan
from tests.faults.simulation.world import Operation, Plan, World

SMALL: list[tuple[Any, str, int]] = [
    *((each, "READ_BYTES", 64) for each in (answering, connection, core)),
    (connection, "READS_PER_LEASE", 3),
    (answering, "REPLIES_PER_SEND", 4),
    (engine, "TURN_CONNECTIONS", 2),
    (engine, "QUEUED_AT_ONCE", 1),
    (engine, "SLICE_PUSHES", 1),
    (broadcast, "SLICE_PUSHES", 1),
    (broadcast, "AT_ONCE", 2),
    (stream, "JOINED_ITEMS", 3),
    (lifecycle, "REFUSED_LINGERING", 1),
    (broadcast, "MOST_RUNNING", 2),
]
"""Bounds of the server's that are so small in a world that they are reached in a few operations."""


@dataclass
class Failure:
    """A world in which something did not hold."""

    seed: int
    what: str
    details: str
    plan: Plan
    done: int
    """How many operations had been done."""


class Simulation:
    """Runs worlds on one virtual loop; from :func:`simulation`."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.steps = 0
        """Operations so far, of all worlds."""
        self.worlds = 0
        self.world: World | None = None

    def run(self, made: Plan, seed: int = 0) -> Failure | None:
        """Run one world; returns what did not hold in it, if anything did not."""
        done = 0

        def job() -> None:
            nonlocal done
            self.world = world = World(made, self.loop)
            for operation in made.operations:
                done += 1
                if operation[0] == "quiet":
                    checks.quiet(world)
                else:
                    world.perform(operation)
                    checks.step(world)
            checks.end(world)

        try:
            run_in_hub(self.loop, job)
        except checks.Broken as broken:
            return Failure(seed, broken.what, str(broken), made, done)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what was looked for
            return Failure(
                seed, f"raised {type(error).__name__}", "".join(format_exception(error)), made, done
            )
        finally:
            self.steps += done
            self.worlds += 1
        return None

    def seed(self, number: int) -> Failure | None:
        """Run the world of a seed."""
        return self.run(plan(number), number)

    def shrink(self, failure: Failure) -> Failure:
        """The same failure with few operations: what it does not need is left out, the larger parts first."""
        best = failure
        size = max(1, len(failure.plan.operations) // 2)
        while True:
            start, shorter = 0, False
            while start < len(best.plan.operations):
                operations = best.plan.operations
                tried = replace(best.plan, operations=operations[:start] + operations[start + size :])
                found = self.run(tried, failure.seed)
                if found is not None and found.what == failure.what:
                    best, shorter = found, True
                else:
                    start += size
            if size == 1 and not shorter:
                return best
            if not shorter or size > 1:
                size = max(1, size // 2)


@contextmanager
def simulation() -> Iterator[Simulation]:
    """What runs worlds, in this thread, whose hub is another one meanwhile."""
    made: Simulation

    def handle_error(where: Any, kind: Any, value: Any, trace: Any) -> None:
        assert made.world is not None
        made.world.handle_error(where, kind, value, trace)

    def move(connection: Any, state: Any) -> None:
        before, connection.state = connection.state, state
        world = made.world
        assert world is not None
        if state not in MOVES[before]:
            world.kernel.violations.append(f"no move of the table: {before.name} -> {state.name}")
        if state >= CLOSING:
            world.moved(connection, state)

    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    with ExitStack() as stack:
        for module, name, value in SMALL:
            stack.enter_context(mock.patch.object(module, name, value))
        stack.enter_context(mock.patch.object(Lifecycle, "move", move))
        stack.callback(logging.disable, disabled)
        made = Simulation(stack.enter_context(virtual_hub(handle_error)))
        yield made


def show(operations: list[Operation]) -> str:
    """Operations as text, one a line."""
    return "\n".join("  " + " ".join(map(repr, each)) for each in operations)
