"""The commands that read reports: ``compare``, ``show``, ``history`` and ``tables``.

Each returns an exit status: 0 fine (compare: no regression), 1 a regression (tables --check: stale
tables), 2 a file or an option that cannot be used, 3 not comparable or not all compared, or unclear under
``--strict``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.judge.caveats import runs_needed
from benchmarks.judge.compare import MARGIN, CompareError, compare
from benchmarks.judge.statistics import LEAST
from benchmarks.reports.document import ReportError
from benchmarks.reports.report import Report

if TYPE_CHECKING:
    from rich.console import Console

USAGE = 2


def add_commands(commands: Any) -> None:
    """Add the commands to the subparsers of ``python -m benchmarks``; each sets ``run`` to its function."""
    parser = commands.add_parser(
        "compare",
        help="compare the servers of one report, or reports with the first",
        description="Compare the servers of one report with each other (paired by block), or several "
        "reports with the first (unpaired). Reports joined by commas are runs of one side, a sample each: "
        "compare a1.json,a2.json,a3.json b1.json,b2.json,b3.json. Make them in turn (a1 b1 b2 a2 ...), or a "
        "change of the machine would look like one of the server. Reports of Locust need runs, because one "
        f"run does not tell how two of them differ: 'slower' or 'faster' takes {runs_needed(1)} runs a side "
        f"for one server and {runs_needed(2)} for two to six, 'same' takes {LEAST}. "
        "Exit status: 0 no regression, 1 a regression, 2 a file or option "
        "that cannot be used, 3 not comparable, a server failed or has no figure, or unclear under --strict.",
    )
    parser.add_argument(
        "reports", nargs="+", metavar="REPORT", help="a report's file, or files of several runs: A,B,..."
    )
    parser.add_argument("--html", metavar="FILE", help="write the comparison as one HTML file")
    parser.add_argument("--markdown", metavar="FILE", help="write it as Markdown; - for standard output")
    parser.add_argument(
        "--margin",
        type=margin,
        default=MARGIN,
        metavar="3%",
        help="what is too small to matter (default 3%%)",
    )
    parser.add_argument(
        "--baseline", metavar="SERVER", help="in one report: what to compare with (its first)"
    )
    parser.add_argument("--strict", action="store_true", help="exit with 3 where a verdict is unclear")
    parser.add_argument("--force", action="store_true", help="compare although conditions or times differ")
    add_verbose(parser)
    parser.set_defaults(run=_compare)

    parser = commands.add_parser("show", help="show one report")
    parser.add_argument("report", metavar="REPORT", help="a report's file")
    parser.add_argument("--html", metavar="FILE", help="write it as one HTML file")
    add_verbose(parser)
    parser.set_defaults(run=_show)

    parser = commands.add_parser(
        "history",
        help="the reports of a directory over time, and where a figure changed its level",
        description="A line for each report of a directory, and change points: where the ratio of a server "
        "to the first server of its run changed its level. Absolute figures are shown, not judged, and "
        "reports of unlike machines or parameters are never joined. Exit status: 0 no regression, 1 the "
        "latest change of a series is for the worse by more than the margin, 2 a file or option that cannot "
        "be used, 3 no series is long enough.",
    )
    parser.add_argument("directory", metavar="DIR", help="where the reports are")
    parser.add_argument("--html", metavar="FILE", help="write it with plots as one HTML file")
    parser.add_argument("--junit", metavar="FILE", help="write the series as test cases, as JUnit does")
    parser.add_argument("--github", action="store_true", help="print changes as annotations of GitHub")
    parser.add_argument("--margin", type=margin, default=MARGIN, metavar="3%", help="as in compare")
    parser.set_defaults(run=_history)

    parser = commands.add_parser("tables", help="write the tables of README files from reports")
    parser.add_argument("documents", nargs="*", metavar="DOCUMENT", help="Markdown files with table markers")
    parser.add_argument("--results", metavar="DIR", help="where the reports are (benchmarks/results)")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 where a table is stale"
    )
    parser.set_defaults(run=_tables)


def add_verbose(parser: argparse._ActionsContainer) -> None:
    """The option ``-v``."""
    parser.add_argument("-v", "--verbose", action="store_true", help="show every warning")


def margin(text: str) -> float:
    """``3%`` or ``0.03`` as a fraction; argparse reports anything else."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no percentage such as 3%") from None
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0% and 100%")
    return value


def compare_files(
    paths: list[str],
    *,
    html: str | None = None,
    markdown: str | None = None,
    margin: float = MARGIN,
    strict: bool = False,
    force: bool = False,
    baseline: str | None = None,
    verbose: bool = False,
    console: Console | None = None,
) -> int:
    """Load, compare, print and write; returns the exit status. Complaints are one line on standard error."""
    from benchmarks.show import wording
    from benchmarks.show.console import Console

    def work() -> int:
        sides = [[Report.load(path) for path in split(side)] for side in paths]
        result = compare(sides, labels(paths), margin=margin, strict=strict, force=force, baseline=baseline)
        if markdown != "-":
            wording.print_result(result, console or Console(), verbose)
        if markdown == "-":
            sys.stdout.write(wording.markdown(result))
        elif markdown:
            Path(markdown).write_text(wording.markdown(result), encoding="utf-8")
        if html:
            from benchmarks.show.html import comparison_page

            Path(html).write_text(comparison_page(result), encoding="utf-8")
        return result.status

    return _guarded(work)


def split(side: str) -> list[str]:
    """The files of one side; a file whose own name has a comma is one."""
    return [side] if Path(side).exists() else [path for path in side.split(",") if path] or [side]


def labels(sides: list[str]) -> list[str]:
    """Short names for reports: their files' stems, or whole paths where stems repeat."""
    paths = []
    stems = []
    for files in map(split, sides):
        runs = f" ({len(files)} runs)" if len(files) > 1 else ""
        paths.append(files[0] + runs)
        stems.append(Path(files[0]).stem + runs)
    return stems if len(set(stems)) == len(stems) else paths


def _guarded(work: Callable[[], int]) -> int:
    try:
        return work()
    except (ReportError, CompareError) as error:
        print(error, file=sys.stderr)
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
    return USAGE


def _compare(arguments: argparse.Namespace) -> int:
    return compare_files(
        arguments.reports,
        html=arguments.html,
        markdown=arguments.markdown,
        margin=arguments.margin,
        strict=arguments.strict,
        force=arguments.force,
        baseline=arguments.baseline,
        verbose=arguments.verbose,
    )


def _show(arguments: argparse.Namespace) -> int:
    from benchmarks.show.console import Console
    from benchmarks.show.terminal import print_report

    def work() -> int:
        report = Report.load(arguments.report)
        print_report(report, Console(), arguments.verbose)
        if arguments.html:
            from benchmarks.show.html import report_page

            Path(arguments.html).write_text(report_page(report), encoding="utf-8")
        return 0

    return _guarded(work)


def _history(arguments: argparse.Namespace) -> int:
    from benchmarks.judge.trends import judge
    from benchmarks.show import ci, history
    from benchmarks.show.console import Console

    def work() -> int:
        found = history.collect(Path(arguments.directory))
        trends = judge(found.sets)
        console = Console()
        history.print_history(found, console)
        for line in (*history.told_apart(found), *ci.lines(trends)):
            console.print(line, markup=False, soft_wrap=not console.is_terminal)
        for line in ci.github(trends, arguments.margin) if arguments.github else ():
            print(line)
        if arguments.junit:
            Path(arguments.junit).write_text(ci.junit(trends, arguments.margin), encoding="utf-8")
        if arguments.html:
            from benchmarks.show.html import history_page

            Path(arguments.html).write_text(history_page(found), encoding="utf-8")
        return trends.status(arguments.margin)

    return _guarded(work)


def _tables(arguments: argparse.Namespace) -> int:
    from benchmarks.show import tables

    def work() -> int:
        documents = [Path(name) for name in arguments.documents] or tables.documents()
        results = Path(arguments.results) if arguments.results else tables.RESULTS
        stale = [path for path in documents if tables.update(path, results, write=not arguments.check)]
        for path in stale:
            print(f"{path}: {'stale' if arguments.check else 'written'}")
        return 1 if stale and arguments.check else 0

    return _guarded(work)
