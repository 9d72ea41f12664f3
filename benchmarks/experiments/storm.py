"""All clients lose their server in one moment, and come back: how long that takes, and what it asks of it.

The clients connect on an open schedule (so many a second, whether or not those before are confirmed), each
has a message confirmed, and stays. Then the server ends, is started again once it has ended, as a service
manager does, and each client comes back and has a message confirmed. This is done in several ways:

* ``hint``: SIGTERM with a drain; each client is told when to come back (``; retry in N s``), spread over
  ``--spread`` seconds, and keeps to it;
* ``no-hint``: the same, but nobody is told; the clients spread by exponential back-off with full jitter;
* ``kill``: kill -9, which tells nobody anything; back-off as well.

Printed for each: seconds that connecting all took on the open schedule, from the signal to the end of the
server, from there until it was there again, from there until all clients were back, and of all that from
the signal on; how long a client was away; the most CPU of the server in a tenth of a second, in cores, and
its CPU seconds; clients that gave up, of which there must be none; tries that failed, by reason. With
``hint`` all must be back within the spread and 1.3 times what connecting took.

The clients are spread over processes: in most places one may open 20,000 files. Where there are two cores
and one worker, server and clients have one each.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from benchmarks.experiments import ExperimentFailed
from benchmarks.measure.generator import Generator
from benchmarks.measure.launch import environment, pinned, python
from benchmarks.measure.probe import cpu_ns, descendants
from benchmarks.measure.servers.process import free_port
from benchmarks.reports.environment import describe, revision
from benchmarks.reports.histograms import quantile_of

WAYS: Final = ("hint", "no-hint", "kill")
CLIENTS_PER_PROCESS: Final = 19_000
"""As :data:`benchmarks.measure.generator.CONNECTIONS_PER_PROCESS`."""
MOST_CLIENTS: Final = 500_000
"""Beyond that the last number of the clients' source addresses (127.0.0.2 and on) would be above 254."""
SAMPLE_SECONDS: Final = 0.1
ALLOWED: Final = 1.3
"""Of the time that connecting as many on an open schedule takes, beyond the spread."""
COMMAND: Final = (
    "serve --framing line --host {host} --port {port} --retry-spread {spread} --drain-timeout {drain}"
)
HOST: Final = "127.0.0.1"


def accepts(port: int) -> bool:
    """Whether somebody accepts there."""
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


def server_command(arguments: argparse.Namespace, port: int, spread: float) -> list[str]:
    """The server's command line."""
    words = {"host": HOST, "port": port, "spread": f"{spread:g}", "drain": f"{arguments.drain:g}"}
    if arguments.command_line:
        return [word.format(**words) for word in shlex.split(arguments.command_line)]
    command = python("-m", "chat_gevent", *COMMAND.format(**words).split())
    return command + (["--workers", str(arguments.workers)] if arguments.workers > 1 else [])


class Server:
    """The server, which accepts once this is made. Raises ExperimentFailed: it does not within 30 s."""

    def __init__(self, command: list[str], port: int, cores: list[int] | None) -> None:
        self._port = port
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        with pinned(cores):
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,
                env=environment(),
            )
        deadline = time.monotonic() + 30
        while not accepts(port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise ExperimentFailed(f"the server does not accept: {self.said}")
            time.sleep(0.005)

    def cpu(self) -> float:
        """CPU seconds of all its processes so far."""
        used = 0
        for pid in descendants(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                used += cpu_ns(pid)
        return used / 1e9

    def end(self, kill: bool, seconds: float) -> None:
        """End it: all its processes at once, or by a drain that may take so long."""
        if kill:
            os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise ExperimentFailed(f"the server did not end within {seconds:g} s") from None
        while accepts(self._port):  # of several processes some may listen a moment longer
            time.sleep(0.005)

    def close(self) -> None:
        """End what is left of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        self.said = lines[-1] if lines else "nothing on its standard error"
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if not self._errors.closed:
            self.close()


class Load:
    """The CPU that a server uses, sampled in a thread while a ``with`` lasts; ``peak`` is in cores."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self.peak = self.seconds = 0.0

    def _sample(self) -> None:
        at = time.monotonic()
        began = before = self._server.cpu()
        while not self._ended.wait(SAMPLE_SECONDS):
            now, cpu = time.monotonic(), self._server.cpu()
            # To the end of this reading from the begin of the last: no pause in between makes it too much.
            self.peak = max(self.peak, (cpu - before) / (time.monotonic() - at))
            at, before = now, cpu
        self.seconds = self._server.cpu() - began

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()


def shares(total: int, most: int = CLIENTS_PER_PROCESS) -> list[int]:
    """How many clients each process has, of which one has ``most`` at most."""
    processes = -(-total // most)
    return [total * (each + 1) // processes - total * each // processes for each in range(processes)]


def storm(arguments: argparse.Namespace, way: str) -> dict[str, Any]:
    """One storm; returns its figures. Raises ExperimentFailed, GeneratorFailed."""
    cores = sorted(os.sched_getaffinity(0))
    apart = len(cores) > 1 and arguments.workers == 1
    server_cores, client_cores = (cores[:1], cores[1:]) if apart else (None, None)
    spread = arguments.spread if way == "hint" else 0.0
    port = free_port()
    command = server_command(arguments, port, spread)
    policy = {"first": arguments.first, "longest": arguments.longest, "within": arguments.within}
    program = python("-m", "benchmarks.experiments.programs.storm_clients")
    with contextlib.ExitStack() as stack:
        processes: list[Generator] = []
        with Server(command, port, server_cores) as server:
            if arguments.workers > 1:
                time.sleep(1)  # the first one accepts: the others will in a moment
            number = 0
            for share in shares(arguments.clients, arguments.per_process):
                options = {"host": HOST, "port": port, "clients": share, "number": number, **policy}
                processes.append(stack.enter_context(Generator(program, options, client_cores)))
                number += share
            for each in processes:
                each.send(f"connect {arguments.rate / len(processes)}")
            connected = [each.expect("connected", 300) for each in processes]
            if refused := [each["refusals"] for each in connected if each["refusals"]]:
                raise ExperimentFailed(f"clients were refused before the storm: {refused}")
            for each in processes:
                each.ask("storm", "waiting")
            signalled = time.monotonic()
            server.end(way == "kill", arguments.drain + 30)
            ended = time.monotonic()
        with Server(command, port, server_cores) as server, Load(server) as load:
            ready = time.monotonic()
            back = [each.expect("back", arguments.within + 60) for each in processes]
    return {
        "way": way,
        "spread_seconds": spread,
        "connect_seconds": max(each["last"] for each in connected) - min(each["began"] for each in connected),
        "ending_seconds": ended - signalled,
        "starting_seconds": ready - ended,
        "back_seconds": max(each["last"] for each in back) - ready,
        "all_seconds": max(each["last"] for each in back) - signalled,
        "away": quantiles([value for each in back for value in each["away"]]),
        "hints": quantiles([value for each in back for value in each["hints"]]),
        "peak_cores": load.peak,
        "cpu_seconds": load.seconds,
        "refusals": added(each["refusals"] for each in back),
        "given_up": sum(each["given_up"] for each in back),
    }


def quantiles(values: list[float]) -> dict[str, float] | None:
    """Number, median, p99 and the largest; None of nothing."""
    if not values:
        return None
    middle, high = (quantile_of(values, each) for each in (0.5, 0.99))
    return {"count": len(values), "p50": middle, "p99": high, "max": max(values)}


def added(counts: Any) -> dict[str, int]:
    """The sums of several counts by name."""
    sums: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            sums[name] = sums.get(name, 0) + count
    return sums


def allowed(figures: dict[str, Any]) -> float:
    """Seconds within which all must be back where they were told when."""
    seconds: float = figures["spread_seconds"] + ALLOWED * figures["connect_seconds"]
    return seconds


def passes(figures: dict[str, Any]) -> bool:
    """Whether nobody was refused for good, and all that were told when came back in time."""
    if figures["given_up"]:
        return False
    return figures["way"] != "hint" or bool(figures["back_seconds"] <= allowed(figures))


def show_way(figures: dict[str, Any]) -> None:
    """Tell a storm in a line."""
    away = figures["away"]
    refused = ", ".join(f"{name} {count:,}" for name, count in sorted(figures["refusals"].items())) or "none"
    print(
        f"{figures['way']:8} {figures['connect_seconds']:8.2f} {figures['ending_seconds']:8.2f} "
        f"{figures['starting_seconds']:8.2f} {figures['back_seconds']:8.2f} {figures['all_seconds']:8.2f} "
        f"{away['p50'] if away else 0:8.2f} {away['p99'] if away else 0:8.2f} "
        f"{figures['peak_cores']:6.2f} {figures['cpu_seconds']:6.2f} {figures['given_up']:8,} {refused}",
        flush=True,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add = parser.add_argument
    add("--clients", type=int, default=18_000, metavar="N", help="(default: %(default)s)")
    add("--workers", type=int, default=1, metavar="N", help="processes of the server (default: %(default)s)")
    add(
        "--per-process",
        type=int,
        default=CLIENTS_PER_PROCESS,
        metavar="N",
        help="most clients of one process (default: %(default)s)",
    )
    add("--rate", type=float, default=5000, metavar="N", help="clients a second at first (%(default)s)")
    add("--spread", type=float, default=5.0, metavar="SECONDS", help="retry_spread (default: %(default)s)")
    add("--drain", type=float, default=2.0, metavar="SECONDS", help="drain_timeout (default: %(default)s)")
    add("--first", type=float, default=1.0, metavar="SECONDS", help="of the back-off (default: %(default)s)")
    add("--longest", type=float, default=30.0, metavar="SECONDS", help="likewise (default: %(default)s)")
    add("--within", type=float, default=120.0, metavar="SECONDS", help="likewise (default: %(default)s)")
    add("--ways", nargs="+", choices=WAYS, default=WAYS, help="(default: all)")
    add(
        "--command",
        dest="command_line",
        metavar="LINE",
        help=f"of the server, with {{host}}, {{port}}, {{spread}}, {{drain}}; it must have --workers "
        f"processes (default: chat-gevent {COMMAND})",
    )
    add("--output", metavar="FILE", help="file for the figures, JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; returns the exit status: 1 where a client gave up, or they came back too late."""
    if not 1 <= arguments.clients <= MOST_CLIENTS:
        arguments.parser.error(f"--clients: must be 1 to {MOST_CLIENTS:,}")
    for name in ("workers", "per_process", "rate", "first", "longest", "within"):
        if not getattr(arguments, name) > 0:
            arguments.parser.error(f"--{name.replace('_', '-')}: must be above 0")
    print(f"{arguments.clients:,} clients, {arguments.workers} worker(s); seconds, and cores for the peak")
    heads = "connect   ending starting     back      all away p50 away p99"
    print(f"way       {heads}   peak    CPU  gave up failed")
    found = []
    for way in arguments.ways:
        found.append(storm(arguments, way))
        show_way(found[-1])
    for each in found:
        if each["way"] == "hint":
            took = each["back_seconds"]
            print(f"with the hint all were back in {took:.2f} s; allowed are {allowed(each):.2f} s")
    if arguments.output:
        report = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "revision": revision().commit,
            **{name: getattr(arguments, name) for name in ("clients", "workers", "rate", "drain")},
            **{name: getattr(arguments, name) for name in ("first", "longest", "within")},
            "command": arguments.command_line or f"chat-gevent {COMMAND}",
            "ways": found,
            "environment": describe({}),
        }
        Path(arguments.output).write_text(json.dumps(report, indent=1) + "\n")
    return 0 if all(map(passes, found)) else 1
