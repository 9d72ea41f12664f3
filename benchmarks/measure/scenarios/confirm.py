"""The main question: CPU per confirmation with many clients, each of which waits for its reply."""

from __future__ import annotations

from typing import Any, ClassVar

from benchmarks.measure.scenarios.base import (
    CLOSED_LATENCY,
    Bench,
    Load,
    Scenario,
    Window,
    check_window,
    load_trial,
)
from benchmarks.measure.servers import Server
from benchmarks.measure.servers.process import ServerProcess
from benchmarks.reports.report import Trial


class Confirm(Scenario):
    """Closed loop, one message under way on each connection."""

    name = "confirm"
    question = "What does one confirmation cost the server when many clients each wait for their reply?"
    histograms: ClassVar = {"latency": CLOSED_LATENCY}
    defaults: ClassVar = {
        "connections": 5000,
        "size": 32,
        "depth": 1,
        "warmup": 1.0,
        "seconds": 3.0,
        "slices": 10,
        "blocks": 5,
    }
    quick: ClassVar = {"connections": 2000, "warmup": 0.4, "seconds": 1.0, "slices": 5, "blocks": 5}
    full: ClassVar = {"warmup": 0.5, "seconds": 3.0, "slices": 10, "blocks": 10}

    def refuses(self, server: Server, parameters: dict[str, Any]) -> str | None:
        """A server without framing takes what one read brings: one short message at a time."""
        if server.framing == "chunk" and (parameters["depth"] > 1 or parameters["size"] > 1000):
            return "it has no framing: only one message under way, of at most 1,000 bytes"
        return super().refuses(server, parameters)

    def load(self, bench: Bench, process: ServerProcess, parameters: dict[str, Any]) -> Load:
        """The load generators, nothing connected yet."""
        options = {name: parameters[name] for name in ("size", "depth")}
        return Load(bench, process, parameters["connections"], **options)

    def trial(self, bench: Bench, server: Server, parameters: dict[str, Any]) -> Trial:
        """All connections open and confirmed once, then the load."""
        with (
            ServerProcess(server, bench.server_cores) as process,
            self.load(bench, process, parameters) as load,
        ):
            bench.progress(f"opening {parameters['connections']:,} connections")
            load.grow()
            bench.progress(f"measuring {parameters['seconds']:g} s")
            window = load.measure(parameters["warmup"], parameters["seconds"])
        return self.result(bench, server, window)

    def result(self, bench: Bench, server: Server, window: Window) -> Trial:
        """The trial that a window makes, and the checks that it fails."""
        check_window(bench, server.name, window)
        return load_trial(server, window)
