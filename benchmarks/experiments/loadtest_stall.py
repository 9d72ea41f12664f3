"""Coordinated omission, shown: a server that stalls once, and what two kinds of paced users say of it.

It runs 10 users at 20 messages a second for 10 s against a
server that answers at once but for one stall of 2 s, first with ``loadtest``'s schedule, then with
Locust's ``constant_throughput``. The server knows when each message should have come and when the
stall was, so it knows the true percentile; a user that waits for slow replies can't.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import gevent
from gevent import subprocess as gevent_subprocess
from gevent.server import StreamServer

from benchmarks.experiments import ExperimentFailed
from benchmarks.measure.launch import environment, python
from benchmarks.reports.figures import merged
from benchmarks.reports.histograms import quantile, quantile_of
from benchmarks.reports.report import Report

PLAIN: Final = Path(__file__).parent / "locustfiles" / "stall.py"
"""The users that Locust paces."""


class StallingServer:
    """Confirms lines at once, but for one stall; notes when each connection's first message came."""

    def __init__(self, after: float, stall: float) -> None:
        self.after, self.stall = after, stall
        self.began = 0.0
        self.firsts: list[float] = []
        self.server = StreamServer(("127.0.0.1", 0), self.handle)
        self.server.start()

    @property
    def host(self) -> str:
        """Where it listens, for Locust."""
        return f"tcp://127.0.0.1:{self.server.server_port}"

    def handle(self, connection: Any, address: Any) -> None:
        """Serve one client, until it leaves or Locust stops it in the middle of a reply."""
        try:
            self._confirm(connection)
        except ConnectionError:
            pass

    def _confirm(self, connection: Any) -> None:
        for number, line in enumerate(connection.makefile("rb")):
            now = perf_counter()
            if number == 0:
                self.firsts.append(now)
                self.began = self.began or now + self.after
            if self.began <= now < self.began + self.stall:
                gevent.sleep(self.began + self.stall - now)
            connection.sendall(b"Received: " + line)

    def true_quantile(self, q: float, interval: float, each: int) -> float:
        """Seconds: each message's delay, had it been sent when it should have been."""
        end = self.began + self.stall
        starts = [first + k * interval for first in self.firsts for k in range(each)]
        delays = (end - start if self.began <= start < end else 0.0 for start in starts)
        return quantile_of(delays, q)


def run_locust(command: list[str], host: str, users: int, seconds: float, **variables: str) -> None:
    """Run a command of Locust in a process of its own while this one serves."""
    load = ["--host", host, "-u", str(users), "-r", str(users), "-t", f"{math.ceil(seconds)}s"]
    process = gevent_subprocess.Popen(
        [*command, "--headless", "--only-summary", *load],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(variables),
    )  # fmt: skip
    output, _ = process.communicate()
    if process.returncode:
        raise ExperimentFailed(f"Locust ended with exit status {process.returncode}:\n{output}")


def measure(users: int, rate: float, seconds: float, stall: float) -> dict[str, Any]:
    """Both runs; percentiles in milliseconds."""
    each = round(rate * seconds)
    found: dict[str, Any] = {"intended": users * each}
    with tempfile.TemporaryDirectory() as folder:
        server = StallingServer(0.3 * seconds, stall)
        path = Path(folder, "report.json")
        options = ["--rate", f"{rate:g}/user", "--messages", str(each), "--report", str(path)]
        run_locust(python("-m", "loadtest", *options), server.host, users, seconds + 30)
        report = Report.load(path)
        name = report.servers[0].name
        for kind in ("response", "service"):
            histogram = merged(report, name, kind)
            assert histogram is not None
            found[f"{kind}_p99"] = histogram.get_value_at_percentile(99) / 1e3
            found[f"{kind}_count"] = histogram.get_total_count()
        found["true_p99"] = server.true_quantile(0.99, 1 / rate, each) * 1e3
        server.server.stop()

        server = StallingServer(0.3 * seconds, stall)
        stats = Path(folder, "stats")
        command = python("-m", "locust", "-f", str(PLAIN), "--json-file", str(stats))
        variables = {"STALL_RATE": f"{rate:g}", "STALL_SECONDS": f"{seconds:g}"}
        run_locust(command, server.host, users, seconds + 30, **variables)
        (entry,) = json.loads(stats.with_suffix(".json").read_text())
        found["locust_count"] = entry["num_requests"]
        found["locust_p99"] = quantile({float(k): n for k, n in entry["response_times"].items()}, 0.99)
        server.server.stop()
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--users", type=int, default=10)
    parser.add_argument("--rate", type=float, default=20.0, help="messages a second and user")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--stall", type=float, default=2.0, help="length of the stall in seconds")
    parser.add_argument("--json", action="store_true")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    found = measure(arguments.users, arguments.rate, arguments.seconds, arguments.stall)
    if arguments.json:
        print(json.dumps(found))
        return 0
    rows = [("true p99, computed from the stall", found["true_p99"], found["intended"])]
    for kind, label in (("response", "intended start to answered"), ("service", "sent to answered")):
        rows.append((f"loadtest, {kind} p99 ({label})", found[f"{kind}_p99"], found[f"{kind}_count"]))
    rows.append(("Locust, constant_throughput, p99", found["locust_p99"], found["locust_count"]))
    for text, p99, count in rows:
        print(f"{text:<56} {p99:8.1f} ms of {count:,} messages")
    print(f"response p99 is off by {abs(found['response_p99'] / found['true_p99'] - 1):.2%}")
    return 0
