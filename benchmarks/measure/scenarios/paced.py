"""Latency at a given rate, on a schedule that waits for nobody; and the highest rate that holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

from benchmarks.measure.scenarios.base import (
    GENERATOR_BUSY,
    LOAD_METRICS,
    Bench,
    Load,
    Scenario,
    check_window,
    load_trial,
)
from benchmarks.measure.servers import Server
from benchmarks.measure.servers.process import ServerProcess
from benchmarks.reports.histograms import encode_counts, quantile
from benchmarks.reports.report import HistogramKind, Metric, Trial

STEPS = 4
"""Halvings of the bracket: the highest rate is found to a factor of 2 ** (1 / 16), 4.4%."""


class Paced(Scenario):
    """Messages are due on a schedule, whether or not earlier ones were answered; latency counts from then."""

    name = "paced"
    question = (
        "What latency do clients see at a given rate, and up to which rate does p99 stay under a bound?"
    )
    metrics: ClassVar = {
        **{name: LOAD_METRICS[name] for name in list(LOAD_METRICS)[:-1]},
        "highest_rate": Metric(
            unit="1/s", better="higher", title="highest rate with p99 under the bound", primary=True
        ),
    }
    histograms: ClassVar = {
        "latency": HistogramKind(title="latency from the intended time of sending", open_schedule=True),
        "service": HistogramKind(title="latency from the real time of sending"),
    }
    defaults: ClassVar = {
        "connections": 1000,
        "size": 32,
        "rate": 10_000.0,
        "poisson": 1,
        "bound_ms": 5.0,
        "warmup": 0.5,
        "seconds": 3.0,
        "blocks": 5,
    }
    quick: ClassVar = {"seconds": 1.0, "blocks": 3, "bound_ms": 0.0}
    full: ClassVar = {"seconds": 5.0, "blocks": 10}

    def refuses(self, server: Server, parameters: dict[str, Any]) -> str | None:
        """A server without framing would take two messages that wait for it as one."""
        if server.framing == "chunk":
            return "it has no framing: messages that wait for it become one"
        return None

    def trial(self, bench: Bench, server: Server, parameters: dict[str, Any]) -> Trial:
        """The window at the given rate; then, with a bound, the search for the highest."""
        seconds, rate, bound = parameters["seconds"], parameters["rate"], parameters["bound_ms"]
        load_options = {"mode": "paced", "rate": rate, "poisson": parameters["poisson"], "drain": 3}
        with (
            ServerProcess(server, bench.server_cores) as process,
            Load(bench, process, parameters["connections"], size=parameters["size"], **load_options) as load,
        ):
            load.grow()
            bench.progress(f"{rate:,.0f} messages a second")
            window = load.measure(parameters["warmup"], seconds)
            highest = self._search(bench, server, load, rate, bound, min(seconds, 1.0)) if bound else None
        check_window(bench, server.name, window, closed_loop=False)
        if window.unsent > 0.001 * window.messages:
            bench.warn(
                "behind",
                f"{window.unsent:,} messages were not sent when due: the server did not keep up",
                server.name,
            )
        histograms = {name: encode_counts(dict(counts)) for name, counts in window.histograms.items()}
        trial = load_trial(server, window, histograms=histograms)
        trial.values.pop("messages_per_second", None)
        if highest:
            trial.values["highest_rate"] = highest
        return trial

    def _search(
        self, bench: Bench, server: Server, load: Load, rate: float, bound_ms: float, seconds: float
    ) -> float | None:
        busy = False

        def holds(rate: float) -> bool:
            nonlocal busy
            bench.progress(f"does {rate:,.0f} a second hold?")
            for generator in load.generators:
                generator.send(f"rate {rate / len(load.generators)}")
            window = load.measure(0.2, seconds)
            busy = busy or window.generator_share >= GENERATOR_BUSY
            if window.unsent > 0.01 * window.messages or not window.histograms.get("latency"):
                return False
            return quantile(dict(window.histograms["latency"]), 0.99) <= bound_ms * 1000

        highest = search(holds, rate)
        if highest is None:
            bench.warn("no-rate", f"no rate keeps p99 under {bound_ms:g} ms", server.name)
        if busy:
            bench.warn(
                "generator-busy",
                "the load generator was at its limit while the highest rate was sought",
                server.name,
            )
        return highest


def search(holds: Callable[[float], bool], rate: float) -> float | None:
    """The highest rate that holds, to 4.4% below it; None where not even one a second does.

    Doubles (or halves) from ``rate`` until one holds and its double does not; then halves the bracket.
    """
    if holds(rate):
        good, bad = rate, rate * 2
        while bad < 1e8 and holds(bad):
            good, bad = bad, bad * 2
    else:
        good, bad = rate / 2, rate
        while not holds(good):
            good, bad = good / 2, good
            if good < 1:
                return None
    for _ in range(STEPS):
        middle = math.sqrt(good * bad)
        good, bad = (middle, bad) if holds(middle) else (good, middle)
    return good
