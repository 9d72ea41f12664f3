"""One factor that stretches all time limits and margins of tests, for slow or loaded machines."""

from __future__ import annotations

import os
from typing import Final

FACTOR: Final = float(os.environ.get("TEST_TIME_FACTOR", "1"))
"""``TEST_TIME_FACTOR`` of the environment, 1 unless given."""


def seconds(x: float) -> float:
    """``x`` seconds of a usual machine, on this one."""
    return x * FACTOR
