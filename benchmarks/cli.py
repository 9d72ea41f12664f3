"""The command line: ``python -m benchmarks list|run|compare|show|history|tables|experiment|demo``.

``run SCENARIO --help`` shows the parameters of that scenario with their defaults. Exit status of ``run``:
0 all was measured, 1 something failed, 2 a wrong option, 130 after Ctrl-C (what was measured is kept).
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.parser import Parser
from benchmarks.running import UsageError, add_run, check_output

if TYPE_CHECKING:
    pass


def _list(arguments: argparse.Namespace) -> int:
    from rich.table import Table

    from benchmarks.measure.scenarios import SCENARIOS
    from benchmarks.measure.servers import SERVERS
    from benchmarks.show.console import Console

    console = Console()
    table = Table("scenario", "question", "parameters", title="Scenarios", title_justify="left")
    for scenario in SCENARIOS.values():
        defaults = " ".join(f"{name}={value:g}" for name, value in scenario.defaults.items())
        table.add_row(scenario.name, scenario.question, defaults)
    console.print(table)
    table = Table("server", "what it is", "here", title="Servers", title_justify="left")
    for server in SERVERS.values():
        missing = server.missing()
        cannot = [s.name for s in SCENARIOS.values() if s.refuses(server, dict(s.defaults))]
        here = f"[red]no: {missing}[/]" if missing else server.version()
        table.add_row(
            server.name, server.summary + (f" (not in {', '.join(cannot)})" if cannot else ""), here
        )
    console.print(table)
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from benchmarks.demo import FULL, QUICK, run

    return run(Path(arguments.reports), QUICK if arguments.quick else FULL)


def _add_experiments(commands: Any, argv: Sequence[str]) -> None:
    """The experiments; a module is imported only where it is the one asked for."""
    from benchmarks.experiments import EXPERIMENTS, load

    about = "Measurements with a procedure of their own; each prints its figures."
    experiment = commands.add_parser("experiment", help="measurements of other kinds", description=about)
    names = experiment.add_subparsers(dest="experiment", required=True, metavar="NAME")
    for name, help in EXPERIMENTS.items():
        parser = names.add_parser(name, help=help, formatter_class=argparse.RawDescriptionHelpFormatter)
        if list(argv[:2]) == ["experiment", name]:
            module = load(name)
            parser.description = module.__doc__
            module.add_arguments(parser)
            parser.set_defaults(run=_experiment, module=module, parser=parser)


def _experiment(arguments: argparse.Namespace) -> int:
    from benchmarks.experiments import ExperimentFailed
    from benchmarks.measure.compiler import BuildFailed
    from benchmarks.measure.generator import GeneratorFailed
    from benchmarks.measure.servers.process import ServerFailed
    from benchmarks.reports.document import ReportError

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and end what it started on the way
    failures = (ExperimentFailed, GeneratorFailed, BuildFailed, ServerFailed, ReportError, OSError)
    try:
        if getattr(arguments, "output", None):
            check_output(Path(arguments.output))  # before it is measured, not after
        status: int = arguments.module.run(arguments)
    except UsageError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except failures as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    return status


def make_parser(argv: Sequence[str]) -> Parser:
    """The parser of all commands; of the experiments only the one that ``argv`` names has its options."""
    from benchmarks.commands import add_commands

    parser = Parser(
        prog="python -m benchmarks",
        description="Measure servers that speak the confirm protocol, and compare.",
    )
    parser.add_argument("--version", action="version", version=f"chat-gevent {version('chat-gevent')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shown = commands.add_parser("list", help="the scenarios and the servers, and which can run here")
    shown.set_defaults(run=_list)
    add_run(commands)
    add_commands(commands)
    _add_experiments(commands, argv)
    demo = commands.add_parser("demo", help="serve, load with Locust, compare: the whole story in a minute")
    demo.add_argument("--quick", action="store_true", help="20 users for a second: to see that it works")
    demo.add_argument(
        "--reports", metavar="DIR", default="demo-reports", help="where the reports go (%(default)s)"
    )
    demo.set_defaults(run=_demo)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what may come next in a line that is being typed
        from benchmarks.completion import arguments_before, complete

        return complete(make_parser(arguments_before()))
    given = sys.argv[1:] if argv is None else argv
    arguments = make_parser(given).parse_args(given)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        from benchmarks.show.console import end_quietly

        end_quietly()
    except KeyboardInterrupt:
        print("benchmarks: interrupted; what it started has been ended", file=sys.stderr)
        status = 128 + signal.SIGINT
    return status
