"""The questions that can be asked of a server, one file each."""

from __future__ import annotations

from typing import Final

from benchmarks.scenarios.base import Scenario
from benchmarks.scenarios.confirm import Confirm
from benchmarks.scenarios.memory import Memory
from benchmarks.scenarios.pipelined import Pipelined

SCENARIOS: Final[dict[str, Scenario]] = {
    scenario.name: scenario for scenario in (Confirm(), Pipelined(), Memory())
}
