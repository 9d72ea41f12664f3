"""Measurements that are no runs of a scenario: ``python -m benchmarks experiment NAME``.

Each is a module with ``add_arguments(parser)`` and ``run(arguments) -> exit status``, imported only where it
is the one that was asked for. What it runs in other processes is under ``programs`` and ``locustfiles``.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Final

EXPERIMENTS: Final = {
    "abuse": "what abusive clients cost the well-behaved ones",
    "faults": "break the server, its machine and its clients on purpose, and look at who notices",
    "soak": "half an hour of everything at once: what grows, and whether both sides count the same",
    "blocking": "how long thousands of clients wait whose handler blocks",
    "lag": "how late the event loop is under messages and under new connections",
    "many-connections": "hold very many connections, each confirmed twice (as root)",
    "storm": "all clients lose their server at once, and come back",
    "tsung": "the same server under Tsung, a load generator that others wrote, and under ours",
    "verdict-quality": "how often the verdicts of compare are right",
    "change-points": "how often history raises a false alarm, and finds a step",
    "loadtest-cost": "what a request costs the load generator, for several kinds of Locust user",
    "loadtest-connections": "how many connections Locust users can hold, and what each takes in memory",
    "loadtest-stall": "what two kinds of paced users say of a server that stalls once",
}
"""What there is, with a line for the help."""


class ExperimentFailed(RuntimeError):
    """A run could not be made, or a reply was wrong; the message is for a person."""


def load(name: str) -> ModuleType:
    """The module of the experiment called ``name``."""
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
