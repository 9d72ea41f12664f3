"""A second opinion: the same server under Tsung, a load generator that others wrote, and under this one.

A fresh server is started for each measurement, pinned as in every run. Printed is what both say of
throughput, of server CPU per confirmation and of latency:

closed loop
    50 clients, each of which sends its next message when its reply has come.
same rate
    this one again, paced at the rate that Tsung reached: only then is CPU per confirmation comparable,
    because a server that is not busy pays a wake-up for almost every message.
latency
    50 clients at 500 messages a second in all, at random intervals; mean time from sending to reply.

Server CPU, wake-ups of the server and TCP segments are per message.

Tsung (http://tsung.erlang-projects.org) checks each reply by a regular expression and reports counts and
means every 10 seconds in its log. ``apt-get install tsung`` has it on Debian.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.experiments import ExperimentFailed
from benchmarks.measure.launch import pinned
from benchmarks.measure.probe import read_processes
from benchmarks.measure.runner import cores
from benchmarks.measure.scenarios.base import Bench, Load, Window
from benchmarks.measure.servers import find
from benchmarks.measure.servers.process import ServerProcess
from chat_gevent.files import raise_file_limit

USERS: Final = 50
THINK: Final = 0.1
"""Mean pause of a client in the latency measurement, in seconds."""
DTD: Final = "/usr/share/tsung/tsung-1.0.dtd"
PLAN: Final = """<?xml version="1.0"?>
<!DOCTYPE tsung SYSTEM "{dtd}">
<tsung loglevel="notice">
 <clients><client host="localhost" use_controller_vm="true" maxusers="1000"/></clients>
 <servers><server host="127.0.0.1" port="{port}" type="tcp"/></servers>
 <load><arrivalphase phase="1" duration="5" unit="minute">
  <users maxnumber="{users}" interarrival="0.01" unit="second"/>
 </arrivalphase></load>
 <sessions><session name="confirm" probability="100" type="ts_raw">
  <for from="1" to="{messages}" var="i">
   {think}<request><match do="abort" when="nomatch">Received: m{{32}}</match>
    <raw data="{message}&#10;" ack="local"/></request>
  </for>
 </session></sessions>
</tsung>
"""


@dataclass(frozen=True)
class Opinion:
    """What one tool says of one measurement."""

    rate: float
    cpu_us: float
    mean_us: float
    wakeups: float
    """Times that the server went to sleep, per message."""
    segments: float
    """TCP segments received on this machine, both sides together, per message."""
    tool: float
    """Share of a core that the tool used; Tsung's with its start."""


def plan(port: int, messages: int, think: float = 0.0) -> str:
    """Tsung's configuration: so many messages from each client, with a mean pause of ``think`` seconds."""
    pause = f'<thinktime value="{think}" random="true"/>' if think else ""
    return PLAN.format(dtd=DTD, port=port, users=USERS, messages=messages, think=pause, message="m" * 32)


def requests(log: str) -> tuple[int, float, list[int]]:
    """From Tsung's log: all requests, their mean in milliseconds, and the requests of each full 10 seconds.

    A line is ``stats: request COUNT MEAN STDDEV MAX MIN MEAN_BEFORE COUNT_BEFORE``; the first three are of
    the last 10 seconds, the last two of all the time before them. Raises ValueError: there is none, or
    replies that did not match.
    """
    lines = [line.split()[2:] for line in log.splitlines() if line.startswith("stats: request ")]
    if not lines:
        raise ValueError("Tsung's log has no requests")
    if any(line.startswith("stats: nomatch ") for line in log.splitlines()):
        raise ValueError("some replies were not what Tsung expected")
    counts = [int(fields[0]) for fields in lines]
    mean = sum(int(f[0]) * float(f[1]) for f in lines) / max(1, sum(counts))
    return sum(counts), mean, counts[1:-1]


def with_tsung(server: str, seconds: float, messages: int, think: float = 0.0) -> Opinion:
    """Measure with Tsung; it ends when each client has sent its messages."""
    server_cores, generator_cores = cores()
    with tempfile.TemporaryDirectory() as directory, ServerProcess(find(server), server_cores) as process:
        file = Path(directory) / "plan.xml"
        file.write_text(plan(process.port, messages, think))
        before, segments = read_processes(process.pids), received_segments()
        began = time.monotonic()
        children = children_cpu()
        with pinned(generator_cores):
            command = ["tsung", "-f", str(file), "-l", f"{directory}/log", "start"]
            subprocess.run(command, check=True, capture_output=True, timeout=seconds * 10 + 120)
        took = time.monotonic() - began
        tool = (children_cpu() - children) / took
        used = read_processes(process.pids).since(before)
        segments = received_segments() - segments
        log = next(Path(directory).glob("log/*/tsung.log")).read_text()
    total, mean, full = requests(log)
    rate = sum(full) / (10 * len(full)) if full else total / took
    return Opinion(
        rate,
        used["seconds"] / total * 1e6,
        mean * 1000,
        used["voluntary_switches"] / total,
        segments / total,
        tool,
    )


def with_ours(server: str, seconds: float, name: str = "latency", **options: Any) -> Opinion:
    """Measure with this project's generator."""
    server_cores, generator_cores = cores()
    bench = Bench(server_cores, generator_cores, lambda text: None)
    with (
        ServerProcess(find(server), server_cores) as process,
        Load(bench, process, USERS, size=32, **options) as load,
    ):
        load.grow()
        load.measure(0.5, 0.1)  # warm-up
        segments = received_segments()
        window = load.measure(0, seconds)
        segments = received_segments() - segments
    return Opinion(
        window.messages / window.seconds,
        window.server_cpu / window.messages * 1e6,
        mean_us(window, name),
        window.cpu["voluntary_switches"] / window.messages,
        segments / window.messages,
        window.cpu["generator"],
    )


def children_cpu() -> float:
    """CPU of this process's children that have ended, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def received_segments() -> int:
    """TCP segments that this machine has received since it started."""
    names, values = (
        line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Tcp:")
    )
    return int(values[names.index("InSegs")])


def mean_us(window: Window, name: str) -> float:
    """Mean of a histogram in microseconds."""
    counts = window.histograms[name]
    return sum(value * number for value, number in counts) / sum(number for _, number in counts)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--server", default="chat_gevent")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of our measurements")
    parser.add_argument("--messages", type=int, default=3000, help="messages of each of Tsung's clients")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; returns the exit status."""
    if not shutil.which("tsung"):
        raise ExperimentFailed("tsung is not installed")
    raise_file_limit()
    server, seconds = arguments.server, arguments.seconds
    theirs = with_tsung(server, seconds, arguments.messages)
    calm = with_tsung(server, seconds, int(20 / THINK), THINK)
    row: Callable[..., None] = lambda *cells: print("| " + " | ".join(cells) + " |")  # noqa: E731
    row(
        "measurement",
        "tool",
        "messages a second",
        "server CPU",
        "wake-ups",
        "segments",
        "tool busy",
        "mean latency",
    )
    row("---", "---", *["---:"] * 6)

    def show(title: str, tool: str, opinion: Opinion) -> None:
        per_message = [
            f"{opinion.cpu_us:.1f} µs",
            f"{opinion.wakeups:.2f}",
            f"{opinion.segments:.1f}",
            f"{opinion.tool:.0%}",
        ]
        row(title, tool, f"{opinion.rate:,.0f}", *per_message, f"{opinion.mean_us:,.0f} µs")

    show("closed loop", "Tsung", theirs)
    show("closed loop", "this generator", with_ours(server, seconds))
    paced = {"mode": "paced", "poisson": 1, "name": "service"}
    show("same rate", "this generator", with_ours(server, seconds, rate=theirs.rate, **paced))  # type: ignore[arg-type]
    show("latency", "Tsung", calm)
    show("latency", "this generator", with_ours(server, seconds, rate=USERS / THINK, **paced))  # type: ignore[arg-type]
    return 0
