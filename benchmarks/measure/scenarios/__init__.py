"""The questions that can be asked of a server, one file each."""

from __future__ import annotations

from typing import Final

from benchmarks.measure.scenarios.base import Scenario
from benchmarks.measure.scenarios.churn import Churn
from benchmarks.measure.scenarios.confirm import Confirm
from benchmarks.measure.scenarios.connections import Connections
from benchmarks.measure.scenarios.handler import Handler
from benchmarks.measure.scenarios.idle import Idle
from benchmarks.measure.scenarios.memory import Memory
from benchmarks.measure.scenarios.paced import Paced
from benchmarks.measure.scenarios.pipelined import Pipelined
from benchmarks.measure.scenarios.push import Push, Rooms, Stuck
from benchmarks.measure.scenarios.tls import Tls

_ALL: Final = (
    Confirm(), Pipelined(), Handler(), Paced(), Connections(), Memory(), Churn(), Idle(), Tls(),
    Push(), Rooms(), Stuck(),
)  # fmt: skip
SCENARIOS: Final[dict[str, Scenario]] = {scenario.name: scenario for scenario in _ALL}
"""All scenarios by name, in the order in which they are shown."""
