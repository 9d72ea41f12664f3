"""The same as confirm with several messages in one write: what framing and batching cost."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.measure.scenarios.confirm import Confirm


class Pipelined(Confirm):
    """Closed loop, ``depth`` messages sent in one write, all replies awaited."""

    name = "pipelined"
    question = "What does one confirmation cost when a client sends many messages in one write?"
    defaults: ClassVar = {**Confirm.defaults, "connections": 1000, "depth": 16}
    quick: ClassVar = {**Confirm.quick, "connections": 500}
