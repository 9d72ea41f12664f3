"""Clients that come, say a few messages, and leave: the whole life of a connection."""

from __future__ import annotations

from typing import Any, ClassVar

from benchmarks.measure.scenarios.base import Bench, Load, Scenario, check_window, load_trial
from benchmarks.measure.servers import Server
from benchmarks.measure.servers.process import ServerProcess
from benchmarks.reports.histograms import encode_counts
from benchmarks.reports.report import HistogramKind, Metric, Trial


class Churn(Scenario):
    """Each client connects, sends its messages one by one, says /exit, awaits the end and comes back."""

    name = "churn"
    question = "What does a client cost that connects, says a few messages and leaves?"
    metrics: ClassVar = {
        "server_cpu_us_per_session": Metric(
            unit="µs", better="lower", title="server CPU per session", primary=True
        ),
        "sessions_per_second": Metric(
            unit="1/s", better="higher", title="sessions a second", primary=True, when_saturated=True
        ),
    }
    histograms: ClassVar = {"session": HistogramKind(title="from connect to the end of stream (closed loop)")}
    defaults: ClassVar = {
        "connections": 200,
        "messages": 5,
        "size": 32,
        "warmup": 0.5,
        "seconds": 3.0,
        "blocks": 5,
    }
    quick: ClassVar = {"seconds": 1.0, "blocks": 3}
    full: ClassVar = {"seconds": 5.0, "blocks": 10}

    def refuses(self, server: Server, parameters: dict[str, Any]) -> str | None:
        """Sessions end with ``/exit``, which another protocol does not have."""
        return "it speaks another protocol, which has no /exit" if server.protocol else None

    def trial(self, bench: Bench, server: Server, parameters: dict[str, Any]) -> Trial:
        """Source addresses are many, so that ports in TIME_WAIT are no limit."""
        options = {
            "mode": "churn",
            "size": parameters["size"],
            "messages": parameters["messages"],
            "sources": 32,
        }
        with (
            ServerProcess(server, bench.server_cores) as process,
            Load(bench, process, parameters["connections"], **options) as load,
        ):
            load.grow()
            bench.progress(f"measuring {parameters['seconds']:g} s")
            window = load.measure(parameters["warmup"], parameters["seconds"])
        check_window(bench, server.name, window)
        trial = load_trial(
            server, window, histograms={"session": encode_counts(dict(window.histograms.get("service", ())))}
        )
        trial.values = {}
        if window.sessions:
            trial.values = {
                "server_cpu_us_per_session": window.server_cpu / window.sessions * 1e6,
                "sessions_per_second": window.sessions / window.seconds,
            }
        return trial
