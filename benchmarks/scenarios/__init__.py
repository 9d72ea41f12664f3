"""The questions that can be asked of a server, one file each."""

from __future__ import annotations

from typing import Final

from benchmarks.scenarios.base import Scenario
from benchmarks.scenarios.churn import Churn
from benchmarks.scenarios.confirm import Confirm
from benchmarks.scenarios.connections import Connections
from benchmarks.scenarios.idle import Idle
from benchmarks.scenarios.memory import Memory
from benchmarks.scenarios.paced import Paced
from benchmarks.scenarios.pipelined import Pipelined
from benchmarks.scenarios.tls import Tls

_ALL: Final = (Confirm(), Pipelined(), Paced(), Connections(), Memory(), Churn(), Idle(), Tls())
SCENARIOS: Final[dict[str, Scenario]] = {scenario.name: scenario for scenario in _ALL}
"""All scenarios by name, in the order in which they are shown."""
