"""Runs a scenario over servers, in interleaved blocks, and keeps what it measured whatever happens.

Every block measures every server once, each in a fresh process. The order is random in one block
and reversed in the next, so that a drift of the machine hits all servers alike; with the parameter
``slices`` above 1 the servers of a block also take turns of a fraction of a second (but for those with a
thread per client, which need longer until they are steady). The report is saved
after every trial; Ctrl-C ends the run and leaves it marked incomplete.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import machine
from benchmarks.measure.compiler import BuildFailed
from benchmarks.measure.generator import GeneratorFailed, program
from benchmarks.measure.probe import read_machine
from benchmarks.measure.scenarios import interleaved
from benchmarks.measure.scenarios.base import OTHER_LOAD, Bench, Scenario
from benchmarks.measure.scenarios.confirm import Confirm
from benchmarks.measure.servers import Server
from benchmarks.measure.servers.process import ServerFailed
from benchmarks.reports import environment
from benchmarks.reports.report import Fired, Report, Trial, utc_now
from benchmarks.reports.report import Server as ServerEntry
from chat_gevent.files import raise_file_limit

TrialDone = Callable[[Report, Trial | None], None]


def harness() -> str:
    """A hash of the code that measures: the generator, the scenarios, the probe and this runner."""
    here = Path(__file__).parent
    patterns = ("probe.py", "runner.py", "machine.py", "generator/*.[ch]", "generator/*.py", "scenarios/*.py")
    return environment.source_hash(file for pattern in patterns for file in sorted(here.glob(pattern)))


def cores() -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """The cores for server and generator, of those that this process may use; None if there is one only."""
    return machine.choose(os.sched_getaffinity(0))


def orders(servers: list[Server], blocks: int, seed: int) -> list[list[Server]]:
    """The order of servers for each block: random, then the same reversed, and so on."""
    source = random.Random(seed)
    result: list[list[Server]] = []
    for block in range(blocks):
        if block % 2:
            result.append(result[-1][::-1])
        else:
            result.append(source.sample(servers, len(servers)))
    return result


class Interrupt:
    """SIGINT and SIGTERM end the run: as KeyboardInterrupt, and once more at the next :meth:`check`.

    An exception that a signal raises is lost where Python happens to be in a finaliser just then.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before = {n: signal.signal(n, self._ask) for n in (signal.SIGINT, signal.SIGTERM)}

    def _ask(self, number: int, frame: object) -> None:
        self._asked = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt if one was asked for."""
        if self._asked:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)


def machine_caveats(described: dict[str, Any], seconds: float = 0.3) -> list[Fired]:
    """What about the machine makes figures less sure before anything runs: other load, its frequency."""
    found = []
    before = read_machine()
    time.sleep(seconds)
    busy = sum(core["busy"] for core in read_machine().since(before))
    if busy > OTHER_LOAD:
        message = f"before the run began, something else used {busy:.0%} of a core"
        found.append(Fired(check="other-load", message=message))
    governor = described.get("governor")
    if governor and governor != "performance":
        message = f"the CPU's frequency governor is {governor!r}: its speed depends on what ran before"
        found.append(Fired(check="frequency", message=message))
    return found


def turns(sequence: list[Server], slices: int) -> list[list[Server]]:
    """What of a block is measured together: with slices all servers, but for those to be measured whole."""
    together = [server for server in sequence if slices > 1 and not server.whole]
    groups = [[server] if server not in together else together for server in sequence]
    return [group for index, group in enumerate(groups) if group not in groups[:index]]


def run(
    scenario: Scenario,
    servers: list[Server],
    parameters: dict[str, Any],
    output: Path,
    *,
    progress: Callable[[str, str, int], None] = lambda text, server, block: None,
    done: TrialDone = lambda report, trial: None,
    seed: int | None = None,
    server_cores: tuple[int, ...] | None = None,
    generator_cores: tuple[int, ...] | None = None,
) -> Report:
    """Measure and save; returns the report, which is incomplete after Ctrl-C or a failed trial.

    Raises BuildFailed: a server's source does not compile. Raises OSError: ``output`` cannot be written.
    """
    seed = secrets.randbelow(2**31) if seed is None else seed
    first, second = cores()
    server_cores, generator_cores = server_cores or first, generator_cores or second
    raise_file_limit()
    servers = scenario.prepared(servers)
    commands = {server.name: server.command() for server in servers}
    generator = program(scenario.name == "tls" or bool(parameters.get("tls")))
    used = {*(server_cores or ()), *(generator_cores or ())}
    during = machine.During(used)
    report = Report(
        id=secrets.token_hex(6),
        scenario=scenario.name,
        parameters=dict(parameters),
        environment=environment.describe(
            {"server": list(server_cores or ()), "generator": list(generator_cores or ())}
        )
        | {"order_seed": seed, "generator": "C" if len(generator) == 1 else "Python"}
        | {"machine": machine.describe(used)},
        servers=[
            ServerEntry(
                name=server.name,
                version=server.version(),
                command=_shown(commands[server.name])
                + _spoken(server)
                + server.stuck * ["(a client does not read)"],
                source_hash=server.source_hash(),
            )
            for server in servers
        ],
        metrics=scenario.metrics,
        histograms=scenario.histograms,
        series=scenario.series,
        revision=environment.revision(),
        harness=harness(),
        created=utc_now(),
    )
    report.warnings += machine_caveats(report.environment)
    report.warnings += machine.caveats(
        server_cores or (), generator_cores or (), report.environment["memory_bytes"]
    )
    if server_cores is None:
        report.warnings.append(
            Fired(check="not-pinned", message="one core only: server and load generator shared it")
        )
    if len(generator) > 1:
        report.warnings.append(
            Fired(
                check="python-generator",
                message="no C compiler: the load generator in Python may be slower than the servers",
            )
        )
    report.save(output)
    failed = False
    order = 0
    interrupt = Interrupt()
    try:
        for block, sequence in enumerate(orders(servers, parameters["blocks"], seed)):
            for turn in turns(sequence, parameters.get("slices", 1)):
                interrupt.check()
                bench = Bench(server_cores, generator_cores, lambda text: progress(text, turn[0].name, block))  # noqa: B023
                trials: list[Trial] = []
                try:
                    if len(turn) > 1 and isinstance(scenario, Confirm):
                        interleaved.block(bench, scenario, turn, parameters, trials)
                    else:
                        trials.append(scenario.trial(bench, turn[0], parameters))
                except (ServerFailed, GeneratorFailed, BuildFailed) as error:
                    bench.warn("trial-failed", str(error), turn[0].name)
                finally:
                    for trial in trials:
                        trial.block, trial.order = block, order
                        order += 1
                    report.trials += trials
                    report.warnings += [
                        Fired(check=f.check, message=f.message, server=f.server, block=block)
                        for f in bench.warnings
                    ]
                failed = failed or any(fired.check == "trial-failed" for fired in bench.warnings)
                report.save(output)
                for kept in trials:
                    done(report, kept)
                if not trials:
                    done(report, None)
        report.complete = not failed
    except KeyboardInterrupt:
        report.warnings.append(
            Fired(check="interrupted", message="the run was interrupted; what was measured is kept")
        )
    finally:
        interrupt.close()
    report.environment["during"], fired = during.end()
    report.warnings += fired
    report.save(output)
    return report


def _spoken(server: Server) -> list[str]:
    """The protocol, where it is another: two servers with it are not those without."""
    return [f"({name} {value!r})" for name, value in server.protocol.items()]


def _shown(command: list[str]) -> list[str]:
    """A command line without the directory of its program, so that reports name no private path."""
    return [Path(command[0]).name, *command[1:]]
