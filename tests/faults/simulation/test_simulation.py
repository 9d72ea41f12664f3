"""Random worlds of the whole server, on a kernel and a clock in memory; and bugs that these must find.

In CI a few fixed seeds run. For longer: ``python -m tests.faults.simulation --steps 10000000`` and
``python -m tests.faults.simulation.mutations``.
"""

from __future__ import annotations

import pytest

from tests.faults.simulation.mutations import MENDED, MUTATIONS, Mutation, find
from tests.faults.simulation.operations import plan
from tests.faults.simulation.run import show, simulation
from tests.faults.simulation.world import Operation, Plan

SEEDS = 1500
"""Worlds that each run of the tests goes through: about 10 seconds with a CPU to itself."""


@pytest.mark.timeout(300)
def test_nothing_breaks() -> None:
    """In none of the worlds of the first seeds anything is lost, doubled, left over or left asleep."""
    with simulation() as running:
        for seed in range(SEEDS):
            failure = running.seed(seed)
            if failure is not None:
                short = running.shrink(failure)
                pytest.fail(f"seed {seed}: {short.details}\n{short.plan}\n{show(short.plan.operations)}")
        assert running.steps > SEEDS * 300


def test_a_seed_makes_the_same_world() -> None:
    """A seed that has failed fails again: it decides everything, down to each byte that was sent."""
    seen = []
    for _ in range(2):
        with simulation() as running:
            for seed in range(20):
                assert running.seed(seed) is None
                assert running.world is not None
                streams = [bytes(each.peer.socket.produced) for each in running.world.all]
                seen.append((seed, streams, running.loop.time, dict(running.world.core.registry.closed)))
    assert seen[:20] == seen[20:]
    assert any(streams for _, streams, *_ in seen)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mutation", MUTATIONS + MENDED, ids=lambda each: each.method)
def test_a_bug_is_found(mutation: Mutation) -> None:
    """Each bug that is put into the server is found within a minute."""
    failure, _ = find(mutation, 60, mutation.seed)
    assert failure is not None


def test_a_pause_shortens_no_limit() -> None:
    """Where the process stood still for some ticks, a client that comes then has all of its idle time."""
    settings = {"park_after": 0.0, "max_message_bytes": 40, "idle_timeout": 4.0}
    operations: list[Operation] = [
        ("connect", 1, "10.0.0.0", 40, 300, ""), ("turn",), ("pass", 3.0),
        ("connect", 0, "10.0.0.0", 40, 10, ""), ("run", 45), ("run", 13), ("pass", 1.0),
        ("run", 14), ("pass", 1.0), ("run", 56), ("pass", 1.0),
    ]  # fmt: skip
    with simulation() as running:
        assert running.run(Plan("confirm", False, settings, operations)) is None


def test_a_failure_is_shrunk_and_seen_again() -> None:
    """Of the hundreds of operations of a world that fails, those are left that matter; they fail alike."""
    mutation = next(each for each in MUTATIONS if each.method == "wake")
    failure, _ = find(mutation, 60, mutation.seed)
    assert failure is not None
    with mutation.applied(), simulation() as running:
        again = running.seed(failure.seed)
        assert again is not None
        assert again.details == failure.details
        short = running.shrink(failure)
        assert len(short.plan.operations) <= 20 < len(plan(failure.seed).operations)
        assert short.what == failure.what
    with simulation() as running:
        assert running.run(short.plan) is None
