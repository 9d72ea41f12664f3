"""The same as confirm with a handler of one's own: a Python function that is called for each message."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.measure.scenarios.confirm import Confirm


class Handler(Confirm):
    """Closed loop; the function and its work are the same in all servers. ``--depth 16`` pipelines."""

    name = "handler"
    variant = "handler"
    question = "What does one message cost the server that gives each to a Python function of one's own?"
    defaults: ClassVar = {**Confirm.defaults}
    quick: ClassVar = {**Confirm.quick}
