"""``python -m benchmarks run SCENARIO``: its options, what is checked before it begins, and what it does.

Nothing is measured before all that was asked for is known to be possible: a run of minutes should not end at
a name that was misspelt, or at a file that can't be written.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from benchmarks.measure.scenarios.base import Scenario
    from benchmarks.measure.servers import Server
    from benchmarks.reports.report import Report

HELP: Final = {
    "connections": "connections held open",
    "blocks": "blocks; each measures every server once",
    "seconds": "seconds of each measurement",
    "warmup": "seconds of load before each",
    "size": "bytes of a message without its terminator",
    "depth": "messages under way on each connection",
    "slices": "turns a server takes in a block; 1: in one piece",
    "rate": "messages a second, over all connections",
    "poisson": "1: random intervals, as of many clients; 0: even ones",
    "bound_ms": "p99 in ms of the highest rate to look for; 0: do not",
    "messages": "messages of each session",
    "window": "connections under way at once, not yet confirmed",
    "idle": "idle connections beside the active ones",
    "plateaus": "numbers of connections at which memory is read",
    "room": "clients in a room",
    "settle": "wait before memory is read, in seconds",
    "tls": "1: over TLS; a client takes up to 280 KiB there",
}
"""Every parameter that a scenario may have."""
LEAST: Final[dict[str, float]] = {
    "warmup": 0, "poisson": 0, "tls": 0, "bound_ms": 0, "settle": 0, "plateaus": 2, "seconds": 0.05,
}  # fmt: skip
"""The smallest value of a parameter, where that is not 1."""
MOST: Final[dict[str, float]] = {
    "size": 65_536,
    "poisson": 1,
    "tls": 1,
    "plateaus": 100,
    "seconds": 3600,
    "connections": 10**6,
}
OTHER_FILES: Final = 200
"""Files that a server may need besides its connections."""


class UsageError(ValueError):
    """What was asked for cannot be done; one line for a person."""


def _value(name: str, default: float) -> Callable[[str], float]:
    low, high = LEAST.get(name, 1), MOST.get(name, 10**9)

    def parse(text: str) -> float:
        try:
            value = type(default)(text.replace(",", "").replace("_", ""))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
        return value

    return parse


def _cores(text: str) -> tuple[int, ...]:
    allowed = os.sched_getaffinity(0)
    try:
        chosen = tuple(int(part) for part in text.split(",")) if text != "all" else tuple(sorted(allowed))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of cores such as 0,1") from None
    if not set(chosen) <= allowed:
        raise argparse.ArgumentTypeError(f"this process may use cores {sorted(allowed)}, not {text}")
    return chosen


def add_run(commands: Any) -> None:
    """Add ``run`` and a command below it for each scenario."""
    from benchmarks.commands import add_verbose
    from benchmarks.measure.scenarios import SCENARIOS
    from benchmarks.measure.servers.own import EXPECT, SEND

    run = commands.add_parser("run", help="measure servers", description="Measure servers in one scenario.")
    scenarios = run.add_subparsers(dest="scenario", required=True, metavar="SCENARIO")
    for scenario in SCENARIOS.values():
        parser = scenarios.add_parser(
            scenario.name,
            help=scenario.question,
            description=f"{scenario.question} {type(scenario).__doc__}",
            usage="%(prog)s [OPTION ...]",
            add_help=False,
            formatter_class=_Narrow,
            epilog="examples:\n"
            f"  python -m benchmarks run {scenario.name} --servers threads,chat_gevent\n"
            f"  python -m benchmarks run {scenario.name} --server 'mine=./server {{port}}'",
        )
        who = parser.add_argument_group("what is measured")
        who.add_argument(
            "--servers",
            metavar="A,B",
            help="in this order, compared with the first; with options 'chat_gevent --park-after 5', or a "
            "revision chat_gevent@main (default: all that can run)",
        )
        who.add_argument(
            "--server",
            action="append",
            default=[],
            metavar="NAME=COMMAND",
            help="a command of your own: 'mine=./server --port {port}'",
        )
        who.add_argument("--send", metavar="TEXT", help=f"what --server is sent (default: '{SEND}')")
        who.add_argument("--expect", metavar="TEXT", help=f"its answer (default: '{EXPECT}')")
        how = parser.add_argument_group("how, and where to")
        how.add_argument("--output", metavar="FILE", help="the report (default: SCENARIO-TIME.json here)")
        size = how.add_mutually_exclusive_group()
        size.add_argument("--quick", action="store_true", help="short: to see whether something is far off")
        size.add_argument("--full", action="store_true", help="long: for figures that are published")
        how.add_argument("--seed", type=int, help="of the order of servers (default: random)")
        for side in ("server", "generator"):
            how.add_argument(
                f"--{side}-cores", type=_cores, metavar="0,1", help=f"cores of the {side}, or 'all'"
            )
        add_verbose(how)
        how.add_argument("-h", "--help", action="help", help="show this and exit")
        values = parser.add_argument_group("parameters of the scenario (default, --quick, --full)")
        for name, default in scenario.defaults.items():
            values.add_argument(
                f"--{name.replace('_', '-')}",
                type=_value(name, default),
                metavar="N",
                help=f"{HELP[name]} ({default:g}{_presets(scenario, name)})",
            )
        parser.set_defaults(run=_run)


class _Narrow(argparse.RawDescriptionHelpFormatter):
    """Options of up to 22 characters have their text beside them, within the usual 80 columns."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=79)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Fill a description; leave examples as they are."""
        return (
            text
            if text.startswith("examples:")
            else argparse.HelpFormatter._fill_text(self, text, width, indent)
        )


def _presets(scenario: Scenario, name: str) -> str:
    presets = [("quick", scenario.quick), ("full", scenario.full)]
    return "".join(f", {preset} {values[name]:g}" for preset, values in presets if name in values)


def _parameters(scenario: Scenario, arguments: argparse.Namespace) -> dict[str, Any]:
    preset = scenario.quick if arguments.quick else scenario.full if arguments.full else {}
    parameters = {**scenario.defaults, **preset}
    given = {name: getattr(arguments, name) for name in parameters}
    return parameters | {name: value for name, value in given.items() if value is not None}


def _servers(
    scenario: Scenario, names: str | None, parameters: dict[str, Any]
) -> tuple[list[Server], list[str]]:
    """The servers to measure, and a line for each that is left out. Raises UsageError."""
    from benchmarks.measure.servers import SERVERS, find

    if names is None:
        servers, left_out = [], []
        for server in SERVERS.values():
            why = server.missing() or scenario.refuses(server, parameters)
            if why:
                left_out.append(f"without {server.name}: {why}")
            else:
                servers.append(server)
        return servers, left_out
    chosen: list[Server] = []
    for name in filter(None, (part.strip() for part in names.split(","))):
        try:
            server = find(name)
        except KeyError:
            raise UsageError(f"there is no server {name!r}; there are {', '.join(SERVERS)}") from None
        except ValueError as error:
            raise UsageError(str(error)) from None
        why = server.missing() or scenario.refuses(server, parameters)
        if why:
            raise UsageError(f"{server.name} cannot run {scenario.name}: {why}")
        chosen.append(server.again(sum(other.name.partition("#")[0] == server.name for other in chosen)))
    if not chosen:
        raise UsageError("no server is named")
    return chosen, []


def _own_servers(
    scenario: Scenario, arguments: argparse.Namespace, parameters: dict[str, Any]
) -> list[Server]:
    """The servers of the user's, which come first. Raises UsageError."""
    from benchmarks.measure.servers.own import EXPECT, SEND, own_server

    if not arguments.server and (arguments.send or arguments.expect):
        raise UsageError("--send and --expect say what a --server is sent and expected to answer")
    servers: list[Server] = []
    for text in arguments.server:
        try:
            server = own_server(text, arguments.send or SEND, arguments.expect or EXPECT)
        except ValueError as error:
            raise UsageError(str(error)) from None
        if why := scenario.refuses(server, parameters):
            raise UsageError(f"{server.name} cannot run {scenario.name}: {why}")
        if server.tls and not scenario.over_tls(parameters):
            raise UsageError(f"--server {text!r}: {{certificate}} and {{key}} are there only over TLS")
        if server.name in [other.name for other in servers]:
            raise UsageError(f"--server {text!r}: the name is taken")
        servers.append(server)
    return servers


def _check_files(parameters: dict[str, Any]) -> None:
    from chat_gevent.files import raise_file_limit

    wanted, limit = parameters["connections"] + parameters.get("idle", 0) + OTHER_FILES, raise_file_limit()
    if wanted > limit:
        raise UsageError(
            f"a server may open {limit:,} files here (ulimit -Hn): "
            f"at most {limit - OTHER_FILES:,} connections in all, not {wanted - OTHER_FILES:,}"
        )


def check_output(output: Path) -> None:
    """Raise UsageError unless a report can be saved there."""
    import tempfile

    try:
        if output.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        tempfile.TemporaryFile(dir=output.parent).close()
    except OSError as error:
        raise UsageError(f"{output}: {error.strerror}") from None


def _run(arguments: argparse.Namespace) -> int:
    from benchmarks.measure import runner
    from benchmarks.measure.compiler import BuildFailed
    from benchmarks.measure.generator import GeneratorFailed
    from benchmarks.measure.scenarios import SCENARIOS
    from benchmarks.reports.document import ReportError
    from benchmarks.show.progress import Progress

    scenario = SCENARIOS[arguments.scenario]
    parameters = _parameters(scenario, arguments)
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    output = Path(arguments.output or f"{scenario.name}-{now}.json")
    try:
        own = _own_servers(scenario, arguments, parameters)
        servers = own
        left_out: list[str] = []
        if arguments.servers or not own:
            chosen, left_out = _servers(scenario, arguments.servers, parameters)
            servers = [*own, *chosen]
        _check_files(parameters)
        check_output(output)
        with Progress(scenario.name, len(servers) * parameters["blocks"]) as progress:
            for line in left_out:
                progress.note(line)
            report = runner.run(
                scenario,
                servers,
                parameters,
                output,
                progress=progress.step,
                done=progress.done,
                seed=arguments.seed,
                server_cores=arguments.server_cores,
                generator_cores=arguments.generator_cores,
            )
    except UsageError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except (BuildFailed, GeneratorFailed, ReportError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"benchmarks: {error.filename or output}: {error.strerror}", file=sys.stderr)
        return 1
    tell(report, output, arguments.verbose)
    if any(fired.check == "interrupted" for fired in report.warnings):
        return 130
    return 0 if report.complete else 1


def tell(report: Report, output: Path, verbose: bool = False) -> None:
    """Print what was measured, and what to do with it."""
    from benchmarks.show.console import Console
    from benchmarks.show.progress import can_compare, summary

    console = Console()
    summary(report, console, verbose)
    console.print(f"report: {output}", soft_wrap=True)
    if can_compare(report):
        console.print(f"compare the servers: python -m benchmarks compare {output}", soft_wrap=True)
