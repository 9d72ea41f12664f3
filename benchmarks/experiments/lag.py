"""How late the server's event loop is, which everything in it waits for at least.

``chat-gevent serve`` runs on one core with a timer in its event loop that is due every 5 ms
(``programs/lag_of_serve.py``); how late it is, is the lag. The load comes from another core, on a Poisson
schedule that does not wait for the server, so that what comes while the loop is held comes all the same:

* **messages**: ``--rate`` a second over ``--clients`` that are connected;
* **sessions**: clients that connect, have a message confirmed, say ``/exit`` and leave, as many a second as
  keep the server's core ``--busy`` of its time. What a session costs is measured first, with sessions that
  follow one another without a pause. A server that has time left takes a client alone where a busy one takes
  several at once, which is cheaper; so the rate is set again by what the core's share turns out to be, until
  it is near enough.

The command prints a line for each: the share of its core that the server used, median, p99 and maximum of the
lag, and the p99 of what clients waited.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.experiments import ExperimentFailed
from benchmarks.measure.compiler import cc
from benchmarks.measure.launch import python
from benchmarks.measure.scenarios.base import Bench, Load, Window
from benchmarks.measure.servers import SERVERS
from benchmarks.measure.servers.process import ServerProcess
from benchmarks.reports.environment import describe, revision
from benchmarks.reports.histograms import quantile, quantile_of
from benchmarks.show.wording import number

PROGRAM: Final = "benchmarks.experiments.programs.lag_of_serve"
SESSIONS_AT_ONCE: Final = 1000
"""As many may be under way; one more would wait for its turn at the client."""
SOURCES: Final = 32
"""Addresses that sessions come from, so that ports in TIME_WAIT are no limit."""
NEAR: Final = 0.03
"""The core's share may be off by so much."""
MOST_TRIALS: Final = 6
"""Rates that are tried."""


class Measured:
    """One load on one server: what the generator saw, and how late the loop was meanwhile."""

    def __init__(self, window: Window, late_ms: list[float]) -> None:
        self.window = window
        self.late_ms = late_ms

    def figures(self) -> dict[str, Any]:
        """What is printed and kept; times in milliseconds."""
        waits = dict(self.window.histograms["latency"])
        late = self.late_ms
        return {
            "busy": self.window.server_share,
            "messages_per_second": self.window.messages / self.window.seconds,
            "sessions_per_second": self.window.sessions / self.window.seconds,
            "errors": self.window.errors,
            "samples": len(late),
            "lag_p50_ms": quantile_of(late, 0.5),
            "lag_p99_ms": quantile_of(late, 0.99),
            "lag_most_ms": max(late),
            "waited_p99_ms": quantile(waits, 0.99) / 1000,
        }


def measure(seconds: float, clients: int, options: Iterable[str] = (), **load: Any) -> Measured:
    """Load a server of its own for ``seconds``.

    :param options: of ``serve``.
    :param load: options of the load generator.

    Raises ExperimentFailed: a client got something wrong.
    """
    cores = sorted(os.sched_getaffinity(0))
    bench = Bench(tuple(cores[:1]), tuple(cores[1:] or cores), lambda text: None)
    with tempfile.TemporaryDirectory(prefix="lag-") as folder:
        path = Path(folder, "late")
        server = dataclasses.replace(
            SERVERS["chat_gevent"], command=lambda: python("-m", PROGRAM, str(path), "--framing", "line")
        )
        with contextlib.ExitStack() as stack:
            process = stack.enter_context(ServerProcess(server, bench.server_cores, options))
            generator = stack.enter_context(Load(bench, process, clients, size=32, poisson=1, **load))
            generator.grow()
            window = generator.measure(1, seconds)
        begin, end = generator.marked_ns, generator.marked_ns + window.seconds * 1e9
        lines = (line.split() for line in path.read_text().splitlines())
        late = [int(late) / 1e6 for due, late in lines if begin <= int(due) < end]
    if window.errors:
        raise ExperimentFailed(f"not all that clients saw was right: {window.errors}")
    return Measured(window, late)


def sessions(seconds: float, busy: float) -> Measured:
    """Sessions at the rate that keeps the core ``busy``. Raises ExperimentFailed: no rate does."""
    options: dict[str, Any] = {"sources": SOURCES, "messages": 1}
    first = measure(2, 64, mode="churn", **options).window
    rate = busy * first.sessions / first.server_cpu
    for _ in range(MOST_TRIALS):
        found = measure(seconds, SESSIONS_AT_ONCE, mode="arrivals", rate=rate, **options)
        if abs(found.window.server_share - busy) <= NEAR:
            return found
        rate *= busy / found.window.server_share
    raise ExperimentFailed(f"no rate of sessions keeps the core {busy:.0%} busy")


def show(title: str, figures: dict[str, Any]) -> None:
    """Tell the outcome of one load in a line."""
    rate = figures["sessions_per_second"] or figures["messages_per_second"]
    lags = " / ".join(number(figures[f"lag_{name}_ms"]) for name in ("p50", "p99", "most"))
    print(
        f"{rate:8,.0f} {title} a second: core {figures['busy']:.0%} busy, "
        f"lag p50 / p99 / most {lags} ms, clients' p99 {number(figures['waited_p99_ms'])} ms",
        flush=True,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "--rate", type=float, default=10_000, metavar="N", help="messages a second (%(default)g)"
    )
    parser.add_argument("--clients", type=int, default=1000, metavar="N", help="that send them (%(default)s)")
    parser.add_argument(
        "--busy", type=float, default=0.7, metavar="SHARE", help="of the core, by sessions (%(default)g)"
    )
    parser.add_argument("--seconds", type=float, default=20, metavar="N", help="of each load (%(default)g)")
    parser.add_argument("--output", metavar="FILE", help="file for the figures, JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure both loads."""
    if not cc():
        raise ExperimentFailed("the load comes from a program in C, and there is no C compiler")
    if not 0 < arguments.busy < 1 or min(arguments.rate, arguments.clients, arguments.seconds) <= 0:
        arguments.parser.error("--busy must be between 0 and 1, and the other numbers above 0")
    messages = measure(arguments.seconds, arguments.clients, mode="paced", rate=arguments.rate).figures()
    show("messages", messages)
    coming = sessions(arguments.seconds, arguments.busy).figures()
    show("sessions", coming)
    if arguments.output:
        figures = {"revision": revision().commit, "messages": messages, "sessions": coming}
        made = datetime.now(UTC).isoformat(timespec="seconds")
        figures = {"created": made, **figures, "environment": describe({})}
        Path(arguments.output).write_text(json.dumps(figures, indent=1) + "\n")
    return 0
