"""``python -m tests.faults.simulation``: run worlds for so many steps, or one again by its seed."""

from __future__ import annotations

import argparse
import sys
from time import perf_counter

from tests.faults.simulation.run import Failure, Simulation, show, simulation


def report(running: Simulation, failure: Failure) -> None:
    """Print a failure, the short way to it, and how to see it again."""
    print(f"seed {failure.seed}: {failure.details}")
    shrunk = running.shrink(failure)
    print(f"after {len(shrunk.plan.operations)} operations: {shrunk.details}")
    print(f"  {shrunk.plan.kind} spawn={shrunk.plan.spawn} most={shrunk.plan.most} {shrunk.plan.settings}")
    print(show(shrunk.plan.operations))
    print(f"again: python -m tests.faults.simulation --seed {failure.seed}", flush=True)


def main() -> int:
    """Run; returns 1 where something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run the world of this seed, and no other")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--steps", type=int, default=200_000, help="end after so many operations")
    parser.add_argument("--seconds", type=float, default=1e9, help="end after so long, whatever was done")
    parser.add_argument("--failures", type=int, default=1, help="end after so many worlds that fail")
    arguments = parser.parse_args()
    failed = 0
    with simulation() as running:
        if arguments.seed is not None:
            failure = running.seed(arguments.seed)
            if failure is not None:
                report(running, failure)
            return int(failure is not None)
        began = perf_counter()
        seed = arguments.first
        end = began + arguments.seconds
        while running.steps < arguments.steps and failed < arguments.failures and perf_counter() < end:
            failure = running.seed(seed)
            if failure is not None:
                failed += 1
                report(running, failure)
            seed += 1
        seconds = perf_counter() - began
        rate = running.steps / seconds
        print(
            f"{running.steps} steps in {running.worlds} worlds, {seconds:.1f} s, {rate:.0f} steps/s",
            flush=True,
        )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
