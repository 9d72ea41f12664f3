"""What clients that mean harm cost those that don't: ``python -m benchmarks.abuse``.

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
import contextlib
import heapq
import json
import os
import select
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.reports.histograms import quantile_of
from benchmarks.servers import find
from benchmarks.servers.process import ServerProcess
from benchmarks.statistics import paired
from chat_gevent.files import raise_file_limit

LINE = b"x" * 31 + b"\n"
CONFIRMED = b"Received: " + LINE

Address = tuple[str, int]


def connect(address: Address, number: int, send_buffer: int = 0) -> socket.socket:
    """Connect from one of several loopback addresses: one alone has only 28,000 ports."""
    client = socket.socket()
    if send_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    client.bind((f"127.0.0.{2 + number % 50}", 0))
    client.connect(address)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.setblocking(False)
    return client


# -- the well-behaved --------------------------------------------------------------------------------


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
            raise SystemExit(f"{waiting} replies are missing after 10 s")
        for fd, _ in events:
            data = by_fd[fd].recv(65536)
            if len(data) % len(CONFIRMED) or not data:
                raise SystemExit(f"a well-behaved client got {data[:80]!r}")
            now = time.perf_counter()
            for _ in range(len(data) // len(CONFIRMED)):
                due = due_since[fd].pop(0)
                latencies.append((now - due) * 1e3)
                waiting -= 1
    return latencies


# -- the others ----------------------------------------------------------------------------------------


def abuse(address: Address, loris: int, readers: int, interval: float) -> None:
    """Abuse the server until there is standard input; says ``abusing`` once all are connected."""
    # It shares the server's core, and only what is left of it: who wakes there comes first at once. Beside
    # the well-behaved clients, who look without pause, it would get a time slice, and that would be measured.
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    slow = [connect(address, number) for number in range(loris)]
    # Small send buffers, so that the memory which is measured is the server's rather than theirs.
    stuck = [connect(address, number, 8192) for number in range(readers)]
    print("abusing", flush=True)
    sent, came_back, tried, dribbled, active = 0, 0, 0, 0, 0.0
    load = b"y" * 63 + b"\n"
    now = time.monotonic()
    asked = select.poll()
    asked.register(sys.stdin, select.POLLIN)
    # Evenly, a client at a time: thousands of clients of their own would not send in step.
    due_dribbles = due_tries = 0.0
    while not asked.poll(1):
        before, now = now, time.monotonic()
        before = max(before, now - 0.1)  # it was stopped: what was due meanwhile does not come as a burst
        active += now - before
        due_dribbles += (now - before) * len(slow) / interval
        due_tries += (now - before) * len(stuck) * (20 if active < 4 else 2)
        while dribbled < int(due_dribbles):
            slow[dribbled % len(slow)].send(b"z")
            dribbled += 1
        while tried < int(due_tries):
            number = tried % len(stuck)
            tried += 1
            try:
                sent += stuck[number].send(load * 1024)
            except BlockingIOError:
                pass
            except OSError:  # closed: it comes back
                stuck[number].close()
                came_back += 1
                with contextlib.suppress(OSError):
                    stuck[number] = connect(address, number, 8192)
    figures = {
        "abused_seconds": active,
        "bytes_of_slow_loris": dribbled,
        "bytes_of_never_readers": sent,
        "came_back": came_back,
    }
    print(json.dumps(figures), flush=True)


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
        options = ["--child", f"{address[0]}:{address[1]}", "--loris", str(arguments.loris)]
        options += ["--never-readers", str(arguments.never_readers), "--interval", str(arguments.interval)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.abuse", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.figures: dict[str, Any] = {}

    def __enter__(self) -> Abuse:
        assert self.process.stdout is not None
        if self.process.stdout.readline() != b"abusing\n":
            raise SystemExit("the abusing process ended")
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


def run(arguments: argparse.Namespace) -> dict[str, Any]:
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


def main() -> int:
    """Run the command; returns its exit status: 1 where the ratio is above ``--limit``."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.abuse", description="What abusive clients cost the well-behaved ones."
    )
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
    add("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    raise_file_limit()
    if arguments.child:
        host, _, port = arguments.child.rpartition(":")
        abuse((host, int(port)), arguments.loris, arguments.never_readers, arguments.interval)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and end the servers on the way
    figures = run(arguments)
    if arguments.output:
        Path(arguments.output).write_text(json.dumps(figures, indent=1))
    show(figures)
    return 0 if figures["p99_ratio"]["hodges_lehmann"] <= arguments.limit else 1


if __name__ == "__main__":
    sys.exit(main())
