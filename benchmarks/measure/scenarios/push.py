"""One message to many clients: what a delivery costs the server that sends it."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, ClassVar

from benchmarks.measure.compiler import BuildFailed, cc
from benchmarks.measure.generator import CONNECTIONS_PER_PROCESS, push_program
from benchmarks.measure.probe import pss_bytes
from benchmarks.measure.scenarios.base import Bench, Load, Window, check_window, load_trial
from benchmarks.measure.scenarios.confirm import Confirm
from benchmarks.measure.sends import counter
from benchmarks.measure.servers import Server
from benchmarks.measure.servers.process import ServerProcess
from benchmarks.reports.histograms import encode_counts
from benchmarks.reports.report import HistogramKind, Metric, SeriesKind, Trial

COUNTED_SECONDS = 0.3
CPU_PER_DELIVERY = Metric(unit="µs", better="lower", title="server CPU per delivery", primary=True)
DELIVERY_METRICS = {
    "server_cpu_us_per_delivery": CPU_PER_DELIVERY,
    "deliveries_per_second": Metric(
        unit="1/s", better="higher", title="deliveries a second", primary=True, when_saturated=True
    ),
    "machine_cpu_us_per_delivery": Metric(
        unit="µs", better="lower", title="CPU of the whole machine per delivery"
    ),
}


class Push(Confirm):
    """One client speaks; once all have got its message it says the next. Each checks what it gets."""

    name = "push"
    variant = "push"
    question = "What does it cost the server to send one message to each of many clients?"
    metrics: ClassVar = DELIVERY_METRICS
    histograms: ClassVar = {
        "latency": HistogramKind(title="from speaking to a delivery (closed loop)"),
    }
    series: ClassVar = {"confirmed": SeriesKind(title="deliveries a second", unit="1/s")}
    defaults: ClassVar = {
        "connections": 10_000, "size": 64, "warmup": 0.5, "seconds": 3.0, "slices": 10, "blocks": 5,
    }  # fmt: skip
    quick: ClassVar = {"connections": 4000, "seconds": 1.0, "slices": 5, "blocks": 5}
    full: ClassVar = {"blocks": 10}

    def refuses(self, server: Server, parameters: dict[str, Any]) -> str | None:
        """One generator process knows when all have got a message, and is written in C."""
        if not cc():
            return "no C compiler, which the generator of deliveries takes"
        if parameters["connections"] > CONNECTIONS_PER_PROCESS:
            return f"one load generator, which this takes, drives at most {CONNECTIONS_PER_PROCESS:,} clients"
        if parameters["size"] < 16:
            return "a message has at least 16 bytes here"
        return super().refuses(server, parameters)

    def load(self, bench: Bench, process: ServerProcess, parameters: dict[str, Any]) -> Load:
        """All clients in one room unless the parameters say otherwise."""
        options = {"size": parameters["size"], "room": parameters.get("room", 0)}
        return Load(bench, process, parameters["connections"], push_program(), **options)

    def result(self, bench: Bench, server: Server, window: Window) -> Trial:
        """A round ends with its slowest delivery, so that the server rests between rounds: no doubt of it."""
        check_window(bench, server.name, window, closed_loop=False)
        trial = load_trial(server, window)
        values = window.values()
        trial.values = {
            name: values[name.replace("delivery", "message").replace("deliveries", "messages")]
            for name in DELIVERY_METRICS
            if values
        }
        return trial


class Rooms(Push):
    """Everybody in a room speaks; once all in it have got all of that, everybody speaks again.

    In a second, short trial the server's system calls that send are counted, by a library preloaded into it.
    """

    name = "rooms"
    question = "What does a delivery cost in many rooms where everybody speaks, and how many share a call?"
    metrics: ClassVar = {
        **DELIVERY_METRICS,
        "deliveries_per_call": Metric(
            unit="", better="higher", title="deliveries per system call that sends", primary=False
        ),
    }
    defaults: ClassVar = {
        "connections": 5000, "room": 50, "size": 64, "warmup": 0.5, "seconds": 2.0, "blocks": 5,
    }  # fmt: skip
    quick: ClassVar = {"connections": 1000, "seconds": 0.6, "blocks": 3}

    def trial(self, bench: Bench, server: Server, parameters: dict[str, Any]) -> Trial:
        """The trial without the counter, and a short one with it."""
        trial = super().trial(bench, server, parameters)
        with counter() as sends:
            try:
                environment = sends.environment()
            except BuildFailed as error:
                bench.warn("not-counted", str(error), server.name)
                return trial
            with (
                ServerProcess(server, bench.server_cores, environment=environment) as process,
                self.load(bench, process, parameters) as load,
            ):
                bench.progress("counting system calls")
                load.grow()
                load.ask("mark", "marked")
                before = sends.read()
                load.ask("start", "started")
                time.sleep(COUNTED_SECONDS)
                # Nothing was under way at the mark, nor is anything now: these are all deliveries and calls.
                deliveries = sum(answer["confirmed"] for answer in load.ask("stop", "stopped"))
                calls = sends.read() - before
        if deliveries and calls:
            trial.values["deliveries_per_call"] = deliveries / calls
        return trial


class Stuck(Push):
    """Somebody speaks at a fixed rate. Each server is measured twice: all read, and one client does not.

    The latency is that of the others. `compare` sets the two against each other.
    """

    name = "stuck"
    question = "Do clients get their messages later, and does memory grow, where one client does not read?"
    metrics: ClassVar = {
        **DELIVERY_METRICS,
        "memory_mib": Metric(unit="MiB", better="lower", title="server memory at the end (PSS)"),
    }
    histograms: ClassVar = {
        "latency": HistogramKind(title="from the time a message was due to a delivery", open_schedule=True)
    }
    defaults: ClassVar = {
        "connections": 5000, "size": 16_384, "rate": 5.0, "poisson": 1,
        "warmup": 1.0, "seconds": 5.0, "blocks": 5,
    }  # fmt: skip
    quick: ClassVar = {"connections": 1000, "seconds": 1.0, "blocks": 3, "rate": 10.0}

    def prepared(self, servers: list[Server]) -> list[Server]:
        """Each as it is, and once more beside a client that does not read."""
        twice = []
        for server in super().prepared(servers):
            twice += [server, dataclasses.replace(server, name=f"{server.name} +stuck", stuck=1)]
        return twice

    def load(self, bench: Bench, process: ServerProcess, parameters: dict[str, Any]) -> Load:
        """Messages on a schedule."""
        return Load(
            bench, process, parameters["connections"], push_program(),
            size=parameters["size"], mode="paced", rate=parameters["rate"], poisson=parameters["poisson"],
            stuck=process.server.stuck, drain=5,
        )  # fmt: skip

    def trial(self, bench: Bench, server: Server, parameters: dict[str, Any]) -> Trial:
        """As in push, with the server's memory at the end."""
        with (
            ServerProcess(server, bench.server_cores) as process,
            self.load(bench, process, parameters) as load,
        ):
            load.grow()
            bench.progress(f"measuring {parameters['seconds']:g} s")
            window = load.measure(parameters["warmup"], parameters["seconds"])
            memory = pss_bytes(process.pids)
        trial = self.result(bench, server, window)
        trial.histograms = {"latency": encode_counts(dict(window.histograms.get("latency", ())))}
        trial.values["memory_mib"] = memory / 2**20
        if window.unsent:
            bench.warn("behind", f"{window.unsent:,} messages were not sent when due", server.name)
        return trial
