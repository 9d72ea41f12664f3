"""Times the garbage collector of a server that is measured, from within it.

Python imports ``sitecustomize`` when it starts, from wherever PYTHONPATH has one; the idle scenario
puts this directory there. Each pause of a millisecond or more is a line, in seconds, in the file that
BENCHMARKS_GC_WATCH names.
"""

from __future__ import annotations

import gc
import os
from time import perf_counter

if "BENCHMARKS_GC_WATCH" in os.environ:
    _file = os.open(
        os.environ["BENCHMARKS_GC_WATCH"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
    )
    _began = 0.0

    def _watch(phase: str, info: dict[str, int]) -> None:
        global _began
        if phase == "start":
            _began = perf_counter()
        elif (pause := perf_counter() - _began) >= 0.001:
            os.write(_file, f"{pause:.6f}\n".encode())

    gc.callbacks.append(_watch)
