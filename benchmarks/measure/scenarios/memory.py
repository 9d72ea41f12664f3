"""Memory per idle connection: the slope over plateaus, in the process and in the kernel."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, ClassVar

import numpy as np

from benchmarks.measure.probe import anonymous_bytes, kernel_bytes, pss_bytes
from benchmarks.measure.scenarios.base import Bench, Load, Scenario
from benchmarks.measure.scenarios.tls import encrypted, refuses_tls
from benchmarks.measure.servers import Server
from benchmarks.measure.servers.process import ServerProcess
from benchmarks.reports.report import Metric, Plateau, Trial


class Memory(Scenario):
    """Connections that were confirmed once and say no more, in steps; a line through what was used."""

    name = "memory"
    question = "How much memory does a connection take that was served once and now is idle?"
    metrics: ClassVar = {
        "user_kib_per_connection": Metric(
            unit="KiB",
            better="lower",
            title="server memory per idle connection (anonymous PSS)",
            primary=True,
        ),
        "kernel_kib_per_connection": Metric(
            unit="KiB",
            better="lower",
            title="kernel memory per idle connection, both ends and the generator's",
        ),
        "total_kib_per_connection": Metric(unit="KiB", better="lower", title="both together"),
        "first_mib": Metric(
            unit="MiB", better="lower", title="server memory before the first connection (PSS)"
        ),
    }
    defaults: ClassVar = {
        "connections": 18_000,
        "size": 32,
        "tls": 0,
        "plateaus": 4,
        "settle": 0.5,
        "blocks": 3,
    }
    quick: ClassVar = {"connections": 6000, "blocks": 1, "settle": 0.3}
    full: ClassVar = {"blocks": 10}

    def refuses(self, server: Server, parameters: dict[str, Any]) -> str | None:
        """Over TLS only servers that speak it."""
        return refuses_tls(server) if self.over_tls(parameters) else None

    def trial(self, bench: Bench, server: Server, parameters: dict[str, Any]) -> Trial:
        """Open a share of the connections, wait until nothing changes, read, and go on."""
        total, steps = parameters["connections"], parameters["plateaus"]
        began = time.monotonic()
        plateaus: list[Plateau] = []
        errors: Counter[str] = Counter()
        server, load_options = encrypted(server) if self.over_tls(parameters) else (server, {})
        with (
            ServerProcess(server, bench.server_cores) as process,
            Load(bench, process, total, size=parameters["size"], **load_options) as load,
        ):
            time.sleep(parameters["settle"])
            first = pss_bytes(process.pids)
            held = 0
            for step in range(1, steps + 1):
                bench.progress(f"holding {total * step // steps:,} connections")
                shares = [share * step // steps - share * (step - 1) // steps for share in load.shares]
                grown = load.grow(shares)
                time.sleep(parameters["settle"])
                held = sum(answer["open"] for answer in grown)
                # Each generator counts over its whole life.
                errors = sum((Counter(answer["errors"]) for answer in grown), Counter())
                plateaus.append(
                    Plateau(
                        connections=held,
                        user_bytes=anonymous_bytes(process.pids),
                        kernel_bytes=sum(kernel_bytes().values()),
                    )
                )
        if errors:
            bench.warn("errors", f"failures while opening: {dict(errors)}", server.name)
        return Trial(
            server=server.name,
            block=0,
            order=0,
            seconds=time.monotonic() - began,
            messages=held,
            errors=dict(errors),
            values={
                "user_kib_per_connection": slope(plateaus, "user_bytes") / 1024,
                "kernel_kib_per_connection": slope(plateaus, "kernel_bytes") / 1024,
                "total_kib_per_connection": (slope(plateaus, "user_bytes") + slope(plateaus, "kernel_bytes"))
                / 1024,
                "first_mib": first / 2**20,
            },
            memory=plateaus,
        )


def slope(plateaus: list[Plateau], key: str) -> float:
    """Bytes per connection: the least-squares line through the plateaus."""
    x = [plateau["connections"] for plateau in plateaus]
    y = [plateau[key] for plateau in plateaus]  # type: ignore[literal-required]
    return float(np.polyfit(x, y, 1)[0])
