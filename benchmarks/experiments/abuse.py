"""What clients that mean harm cost those that don't.

Well-behaved clients send a line each on a schedule, and their latency is taken from the time that a line was
due. Two servers run on one core, and each has as many of them. One has nobody else; the other has two
kinds of abuse:

* **slow-loris**: clients that send one byte every few seconds and never a whole line;
* **never-readers**: clients that send as much as they can and read nothing. When the server closes one
  (``write_timeout``), it comes back.

The two are measured in turns, a second each, and the abusing process is stopped while the quiet server has
its turn. On a shared machine the p99 moves tenfold within a minute, whatever the server does: only turns
that short see the same machine. What is reported is the ratio of two neighbouring turns' p99 (2,000 lines
each with the defaults): Hodges and Lehmann's estimate over all pairs, with its interval. The p99 over all
lines stands beside it as "pooled", and so does the abused server's memory over time, with the kernel's for
TCP buffers.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import select
import shlex
import signal
import socket
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.experiments import ExperimentFailed
from benchmarks.experiments.programs.abusive_clients import Address, connect
from benchmarks.judge.statistics import paired
from benchmarks.measure.launch import environment, python
from benchmarks.measure.servers import find
from benchmarks.measure.servers.process import ServerProcess
from benchmarks.reports.histograms import quantile_of
from chat_gevent.files import raise_file_limit

LINE = b"x" * 31 + b"\n"
CONFIRMED = b"Received: " + LINE


def measure(clients: list[socket.socket], seconds: float, rate: float) -> list[float]:
    """Have each client send ``rate`` lines a second for ``seconds``; returns each line's latency in ms."""
    ready = select.epoll()
    due_since: dict[int, list[float]] = {}
    by_fd = {}
    for each in clients:
        ready.register(each, select.EPOLLIN)
        by_fd[each.fileno()] = each
        due_since[each.fileno()] = []
    start = time.perf_counter() + 0.1
    schedule = [(start + number / len(clients) / rate, each.fileno()) for number, each in enumerate(clients)]
    heapq.heapify(schedule)
    end = start + seconds
    latencies = []
    waiting = 0
    while schedule or waiting:
        now = time.perf_counter()
        while schedule and schedule[0][0] <= now:
            due, fd = heapq.heappop(schedule)
            by_fd[fd].send(LINE)
            due_since[fd].append(due)
            waiting += 1
            if due + 1 / rate < end:
                heapq.heappush(schedule, (due + 1 / rate, fd))
        pause = schedule[0][0] - time.perf_counter() if schedule else 10.0
        # epoll's clock has milliseconds: the last one is spent looking, or every line would be sent late.
        events = ready.poll(max(0.0, pause - 0.001))
        if not events and not schedule:
            raise ExperimentFailed(f"{waiting} replies are missing after 10 s")
        for fd, _ in events:
            data = by_fd[fd].recv(65536)
            if len(data) % len(CONFIRMED) or not data:
                raise ExperimentFailed(f"a well-behaved client got {data[:80]!r}")
            now = time.perf_counter()
            for _ in range(len(data) // len(CONFIRMED)):
                due = due_since[fd].pop(0)
                latencies.append((now - due) * 1e3)
                waiting -= 1
    return latencies


def memory(pid: int) -> dict[str, float]:
    """MiB: resident in the server, and in the kernel's TCP buffers of the whole machine."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    words = next(
        line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP")
    )
    buffers = int(words.split(" mem ")[1])
    page = os.sysconf("SC_PAGE_SIZE")
    return {"server": pages * page / 2**20, "tcp_buffers": buffers * page / 2**20}


class Abuse:
    """The abusing process, for the time of a ``with``."""

    def __init__(self, address: Address, arguments: argparse.Namespace) -> None:
        numbers = (arguments.loris, arguments.never_readers, arguments.interval)
        words = [address[0], *map(str, (address[1], *numbers))]
        self.process = subprocess.Popen(
            python("-m", "benchmarks.experiments.programs.abusive_clients", *words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        )
        self.figures: dict[str, Any] = {}

    def __enter__(self) -> Abuse:
        assert self.process.stdout is not None
        if self.process.stdout.readline() != b"abusing\n":
            raise ExperimentFailed("the abusing process ended")
        return self

    def stop(self) -> None:
        """Let it do nothing; its clients stay connected."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it abuse the server again."""
        self.process.send_signal(signal.SIGCONT)

    def __exit__(self, *error: object) -> None:
        self.go_on()
        out, _ = self.process.communicate(b"\n", timeout=60)
        self.figures = json.loads(out) if out else {}


def measure_in_turns(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure in turns; returns the figures."""
    server = find(shlex.join(["chat_gevent", *arguments.option]))
    cores = sorted(os.sched_getaffinity(0))
    clients: dict[str, list[socket.socket]] = {}
    latencies: dict[str, list[list[float]]] = {"alone": [], "abused": []}
    with ServerProcess(server, cores[:1]) as quiet, ServerProcess(server, cores[:1]) as victim:
        os.sched_setaffinity(0, cores[1:] or cores)  # this process, and the abusing one that it starts
        try:
            for name, each in (("alone", quiet), ("abused", victim)):
                address = (each.host, each.port)
                clients[name] = [connect(address, number) for number in range(arguments.clients)]
                measure(clients[name], 1, arguments.rate)  # warm
            memories = [memory(victim.pid)]
            with Abuse((victim.host, victim.port), arguments) as abusing:
                time.sleep(arguments.settle)  # until the never-readers are stuck
                memories.append(memory(victim.pid))
                for turn in range(arguments.turns):
                    for name in ("alone", "abused") if turn % 2 else ("abused", "alone"):
                        if name == "abused":
                            abusing.go_on()
                            time.sleep(0.2)  # it is at it again
                        else:
                            abusing.stop()
                        latencies[name].append(measure(clients[name], arguments.seconds, arguments.rate))
                    memories.append(memory(victim.pid))
                    show_turn(turn + 1, latencies, memories[-1])
        finally:
            for each_client in (client for some in clients.values() for client in some):
                each_client.close()
    figures: dict[str, Any] = {"memory_mib": memories}
    for name, turns in latencies.items():
        pooled = [latency for turn in turns for latency in turn]
        figures[name] = {
            "p99_ms": [quantile_of(turn, 0.99) for turn in turns],
            "p99_pooled_ms": quantile_of(pooled, 0.99),
            "p50_ms": quantile_of(pooled, 0.5),
        }
    figures["p99_ratio"] = ratio_of(figures["alone"]["p99_ms"], figures["abused"]["p99_ms"])
    return {**figures, **abusing.figures}


def ratio_of(alone: list[float], abused: list[float]) -> dict[str, float]:
    """The ratio over all pairs of turns: Hodges and Lehmann's estimate and its interval."""
    estimate = paired(alone, abused)
    return {"hodges_lehmann": estimate.ratio, "low": estimate.low, "high": estimate.high}


def show_turn(number: int, latencies: dict[str, list[list[float]]], used: dict[str, float]) -> None:
    """Tell a pair of turns in a line."""
    alone, abused = (quantile_of(latencies[name][-1], 0.99) for name in ("alone", "abused"))
    print(
        f"{number:4}: p99 alone {alone:7.3f} ms, abused {abused:7.3f} ms, ratio {abused / alone:6.2f}; "
        f"MiB of server {used['server']:5.1f}, TCP buffers {used['tcp_buffers']:5.1f}",
        flush=True,
    )


def show(figures: dict[str, Any]) -> None:
    """Tell the outcome."""
    alone, abused, ratio = figures["alone"], figures["abused"], figures["p99_ratio"]
    for title, key in (("p50", "p50_ms"), ("p99 pooled", "p99_pooled_ms")):
        print(f"{title}: alone {alone[key]:.3f} ms, abused {abused[key]:.3f} ms")
    medians = (statistics.median(each["p99_ms"]) for each in (alone, abused))
    print("p99 of a second, median: alone {:.3f} ms, abused {:.3f} ms".format(*medians))
    for name in ("server", "tcp_buffers"):
        before, settled, *turns = (each[name] for each in figures["memory_mib"])
        print(
            f"MiB of {name}: {before:.1f} without abuse, {settled:.1f} at the first turn, then "
            f"{min(turns):.1f} to {max(turns):.1f}, at last {turns[-1]:.1f}"
        )
    print(
        f"never-readers sent {figures['bytes_of_never_readers'] / 2**20:.0f} MiB, "
        f"{figures['came_back']} were closed and came back; "
        f"slow-loris {figures['bytes_of_slow_loris'] / figures['abused_seconds']:.0f} bytes/s"
    )
    print(
        f"p99 with abuse is {ratio['hodges_lehmann']:.2f} of that without "
        f"(Hodges-Lehmann estimate, 95% interval {ratio['low']:.2f} to {ratio['high']:.2f}, "
        f"{len(alone['p99_ms'])} pairs)"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add = parser.add_argument
    add("--clients", type=int, default=200, help="well-behaved clients (default: %(default)s)")
    add("--rate", type=float, default=10, help="lines a second each (default: %(default)s)")
    add("--loris", type=int, default=5000, help="slow-loris clients (default: %(default)s)")
    add("--interval", type=float, default=5, help="seconds for each byte (default: %(default)s)")
    add("--never-readers", type=int, default=500, help="(default: %(default)s)")
    add("--turns", type=int, default=40, help="of each server (default: %(default)s)")
    add("--seconds", type=float, default=1, help="of a turn (default: %(default)s)")
    add("--settle", type=float, default=8, help="seconds before the first (default: %(default)s)")
    add("--limit", type=float, default=1.5, help="highest ratio (default: %(default)s)")
    add("--output", help="file for the figures, JSON")
    add("--option", action="append", default=[], help="of chat-gevent serve; may be repeated")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; returns the exit status: 1 where the ratio is above ``--limit``."""
    raise_file_limit()
    figures = measure_in_turns(arguments)
    if arguments.output:
        Path(arguments.output).write_text(json.dumps(figures, indent=1))
    show(figures)
    return 0 if figures["p99_ratio"]["hodges_lehmann"] <= arguments.limit else 1
