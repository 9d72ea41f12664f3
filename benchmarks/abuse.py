"""What clients that mean harm cost those that don't: ``python -m benchmarks.abuse``.

Well-behaved clients send a line each on a schedule, and their latency is taken from the time that a line was
due. They run alone first, and then beside two kinds of abuse:

* **slow-loris**: clients that send one byte every few seconds and never a whole line;
* **never-readers**: clients that send as much as they can and read nothing. When the server closes one
  (``write_timeout``), it comes back.

Alone and abused take turns on one server, so that drift of the machine hits both. The p99 is that of each
second (2,000 lines with the defaults), and of those the median over the seconds: on a shared machine a burst
of somebody else's work spoils some seconds, and would be all that a p99 over everything shows. That one is
reported beside it, as "pooled". So is the server's memory over time, with the kernel's for TCP buffers.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import os
import resource
import select
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LINE = b"x" * 31 + b"\n"
CONFIRMED = b"Received: " + LINE

Address = tuple[str, int]
Sample = tuple[float, float]
"""When a line was due, in seconds since the start, and its latency in seconds."""


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


def measure(clients: list[socket.socket], seconds: float, rate: float) -> list[Sample]:
    """Have each client send ``rate`` lines a second for ``seconds``; returns a sample for each line."""
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
                latencies.append((due - start, now - due))
                waiting -= 1
    return latencies


def quantile(values: list[float], q: float) -> float:
    """The ``q`` quantile of ``values``."""
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def figures_of(samples: list[Sample]) -> dict[str, float]:
    """Milliseconds: the median second's p99, the p99 of all, and the median."""
    seconds: dict[int, list[float]] = {}
    for due, latency in samples:
        seconds.setdefault(int(due), []).append(latency * 1e3)
    everything = [latency * 1e3 for _, latency in samples]
    return {
        "p99": statistics.median(quantile(each, 0.99) for each in seconds.values()),
        "p99_pooled": quantile(everything, 0.99),
        "p50": quantile(everything, 0.5),
    }


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
    sent, came_back, tried, dribbled = 0, 0, 0, 0
    load = b"y" * 63 + b"\n"
    began = now = time.monotonic()
    asked = select.poll()
    asked.register(sys.stdin, select.POLLIN)
    # Evenly, a client at a time: thousands of clients of their own would not send in step.
    due_dribbles = due_tries = 0.0
    while not asked.poll(1):
        before, now = now, time.monotonic()
        due_dribbles += (now - before) * len(slow) / interval
        due_tries += (now - before) * len(stuck) * (20 if now - began < 4 else 2)
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
        "abused_seconds": time.monotonic() - began,
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

    def __exit__(self, *error: object) -> None:
        out, _ = self.process.communicate(b"\n", timeout=60)
        self.figures = json.loads(out) if out else {}


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all blocks; returns the figures."""
    command = [
        str(Path(sys.executable).with_name("chat-gevent")),
        "serve",
        "--port",
        "0",
        "--framing",
        "line",
    ]
    cores = sorted(os.sched_getaffinity(0))
    server = subprocess.Popen(
        [*command, *arguments.option], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    clients: list[socket.socket] = []
    try:
        assert server.stdout is not None
        host, _, port = server.stdout.readline().decode().strip().removeprefix("ready tcp://").rpartition(":")
        address = (host, int(port))
        if len(cores) > 1:
            os.sched_setaffinity(server.pid, cores[:1])
            os.sched_setaffinity(0, cores[1:])  # this process, and the abusing one that it starts
        clients = [connect(address, number) for number in range(arguments.clients)]
        measure(clients, 1, arguments.rate)  # warm
        blocks = []
        for number in range(arguments.blocks):
            alone = measure(clients, arguments.seconds, arguments.rate)
            before = memory(server.pid)
            with Abuse(address, arguments) as abusing:
                time.sleep(arguments.settle)  # until the never-readers are stuck
                settled = memory(server.pid)
                abused = measure(clients, arguments.seconds, arguments.rate)
                after = memory(server.pid)
            block = {
                "alone_ms": figures_of(alone),
                "abused_ms": figures_of(abused),
                "samples": len(alone) + len(abused),
                "memory_before": before,
                "memory_settled": settled,
                "memory_after": after,
                **abusing.figures,
            }
            blocks.append(block)
            show(number + 1, block)
            time.sleep(1)  # the server lets go of those that left
        ratios = [each["abused_ms"]["p99"] / each["alone_ms"]["p99"] for each in blocks]
        return {"p99_ratio_median": statistics.median(ratios), "p99_ratios": ratios, "blocks": blocks}
    finally:
        for each in clients:
            each.close()
        server.terminate()
        try:
            server.wait(40)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def show(number: int, block: dict[str, Any]) -> None:
    """Tell a block in two lines."""
    alone, abused = block["alone_ms"], block["abused_ms"]
    print(
        f"block {number}: p99 alone {alone['p99']:.3f} ms, abused {abused['p99']:.3f} ms, ratio "
        f"{abused['p99'] / alone['p99']:.2f}; pooled {alone['p99_pooled']:.3f} and {abused['p99_pooled']:.3f}"
        f"; p50 {alone['p50']:.3f} and {abused['p50']:.3f}"
    )
    parts = [
        " > ".join(f"{block[f'memory_{when}'][name]:.1f}" for when in ("before", "settled", "after"))
        + f" {name}"
        for name in ("server", "tcp_buffers")
    ]
    print(
        f"         MiB before > settled > after: {', '.join(parts)}; never-readers sent "
        f"{block['bytes_of_never_readers'] / 2**20:.0f} MiB, {block['came_back']} were closed and came back; "
        f"slow-loris {block['bytes_of_slow_loris'] / block['abused_seconds']:.0f} bytes/s",
        flush=True,
    )


def main() -> int:
    """Run the command; returns its exit status: 1 where the ratio is above ``--limit``."""
    parser = argparse.ArgumentParser(description="What abusive clients cost the well-behaved ones.")
    parser.add_argument(
        "--clients", type=int, default=200, help="well-behaved clients (default: %(default)s)"
    )
    parser.add_argument("--rate", type=float, default=10, help="lines a second each (default: %(default)s)")
    parser.add_argument("--loris", type=int, default=5000, help="slow-loris clients (default: %(default)s)")
    parser.add_argument(
        "--interval", type=float, default=5, help="seconds for each byte (default: %(default)s)"
    )
    parser.add_argument("--never-readers", type=int, default=500, help="(default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=15, help="of each measurement (default: %(default)s)"
    )
    parser.add_argument("--settle", type=float, default=8, help="seconds before it (default: %(default)s)")
    parser.add_argument("--blocks", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--limit", type=float, default=1.5, help="highest ratio (default: %(default)s)")
    parser.add_argument("--output", help="file for the figures, JSON")
    parser.add_argument("--option", action="append", default=[], help="of chat-gevent serve; may be repeated")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if arguments.child:
        host, _, port = arguments.child.rpartition(":")
        abuse((host, int(port)), arguments.loris, arguments.never_readers, arguments.interval)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and end the server on the way
    figures = run(arguments)
    ratio = figures["p99_ratio_median"]
    if arguments.output:
        Path(arguments.output).write_text(json.dumps(figures, indent=1))
    print(f"p99 with abuse is {ratio:.2f} of that without (median of {len(figures['p99_ratios'])} blocks)")
    return 0 if ratio <= arguments.limit else 1


if __name__ == "__main__":
    sys.exit(main())
