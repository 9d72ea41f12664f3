"""What a scenario is, and the measurement that most of them share.

A scenario asks one question of a server. Its ``trial`` starts from a fresh server process and
returns one :class:`~benchmarks.reports.report.Trial`; the runner calls it for every server in every block.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from benchmarks.measure.generator import ADDRESS_CONNECTIONS, CONNECTIONS_PER_PROCESS, Generator, program
from benchmarks.measure.probe import read_machine, read_processes, softirq_threads
from benchmarks.measure.servers import Server
from benchmarks.measure.servers.process import ServerProcess
from benchmarks.reports.histograms import encode_counts
from benchmarks.reports.report import Fired, HistogramKind, Metric, SeriesKind, Trial

CPU_PER_MESSAGE = Metric(unit="µs", better="lower", title="server CPU per confirmation", primary=True)
USER_PER_MESSAGE = Metric(unit="µs", better="lower", title="server CPU per confirmation, user")
SYSTEM_PER_MESSAGE = Metric(unit="µs", better="lower", title="server CPU per confirmation, system")
MESSAGES_PER_SECOND = Metric(
    unit="1/s", better="higher", title="confirmations a second", primary=True, when_saturated=True
)
MACHINE_PER_MESSAGE = Metric(unit="µs", better="lower", title="CPU of the whole machine per confirmation")
CLOSED_LATENCY = HistogramKind(title="latency in a closed loop (from sending, which waits for the server)")
CONFIRMED_SERIES = SeriesKind(title="confirmations a second", unit="1/s")

SATURATED = 0.95
"""Share of its cores from which a server counts as saturated."""
OTHER_LOAD = 0.10
"""Share of a core that something else may use."""
STEAL = 0.02
"""Share of a core's time that the host may take away."""
GENERATOR_BUSY = 0.90
"""Share of its cores from which the load generator may have been the bottleneck."""


@dataclass
class Bench:
    """Where trials run: the cores, and what to tell about progress and caveats."""

    server_cores: tuple[int, ...] | None
    generator_cores: tuple[int, ...] | None
    progress: Callable[[str], None]
    warnings: list[Fired] = field(default_factory=list)

    def warn(self, check: str, message: str, server: str | None = None, block: int | None = None) -> None:
        """Note that a check fired."""
        self.warnings.append(Fired(check=check, message=message, server=server, block=block))


@dataclass
class Window:
    """What one stretch of load showed. ``cpu`` has shares of one core, whoever may use several.

    ``server_cores`` and ``generator_cores`` are how many each could have used up.
    """

    seconds: float
    messages: int
    server_cpu: float
    generator_cpu: float
    cpu: dict[str, float]
    errors: dict[str, int]
    histograms: dict[str, list[tuple[int, int]]]
    series: dict[str, list[tuple[float, float]]]
    sessions: int = 0
    unsent: int = 0
    server_cores: int = 1
    generator_cores: int = 1

    @property
    def server_share(self) -> float:
        """How much the server used of the cores that it could use."""
        return self.cpu["server"] / self.server_cores

    @property
    def generator_share(self) -> float:
        """How much the load generator used of the cores that it could use."""
        return self.cpu["generator"] / self.generator_cores

    @property
    def saturated(self) -> bool:
        """Whether the server used its cores up."""
        return self.server_share >= SATURATED

    def values(self) -> dict[str, float]:
        """The metrics that come from CPU and counts; empty where nothing was confirmed."""
        if not self.messages:
            return {}
        return {
            "server_cpu_us_per_message": self.server_cpu / self.messages * 1e6,
            "server_user_us_per_message": self.cpu["server_user"] * self.seconds / self.messages * 1e6,
            "server_system_us_per_message": self.cpu["server_system"] * self.seconds / self.messages * 1e6,
            "machine_cpu_us_per_message": self.cpu["machine"] * self.seconds / self.messages * 1e6,
            "messages_per_second": self.messages / self.seconds,
        }


LOAD_METRICS = {
    "server_cpu_us_per_message": CPU_PER_MESSAGE,
    "server_user_us_per_message": USER_PER_MESSAGE,
    "server_system_us_per_message": SYSTEM_PER_MESSAGE,
    "machine_cpu_us_per_message": MACHINE_PER_MESSAGE,
    "messages_per_second": MESSAGES_PER_SECOND,
}


class Load:
    """The generators of one trial, as many processes as the connections need."""

    def __init__(
        self,
        bench: Bench,
        process: ServerProcess,
        connections: int,
        command: list[str] | None = None,
        **options: Any,
    ) -> None:
        processes = -(-connections // CONNECTIONS_PER_PROCESS)
        self.shares = [connections // processes + (i < connections % processes) for i in range(processes)]
        self.process = process
        self.server_cores = usable_cores(bench.server_cores)
        self.generator_cores = min(usable_cores(bench.generator_cores), processes)
        sources = -(-connections // ADDRESS_CONNECTIONS)
        options = {"terminated": int(process.server.framing == "line"), "sources": sources, **options}
        options |= process.server.protocol
        self.generators = [
            Generator(
                command or program(bool(options.get("tls"))),
                {"host": process.host, "port": process.port, "id_base": i << 20, **options},
                bench.generator_cores,
            )
            for i in range(processes)
        ]

    def ask(self, command: str, event: str, seconds: float = 120) -> list[dict[str, Any]]:
        """Give all of them a command; their answers."""
        for generator in self.generators:
            generator.send(command)
        return [generator.expect(event, seconds) for generator in self.generators]

    def grow(self, shares: Iterable[int] | None = None) -> list[dict[str, Any]]:
        """Open more connections (all, unless given), each confirmed once."""
        for generator, share in zip(self.generators, shares or self.shares, strict=True):
            generator.send(f"grow {share}")
        return [generator.expect("grown", 100) for generator in self.generators]

    def measure(self, warmup: float, seconds: float) -> Window:
        """Load the server; what counts begins after ``warmup``."""
        self.ask("start", "started")
        time.sleep(warmup)
        return self.window(lambda: time.sleep(seconds))

    def window(self, work: Callable[[], object]) -> Window:
        """Measure while ``work`` runs; the load, if one is on, ends with it."""
        pids = " ".join(map(str, self.process.pids))
        marks = self.ask(f"mark {pids}", "marked")
        self.marked_ns: int = marks[0]["ns"]
        """When the last window began, by the machine's monotonic clock."""
        before, machine = read_processes(self.process.pids), read_machine()
        kernel = read_processes(list(softirq_threads()))
        work()
        for generator in self.generators:
            generator.send(f"stop {pids}")
        used = read_processes(self.process.pids).since(before)
        shares = read_machine().since(machine)
        kernel_seconds = read_processes(list(softirq_threads())).since(kernel)["seconds"]
        stops = [generator.expect("stopped", 120) for generator in self.generators]
        window = self._window(marks, stops, used, shares)
        window.cpu["ksoftirqd"] = kernel_seconds / window.seconds
        return window

    def _window(
        self,
        marks: list[dict[str, Any]],
        stops: list[dict[str, Any]],
        used: dict[str, float],
        shares: list[dict[str, float]],
    ) -> Window:
        seconds = stops[0]["ns"] / 1e9
        server = (stops[0]["server_cpu_ns"] - marks[0]["server_cpu_ns"]) / 1e9
        generator = sum(stop["user_us"] + stop["system_us"] for stop in stops) / 1e6
        split = server / used["seconds"] / seconds if used["seconds"] else 0.0
        errors: dict[str, int] = {}
        histograms: dict[str, dict[int, int]] = {"latency": {}, "service": {}}
        for stop in stops:
            for name, number in stop["errors"].items():
                errors[name] = errors.get(name, 0) + number
            for name, counts in histograms.items():
                for value, number in stop[f"{name}_us"]:
                    counts[value] = counts.get(value, 0) + number
        slots = [sum(tenths) for tenths in zip(*(stop["slots"] for stop in stops), strict=False)]
        series = [(round((i + 1) / 10, 1), number * 10.0) for i, number in enumerate(slots)]
        cpu = {
            "server": server / seconds,
            "server_user": used["user"] * split,
            "server_system": used["system"] * split,
            "generator": generator / seconds,
            "machine": sum(core["busy"] for core in shares),
            "steal": max(core["steal"] for core in shares),
            "softirq": sum(core["softirq"] for core in shares),
            "voluntary_switches": used["voluntary_switches"],
            "involuntary_switches": used["involuntary_switches"],
            "threads": used["threads"],
        }
        return Window(
            seconds=seconds,
            messages=sum(stop["confirmed_in_window"] for stop in stops),
            server_cpu=server,
            generator_cpu=generator,
            cpu=cpu,
            errors=errors,
            histograms={name: sorted(counts.items()) for name, counts in histograms.items() if counts},
            series={"confirmed": series} if series else {},
            sessions=sum(stop["sessions"] for stop in stops),
            unsent=sum(stop["unsent"] for stop in stops),
            # A thread uses one core at a time, so a server with a single one cannot use up two.
            server_cores=min(self.server_cores, max(1, round(used["threads"]))),
            generator_cores=self.generator_cores,
        )

    def close(self) -> None:
        """End the generators."""
        for generator in self.generators:
            generator.close()

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def usable_cores(cores: tuple[int, ...] | None) -> int:
    """How many cores a process has that is pinned to ``cores``; all of this one's where it is not pinned."""
    return len(cores or os.sched_getaffinity(0))


class Scenario(ABC):
    """One question asked of a server."""

    name: ClassVar[str]
    question: ClassVar[str]
    """One sentence."""
    metrics: ClassVar[dict[str, Metric]] = LOAD_METRICS
    histograms: ClassVar[dict[str, HistogramKind]] = {}
    series: ClassVar[dict[str, SeriesKind]] = {"confirmed": CONFIRMED_SERIES}
    defaults: ClassVar[dict[str, Any]]
    """Parameters with their defaults; the command line offers the same names."""
    quick: ClassVar[dict[str, Any]] = {}
    """What ``--quick`` changes."""
    full: ClassVar[dict[str, Any]] = {}
    """What ``--full`` changes."""

    variant: ClassVar[str] = ""
    """What servers have to do here, where that is not to confirm: one of their variants."""

    def refuses(self, server: Server, parameters: dict[str, Any]) -> str | None:
        """Why this server cannot be asked; None where it can."""
        if self.variant and self.variant not in server.variants:
            return f"it has no variant for {self.variant}"
        return None

    def over_tls(self, parameters: dict[str, Any]) -> bool:
        """Whether its connections are encrypted."""
        return bool(parameters.get("tls"))

    def prepared(self, servers: list[Server]) -> list[Server]:
        """The servers as they are started here."""
        return [server.variant(self.variant) for server in servers] if self.variant else servers

    @abstractmethod
    def trial(self, bench: Bench, server: Server, parameters: dict[str, Any]) -> Trial:
        """Measure a fresh process of ``server`` once. The runner fills in block and order."""


def check_window(bench: Bench, server: str, window: Window, closed_loop: bool = True) -> None:
    """Fire the checks that a stretch of load can fail."""
    if not window.messages:
        bench.warn("nothing-confirmed", "not one message was confirmed", server)
    if window.generator_share >= GENERATOR_BUSY and (not closed_loop or not window.saturated):
        bench.warn(
            "generator-busy",
            f"the load generator used {_of(window.generator_share, window.generator_cores)}: "
            "messages a second are its limit, not the server's",
            server,
        )
    elif closed_loop and not window.saturated:
        bench.warn(
            "not-saturated",
            f"the server used {_of(window.server_share, window.server_cores)}: "
            "messages a second are not its limit",
            server,
        )
    if window.cpu["steal"] > STEAL:
        bench.warn("steal", f"the host took {window.cpu['steal']:.1%} of a core's time away", server)
    known = sum(window.cpu[who] for who in ("server", "generator", "ksoftirqd"))
    others = window.cpu["machine"] - known
    if others > OTHER_LOAD:
        bench.warn("other-load", f"something else used {others:.0%} of a core meanwhile", server)
    failed = sum(window.errors.values())
    if failed:
        classes = ", ".join(f"{number} {name}" for name, number in sorted(window.errors.items()))
        bench.warn("errors", f"{failed} failures: {classes}", server)


def _of(share: float, cores: int) -> str:
    return f"{share:.0%} of its {'core' if cores == 1 else f'{cores} cores'}"


def load_trial(server: Server, window: Window, histograms: dict[str, str] | None = None) -> Trial:
    """A trial from one stretch of load; ``histograms``, encoded, where they are not just the latency's."""
    if histograms is None:
        histograms = {"latency": encode_counts(dict(window.histograms.get("latency", ())))}
    return Trial(
        server=server.name,
        block=0,
        order=0,
        seconds=window.seconds,
        messages=window.messages,
        errors=window.errors,
        values=window.values(),
        cpu=window.cpu,
        saturated=window.saturated,
        series=window.series,
        histograms=histograms,
    )
