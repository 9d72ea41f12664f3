"""Many idle connections beside a few active ones: do the idle ones cost the active ones anything?"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.measure.scenarios.base import (
    CLOSED_LATENCY,
    CPU_PER_MESSAGE,
    Bench,
    Load,
    Scenario,
    check_window,
    load_trial,
)
from benchmarks.measure.servers import Server
from benchmarks.measure.servers.process import ServerProcess
from benchmarks.reports.report import Metric, Trial

GC_WATCH = Path(__file__).parent.parent / "servers" / "gc_watch"


class Idle(Scenario):
    """The active connections are measured alone, then beside the idle ones, in one server process.

    In Python servers the pauses of the garbage collector are timed by its own callbacks (gc_watch).
    """

    name = "idle"
    question = "Do many idle clients make the few active ones dearer or slower?"
    metrics: ClassVar = {
        "server_cpu_us_per_message": CPU_PER_MESSAGE,
        "alone_cpu_us_per_message": Metric(
            unit="µs", better="lower", title="server CPU per confirmation without the idle ones"
        ),
        "idle_ratio": Metric(
            unit="", better="lower", title="CPU per confirmation, with / without idle ones", primary=True
        ),
        "longest_wait_ms": Metric(unit="ms", better="lower", title="longest wait for a confirmation"),
        "gc_pause_max_ms": Metric(unit="ms", better="lower", title="longest pause for garbage collection"),
    }
    histograms: ClassVar = {"latency": CLOSED_LATENCY}
    defaults: ClassVar = {
        "connections": 200,
        "idle": 18_000,
        "size": 32,
        "warmup": 0.5,
        "seconds": 3.0,
        "blocks": 5,
    }
    quick: ClassVar = {"idle": 6000, "seconds": 1.0, "blocks": 3}
    full: ClassVar = {"seconds": 5.0, "blocks": 10}

    def trial(self, bench: Bench, server: Server, parameters: dict[str, Any]) -> Trial:
        """Alone, then with the idle ones, each after a warm-up."""
        size, seconds, warmup = parameters["size"], parameters["seconds"], parameters["warmup"]
        with tempfile.TemporaryDirectory() as directory:
            pauses = Path(directory) / "pauses"
            environment = {
                "PYTHONPATH": os.pathsep.join(filter(None, [str(GC_WATCH), os.environ.get("PYTHONPATH")])),
                "BENCHMARKS_GC_WATCH": str(pauses),
            }
            with (
                ServerProcess(server, bench.server_cores, environment=environment) as process,
                Load(bench, process, parameters["connections"], size=size) as active,
            ):
                active.grow()
                bench.progress(f"{parameters['connections']:,} active alone")
                alone = active.measure(warmup, seconds)
                with Load(bench, process, parameters["idle"], size=size, id_base=1 << 30) as idle:
                    bench.progress(f"opening {parameters['idle']:,} idle ones")
                    idle.grow()
                    bench.progress(f"{parameters['connections']:,} active beside {parameters['idle']:,} idle")
                    window = active.measure(warmup, seconds)
                    lost = sum(answer["errors"].get("ended", 0) for answer in idle.ask("stop", "stopped"))
                if lost:
                    bench.warn("errors", f"the server closed {lost} idle connections", server.name)
            longest = (
                max((float(line) for line in pauses.read_text().split()), default=0.0)
                if pauses.exists()
                else None
            )
        check_window(bench, server.name, window)
        trial = load_trial(server, window)
        trial.values = {}
        if window.messages and alone.messages:
            beside, before = (
                window.server_cpu / window.messages * 1e6,
                alone.server_cpu / alone.messages * 1e6,
            )
            trial.values = {
                "server_cpu_us_per_message": beside,
                "alone_cpu_us_per_message": before,
                "idle_ratio": beside / before,
                "longest_wait_ms": window.histograms["latency"][-1][0] / 1000,
            }
            if longest is not None:
                trial.values["gc_pause_max_ms"] = longest * 1000
        return trial
