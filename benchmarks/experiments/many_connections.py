"""How many connections one machine holds.

The server is the project's own, in as many processes as the limit of open files asks for (``gunicorn -k
chat_gevent.workers.ChatWorker --reuse-port``), in a network namespace that is made for this run. The
clients are one process on a TUN device in that namespace (``generator/many_connections.c``): they have no
sockets, so that the machine's memory is the server's to use. Each client connects, has a message confirmed,
byte for byte, and stays; then each has a second one confirmed. How many connections the server's side holds
is what the kernel counts (``/proc/net/sockstat``). Memory is the growth of the workers' anonymous PSS, of the
kernel's slabs and page tables, and of what is in use on the whole machine.

With ``--broadcasts N`` one of them then has N messages sent to all, as ``broadcasts.py`` in this folder says.

Needs root (for the namespace, the device, and ``fs.file-max``, which is set back at the end), ``ip`` and a C
compiler.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.experiments import broadcasts
from benchmarks.experiments.tun_network import (
    DEVICE,
    FILE_MAX,
    PORT,
    SERVER,
    ConnectionsFailed,
    Workers,
    network,
)
from benchmarks.measure.compiler import cc, compiled
from benchmarks.measure.generator import Generator
from benchmarks.measure.probe import anonymous_bytes, in_use, kernel_bytes, pss_bytes
from benchmarks.reports.environment import describe, revision
from benchmarks.show.wording import number
from chat_gevent.files import raise_file_limit

SOURCE: Final = Path(__file__).parents[1] / "measure" / "generator" / "many_connections.c"
CLIENTS: Final = "10.1.0.0"
CONFIRM: Final = "chat_gevent.confirm:confirm"
MOST_CONNECTIONS: Final = 100_000_000
"""Beyond what any machine holds; the clients' addresses would carry more."""
MOST_WAITING: Final = 100_000
"""What many_connections.c has room for."""
OTHER_FILES: Final = 100_000
"""Open files on the machine beside the clients' sockets."""
SPREAD: Final = 6
"""Standard deviations of the number of clients that a worker may get by chance, and has room for."""
FAILURES: Final = ("reset", "ended", "mismatch", "duplicates")
"""What must not happen to a client, as the clients' program names it; a duplicate is a mismatch as well."""


def workers_needed(connections: int, files: int) -> int:
    """How many workers carry ``connections``, spread over them by chance, at ``files`` open files each."""
    room = files - 200
    workers = max(1, connections // room)
    while (mean := connections / workers) + SPREAD * mean**0.5 > room:
        workers += 1
    return workers


def build(source: Path, target: Path) -> list[str]:
    """The compiler's command line."""
    return [cc() or "cc", "-O2", "-o", str(target), str(source)]


def hold(arguments: argparse.Namespace) -> dict[str, Any]:
    """Hold the connections; returns the figures. Raises ConnectionsFailed, GeneratorFailed, BuildFailed."""
    total = arguments.connections
    workers = arguments.workers or workers_needed(total, raise_file_limit())
    program = str(compiled(SOURCE, build))
    figures: dict[str, Any] = {
        "connections": total,
        "workers": workers,
        "keepalive_idle": arguments.keepalive,
    }
    variables = {"CHAT_GEVENT_KEEPALIVE_IDLE": str(arguments.keepalive)}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="many-connections-")))
        redis = stack.enter_context(broadcasts.RedisServer(folder)) if arguments.broadcasts else None
        if redis is not None:
            variables |= redis.variables
        prefix = stack.enter_context(network())
        FILE_MAX.write_text(str(max(total + OTHER_FILES, int(FILE_MAX.read_text()))))
        print(f"starting {workers} workers", flush=True)
        server = Workers(prefix, workers, broadcasts.SERVICE if redis else CONFIRM, variables, 60 + workers)
        try:
            client = [*prefix, program, DEVICE, SERVER, str(PORT), CLIENTS, str(arguments.window)]
            with Generator(client, {}) as clients:
                # As machines of their own would: what waits for them in the device the kernel sends again.
                os.setpriority(os.PRIO_PROCESS, clients.pid, -20)
                clients.expect("ready", 10)
                figures.update(measure(server, clients, total, arguments.steps))
                if redis is not None:
                    redis.wait_for(workers, 30)
                    figures["broadcasts"] = tell_all(server, clients, arguments.broadcasts, total)
                left = clients.ask("reset", "reset", 300)
                server.wait_until_left(60)
        finally:
            server.close()
        if redis is not None:
            figures["broadcasts"]["failures"] = {name: left[name] for name in FAILURES}
            figures["broadcasts"]["workers"] = broadcasts.workers_figures(folder)
    return figures


def tell_all(server: Workers, clients: Generator, count: int, total: int) -> dict[str, Any]:
    """Have ``count`` messages sent to all ``total`` clients, one after the other."""
    resent = server.resent()
    figures = broadcasts.measure(clients, count, total, server.cpu)
    return {**figures, "resent": server.resent() - resent, "held": server.connections()}


def measure(server: Workers, clients: Generator, total: int, steps: int) -> dict[str, Any]:
    """Open the connections in steps, and have each say something a second time."""
    before, user = pss_bytes(server.pids), anonymous_bytes(server.pids)
    kernel, used = sum(kernel_bytes().values()), in_use()
    began, cpu = time.monotonic(), server.cpu()
    opened: dict[str, Any] = {}
    for step in range(1, steps + 1):
        share = total * step // steps - total * (step - 1) // steps
        opened = clients.ask(f"open {share}", "opened", 600)
        check(opened, share)
        print(
            f"{server.connections():11,} connections after {time.monotonic() - began:6.1f} s, "
            f"{(in_use() - used) / 2**30:5.2f} GiB more in use",
            flush=True,
        )
    seconds, server_cpu = time.monotonic() - began, server.cpu() - cpu
    held = server.connections()
    after = {
        "server_bytes": anonymous_bytes(server.pids) - user,
        "kernel_bytes": sum(kernel_bytes().values()) - kernel,
        "machine_bytes": in_use() - used,
    }
    clients_bytes = pss_bytes([clients.pid])
    cpu = server.cpu()
    second = clients.ask("again", "done", 600)
    check(second, total)
    return {
        "held": held,
        "held_at_the_end": server.connections(),
        "open_seconds": seconds,
        "open_server_cpu_us": server_cpu / total * 1e6,
        "second_seconds": second["ns"] / 1e9,
        "second_server_cpu_us": (server.cpu() - cpu) / total * 1e6,
        "workers_bytes_before": before,
        "clients_bytes": clients_bytes,
        "resent": second["resent"],
        **after,
    }


def check(answer: dict[str, Any], confirmed: int) -> None:
    """Every client must have had its confirmation. Raises ConnectionsFailed."""
    failures = {name: answer[name] for name in FAILURES if answer[name]}
    if failures or answer["confirmed"] != confirmed:
        raise ConnectionsFailed(
            f"{answer['confirmed']:,} of {confirmed:,} were confirmed; failures: {failures}"
        )


def show(figures: dict[str, Any]) -> None:
    """Tell the outcome."""
    total = figures["connections"]

    def line(title: str, text: str) -> None:
        print(f"{title:28} {text}")

    def memory(key: str) -> str:
        return f"{figures[key] / 2**30:6.2f} GiB, {figures[key] / total:8,.0f} bytes a connection"

    print()
    line("connections", f"{figures['held']:,} in {figures['workers']} processes")
    for key, title in (("open", "opened and confirmed"), ("second", "confirmed again")):
        rate = total / figures[f"{key}_seconds"]
        cpu = figures[f"{key}_server_cpu_us"]
        line(title, f"in {figures[f'{key}_seconds']:.1f} s, {rate:,.0f}/s, server CPU {number(cpu)} µs each")
    line("server's memory, grown by", memory("server_bytes"))
    line("kernel's memory, grown by", memory("kernel_bytes"))
    line("whole machine, grown by", memory("machine_bytes"))
    line("clients' process", f"{figures['clients_bytes'] / 2**20:,.0f} MiB")
    line("workers before the clients", f"{figures['workers_bytes_before'] / 2**20:,.0f} MiB")
    line("segments sent again", f"{figures['resent']:,}")
    if "broadcasts" in figures:
        print()
        broadcasts.show(figures["broadcasts"], line)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add = parser.add_argument
    add("--connections", type=int, default=100_000, metavar="N", help="(default: %(default)s)")
    add("--workers", type=int, metavar="N", help="server processes (default: as many as needed)")
    add(
        "--window",
        type=int,
        default=2000,
        metavar="N",
        help="clients that wait at a time (default: %(default)s)",
    )
    add(
        "--keepalive",
        type=int,
        default=1800,
        metavar="SECONDS",
        help="the server's keepalive_idle (default: %(default)s): a million clients asked once a minute "
        "whether they live make 33,000 packets a second",
    )
    add(
        "--steps", type=int, default=10, metavar="N", help="a line is shown after each (default: %(default)s)"
    )
    add(
        "--broadcasts",
        type=int,
        default=0,
        metavar="N",
        help="then have N messages sent to all clients, over a Redis of the run's own (default: %(default)s)",
    )
    add("--output", metavar="FILE", help="file for the figures, JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; returns the exit status: 1 where not all were held, confirmed, and sent to."""
    if not 1 <= arguments.connections <= MOST_CONNECTIONS:
        arguments.parser.error(f"--connections: must be 1 to {MOST_CONNECTIONS:,}")
    if not 1 <= arguments.window <= MOST_WAITING:
        arguments.parser.error(f"--window: must be 1 to {MOST_WAITING:,}")
    if not 1 <= arguments.steps <= arguments.connections:
        arguments.parser.error("--steps: must be 1 to the number of connections")
    if arguments.broadcasts < 0:
        arguments.parser.error("--broadcasts: must be at least 0")
    figures = hold(arguments)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    figures = {"created": made, "revision": revision().commit, **figures, "environment": describe({})}
    if arguments.output:
        Path(arguments.output).write_text(json.dumps(figures, indent=1) + "\n")
    show(figures)
    if not figures["held"] == figures["held_at_the_end"] == arguments.connections:
        return 1
    if not arguments.broadcasts:
        return 0
    return 0 if broadcasts.complete(figures["broadcasts"], arguments.broadcasts, arguments.connections) else 1
