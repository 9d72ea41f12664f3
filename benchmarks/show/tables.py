"""Tables in Markdown documents, written from the reports in ``benchmarks/results``.

A document marks a place with two comments, and ``python -m benchmarks tables`` writes what is between them:

    <!-- table: confirm -->
    <!-- end table -->

The word is the stem of a report's file; ``<!-- table: confirm of go, threads -->`` has only these servers,
for a page that is short. Each server has a row, ordered by the first primary metric, with that metric's
ratio to ``chat_gevent``, or else to the server that the report names first, and the comparison's verdict on
it; where that is *unclear*, it says how many blocks would tell. Latencies stand beside the cost. A rate
that says something of saturated servers only has a ≥ where a server was not saturated in every trial: it
can do that much, and how much more is not known. The line below has the checks that fired. ``--check``
writes nothing and says which documents are stale; a test does the same. Where the report is not there the
place has to be empty.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.judge.compare import CompareError, compare
from benchmarks.judge.verdicts import Comparison
from benchmarks.reports.document import ReportError
from benchmarks.reports.figures import Figure, figures, saturated
from benchmarks.reports.report import Report
from benchmarks.show import wording
from benchmarks.show.summary import COLUMNS

HERE: Final = Path(__file__).parents[1]
RESULTS: Final = HERE / "results"
LATENCIES: Final = ("latency_p50", "latency_p99")
_MARKED: Final = re.compile(
    r"(?P<start><!-- table: (?P<name>[\w.-]+)(?: of (?P<servers>[\w, ]+))? -->\n)"
    r"(?P<body>.*?)(?P<end><!-- end table -->)",
    re.DOTALL,
)
BASE: Final = "chat_gevent"


def documents() -> list[Path]:
    """The project's documents that may hold tables: every README of the source tree."""
    root = HERE.parent
    candidates = [root / "README.md", *sorted(root.glob("*/README.md")), *sorted(root.glob("docs/*.md"))]
    return [path for path in candidates if path.is_file()]


def update(document: Path, results: Path, *, write: bool) -> bool:
    """Whether ``document`` had a stale table; with ``write`` it has none now.

    Raises ``ReportError`` where a report is missing or a marker has no end.
    """
    before = document.read_text(encoding="utf-8")
    if before.count("<!-- table:") != len(_MARKED.findall(before)):
        raise ReportError(f"{document}: a table marker has no <!-- end table -->")
    after = _MARKED.sub(
        lambda m: m["start"] + _body(results / f"{m['name']}.json", m["body"], m["servers"]) + m["end"],
        before,
    )
    if write and after != before:
        document.write_text(after, encoding="utf-8")
    return after != before


def _body(path: Path, before: str, servers: str | None) -> str:
    if not before.strip() and not path.exists():
        return before
    return table(Report.load(path), [each.strip() for each in (servers or "").split(",") if each.strip()])


def table(report: Report, servers: Sequence[str] = ()) -> str:
    """The report's primary metrics as a Markdown table, and a line that says what they were measured on.

    Only ``servers`` have rows, where there are any. Raises ReportError: one of them was not measured.
    """
    names = [each.name for each in report.servers]
    if unknown := [each for each in servers if each not in names]:
        raise ReportError(f"{report.id}: {', '.join(unknown)}: not among {', '.join(names)}")
    primary = [figure for figure in figures(report) if figure.metric.primary]
    if not primary:
        raise ReportError(f"{report.id}: the report has no primary metric to make a table of")
    leading = primary[0]
    judged = _judged(report, leading)
    columns = _columns(report, primary)
    sign = 1 if leading.metric.better == "lower" else -1
    order = sorted(leading.shown, key=lambda server: sign * leading.shown[server])
    order = [each for each in order if not servers or each in servers]
    head = [
        "server",
        *(figure.metric.title for figure in columns),
        *(["ratio (95% interval)", "verdict"] if judged else []),
    ]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for server in order:
        cells = [server, *(_cell(report, figure, server) for figure in columns)]
        lines.append("| " + " | ".join([*cells, *(judged.get(server, ("1", "")) if judged else ())]) + " |")
    return "\n".join([*lines, "", _foot(report, primary)]) + "\n"


def _columns(report: Report, primary: Sequence[Figure]) -> list[Figure]:
    """The primary metrics, what else answers the scenario's question, and latencies, each once."""
    wanted = [each.name for each in primary] + list(COLUMNS.get(report.scenario, ()))
    known = {each.name: each for each in figures(report)}
    return [
        known[name] for name in dict.fromkeys([*wanted, *LATENCIES]) if name in known and known[name].shown
    ]


def _judged(report: Report, leading: Figure) -> dict[str, tuple[str, str]]:
    """Of each server but the first: its ratio with the interval, and the verdict."""
    try:
        result = compare([report], [report.scenario], baseline=_base(report))
    except CompareError:  # one server: there is nothing to compare
        return {}
    return {
        c.candidate: (f"{wording.ratio(c.estimate.ratio)} ({wording.interval(c)})", _verdict(c))
        for c in result.comparisons
        if c.name == leading.name
    }


def _verdict(comparison: Comparison) -> str:
    if comparison.verdict is None:
        return "–"
    blocks = re.search(r"takes (.*? blocks)", comparison.reason)
    return f"{comparison.verdict}: {blocks[1]} would tell" if blocks else str(comparison.verdict)


def _cell(report: Report, figure: Figure, server: str) -> str:
    if server not in figure.shown:
        return "–"
    said = wording.quantity(figure.shown[server], figure.metric.unit)
    return f"≥ {said}" if _only_a_bound(report, figure, server) else said


def _only_a_bound(report: Report, figure: Figure, server: str) -> bool:
    return figure.metric.when_saturated and not saturated(report, server)


def _foot(report: Report, primary: Sequence[Figure]) -> str:
    leading = primary[0]
    blocks = len({trial.block for trial in report.trials})
    parameters = ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}"
        for name, value in report.parameters.items()
        if name != "blocks"
    )
    environment = report.environment
    kernel = str(environment["kernel"]).partition("-")[0]  # what follows is the build of one host
    machine = f"{environment['cpu']}, {environment['cores']} cores, {kernel}"
    base = f"; ratios of {leading.metric.title} to {_base(report)}" if len(report.servers) > 1 else ""
    made = f"{report.created[:10]}, revision {report.revision.commit[:7] or 'unknown'}"
    bounds = any(_only_a_bound(report, figure, server) for figure in primary for server in figure.shown)
    bound = "; ≥: the server was not saturated in every trial, and may do more" if bounds else ""
    return f"{made}, {blocks} blocks, {parameters}; {machine}{base}{bound}{_checks(report)}."


def _base(report: Report) -> str:
    names = [each.name for each in report.servers]
    return BASE if BASE in names else names[0]


def _checks(report: Report) -> str:
    """Each check that fired and how often, in a few words; nothing where none did."""
    counts = Counter(fired.check for fired in report.warnings)
    if not counts:
        return ""
    fired = ", ".join(f"{check} ({count})" for check, count in counts.most_common())
    return f"; checks that fired in {len(report.trials)} trials: {fired}"
