"""What a new connection costs: accept, first message, first confirmation."""

from __future__ import annotations

from typing import Any, ClassVar

from benchmarks.measure.scenarios.base import Bench, Load, Scenario, check_window
from benchmarks.measure.servers import Server
from benchmarks.measure.servers.process import ServerProcess
from benchmarks.reports.histograms import encode_counts
from benchmarks.reports.report import HistogramKind, Metric, Trial


class Connections(Scenario):
    """Opens connections, `window` at a time not yet confirmed, and keeps them all."""

    name = "connections"
    question = (
        "What does it cost to take a new client and confirm its first message, and how fast do they come in?"
    )
    metrics: ClassVar = {
        "server_cpu_us_per_connection": Metric(
            unit="µs", better="lower", title="server CPU per new connection", primary=True
        ),
        "connections_per_second": Metric(
            unit="1/s", better="higher", title="new connections a second", primary=True, when_saturated=True
        ),
    }
    histograms: ClassVar = {
        "first_reply": HistogramKind(title="from connect to the first confirmation (closed loop)")
    }
    defaults: ClassVar = {"connections": 10_000, "size": 32, "window": 256, "blocks": 5}
    quick: ClassVar = {"connections": 4000, "blocks": 3}
    full: ClassVar = {"connections": 18_000, "blocks": 10}

    def trial(self, bench: Bench, server: Server, parameters: dict[str, Any]) -> Trial:
        """The time in which all are opened is the window of measurement."""
        connections = parameters["connections"]
        with (
            ServerProcess(server, bench.server_cores) as process,
            Load(bench, process, connections, size=parameters["size"], window=parameters["window"]) as load,
        ):
            bench.progress(f"opening {connections:,} connections")
            load.grow([min(100, share) for share in load.shares])  # warm-up
            shares = [share - min(100, share) for share in load.shares]
            window = load.window(lambda: load.grow(shares))
        check_window(bench, server.name, window)
        values = {}
        if window.messages:
            values = {
                "server_cpu_us_per_connection": window.server_cpu / window.messages * 1e6,
                "connections_per_second": window.messages / window.seconds,
            }
        return Trial(
            server=server.name,
            block=0,
            order=0,
            seconds=window.seconds,
            messages=window.messages,
            errors=window.errors,
            values=values,
            cpu=window.cpu,
            saturated=window.saturated,
            histograms={"first_reply": encode_counts(dict(window.histograms.get("latency", ())))},
        )
