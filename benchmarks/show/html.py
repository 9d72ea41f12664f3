"""Reports and comparisons as one HTML file each: no network, no script, drawings inline.

The page starts with the verdict in a sentence, then the ratios with their intervals, the plots, the checks
that fired, and where and how it was measured with every difference marked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.judge.comparable import flatten, said
from benchmarks.judge.compare import Result
from benchmarks.judge.statistics import Verdict
from benchmarks.judge.verdicts import Comparison
from benchmarks.reports.drawing import Plot
from benchmarks.reports.figures import Figure, figures
from benchmarks.reports.page import FactRow, Facts, render
from benchmarks.reports.report import Report
from benchmarks.show import fired, history, plots, wording
from benchmarks.show.plots import Subject

_MANY: Final = 9
"""From so many rows on, metrics that take no part in verdicts are folded away."""


@dataclass(frozen=True, slots=True)
class _Row:
    cells: Sequence[str]
    mood: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Table:
    title: str
    headings: Sequence[str]
    rows: Sequence[_Row]
    folded: bool = False


def comparison_page(result: Result) -> str:
    """The page of a comparison."""
    subjects = _subjects(result)
    return _render(
        title="Comparison of " + " and ".join(result.labels),
        kicker=f"{result.reports[0].scenario}: {' against '.join(result.labels)}"
        if not result.paired
        else f"{result.reports[0].scenario}: {len(result.reports[0].servers)} servers in one run",
        headline=wording.headline(result),
        mood=_mood(result),
        under=[_made(label, report) for label, report in zip(result.labels, result.reports, strict=True)],
        notes=[*result.notes],
        groups=_comparison_tables(result),
        after=[
            *(f"{wording.mean_line(mean)}." for mean in result.means),
            *([f"How: {wording.method(result)}."] if result.comparisons else []),
            *([f"{_capital(line)}."] if (line := wording.legend(result)) else []),
        ],
        plots=[*_ratio_plots(result), *subject_plots(subjects)] if result.comparisons else [],
        warnings=fired.each(result),
        conditions=_facts(result.labels, result.reports),
        command="compare",
    )


def report_page(report: Report, label: str = "", before: Iterable[Plot] = ()) -> str:
    """The page of one report, without verdicts; drawings in ``before`` come first."""
    result = Result(labels=[label or report.id], reports=[report], margin=0, baseline="")
    subjects = [Subject(server.name, report, server.name) for server in report.servers]
    count = len(report.servers)
    return _render(
        title=f"{report.scenario}, {report.created}",
        kicker=f"{report.kind} report",
        headline=f"{report.scenario}: {count} server{'' if count == 1 else 's'}, {len(report.trials)} "
        f"trial{'' if len(report.trials) == 1 else 's'}, {report.state}",
        mood="",
        under=[_made(result.labels[0], report)],
        notes=[],
        groups=_report_tables(report),
        after=[],
        plots=[*before, *subject_plots(subjects)],
        warnings=fired.each(result),
        conditions=_facts(result.labels, [report]),
        command="show",
    )


def history_page(found: history.History) -> str:
    """The page of the reports of a directory over time."""
    headings = ("report", "made", "scenario", "revision", "figures")
    rows = [_Row((e.name, e.created, e.scenario, e.revision, e.figures)) for e in found.entries]
    return _render(
        title="History",
        kicker=found.directory,
        headline=f"{len(found.entries)} report{'' if len(found.entries) == 1 else 's'} over time",
        mood="",
        under=[
            "Only reports of one scenario under equal conditions share a line; machines vary from day to day."
        ],
        notes=found.refused,
        groups=[_Table("Reports", headings, rows)],
        after=[],
        plots=history.plots_of(found),
        warnings=[],
        conditions=[],
        command="history",
    )


def subject_plots(subjects: Sequence[Subject]) -> list[Plot]:
    """Every drawing that the reports hold data for: metrics, percentiles, memory, series, blocks."""
    known = {subject.label: {f.name: f for f in figures(subject.report)} for subject in subjects}
    first = next(iter(known.values()), {})
    drawn: list[Plot | None] = []
    percentiles = {name for subject in subjects for name in subject.report.histograms}
    plain = [f for f in first.values() if f.name.rpartition("_")[0] not in percentiles]
    for measured in plain:
        if (measured.metric.primary or len(plain) <= 2) and any(measured.shown.values()):
            values = {label: mine.get(measured.name, _nothing(measured)) for label, mine in known.items()}
            drawn.append(plots.bars(measured, subjects, values))
    drawn += [plots.percentiles(name, subjects) for name in sorted(percentiles)]
    drawn.append(plots.memory(subjects))
    series = {name: kind for subject in subjects for name, kind in subject.report.series.items()}
    drawn += [plots.over_time(name, kind, subjects) for name, kind in series.items()]
    leading = next((measured for measured in plain if measured.metric.primary), None)
    if leading is not None:
        values = {label: mine.get(leading.name, _nothing(leading)) for label, mine in known.items()}
        drawn.append(plots.blocks(leading, subjects, values))
    return [plot for plot in drawn if plot is not None]


def _nothing(measured: Figure) -> Figure:
    return Figure(measured.name, measured.metric, {}, {})


def _subjects(result: Result) -> list[Subject]:
    if result.paired:
        return [Subject(server.name, result.reports[0], server.name) for server in result.reports[0].servers]
    shared = [
        server.name
        for server in result.reports[0].servers
        if all(server.name in {other.name for other in report.servers} for report in result.reports)
    ]
    alone = len(shared) <= 1
    return [
        Subject(label if alone else f"{server.name}, {label}", report, server.name)
        for label, report in zip(result.labels, result.reports, strict=True)
        for server in report.servers
        if server.name in shared or not shared
    ]


def _ratio_plots(result: Result) -> list[Plot]:
    """The ratios with a verdict: a drawing a metric, or one of all metrics where there is one candidate."""
    judged = [c for c in result.comparisons if c.verdict is not None]
    if len(result.candidates) == 1:
        sets = [(f"{result.candidates[0]} against {result.baseline}", judged, "metric")] if judged else []
    else:
        titles = dict.fromkeys(c.metric.title for c in judged)
        sets = [
            (
                f"Ratio of {title}",
                wording.best_first([c for c in judged if c.metric.title == title]),
                "server",
            )
            for title in titles
        ]
    return [
        plots.ratios(title, [_interval(c, first) for c in rows], result.margin) for title, rows, first in sets
    ]


def _interval(comparison: Comparison, first: str) -> tuple[str, float, float, float]:
    name = comparison.metric.title if first == "metric" else comparison.candidate
    estimate = comparison.estimate
    return name, estimate.ratio, estimate.low, estimate.high


def _mood(result: Result) -> str:
    if result.refused or result.missing:
        return "slower"
    verdicts = [c.verdict for c in result.comparisons if c.verdict is not None]
    for verdict in (Verdict.SLOWER, Verdict.FASTER, Verdict.UNCLEAR):
        if verdict in verdicts:
            return verdict.value if len(result.candidates) == 1 else ""
    return Verdict.SAME.value if verdicts else Verdict.UNCLEAR.value


def _comparison_tables(result: Result) -> list[_Table]:
    if not result.comparisons:
        return []
    tables = []
    for title, first, rows in wording.groups(result):
        pair = (rows[0].baseline, rows[0].candidate) if first == "metric" else ("baseline", "this")
        headings = (first, *pair, "ratio", "95% interval", "verdict")
        title = title if first == "metric" else _capital(title)
        parts = [[c for c in rows if c.verdict is not None], [c for c in rows if c.verdict is None]]
        for part, judged in zip(parts, (True, False), strict=True):
            name = (
                title
                if judged
                else (f"{title}, no verdict" if first == "server" else "Also measured, no verdict")
            )
            shown = [_Row(wording.row(c, first), _verdict_mood(c), c.reason) for c in part]
            if judged:
                tables.append(_Table(name, headings, shown))
            else:
                tables.append(
                    _Table(
                        name,
                        headings[:-1],
                        [_Row(r.cells[:-1]) for r in shown],
                        first == "server" or len(rows) > _MANY,
                    )
                )
    return sorted(tables, key=lambda table: table.folded)


def _verdict_mood(comparison: Comparison) -> str:
    return comparison.verdict.value if comparison.verdict is not None else ""


def _report_tables(report: Report) -> list[_Table]:
    """A table of a metric a row and a server a column for few servers, else a table a metric."""
    known = figures(report)
    names = [server.name for server in report.servers]
    if len(names) <= 3:
        rows = [_Row((f.metric.title, *(_shown(f, name) for name in names))) for f in known]
        return [_Table("Figures", ("metric", *names), rows)]
    return [
        _Table(
            _capital(f.metric.title),
            ("server", "median"),
            [_Row((name, _shown(f, name))) for name in f.ranked],
            folded=not f.metric.primary,
        )
        for f in known
    ]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _shown(figure: Figure, server: str) -> str:
    return wording.quantity(figure.shown[server], figure.metric.unit) if server in figure.shown else "–"


def _made(label: str, report: Report) -> str:
    commit = report.revision.commit[:10] or "no git revision"
    dirty = " with changes" if report.revision.dirty else ""
    return f"{label}: made {report.created.replace('T', ' ').replace('Z', ' UTC')}, {commit}{dirty}"


def _facts(labels: Sequence[str], reports: Sequence[Report]) -> list[Facts]:
    """Parameters and environment side by side, what differs marked, and the servers."""
    tables = []
    for title, pick in (
        ("Parameters", lambda r: r.parameters),
        ("Environment", lambda r: {**r.environment, "harness": r.harness, "revision": r.revision.commit}),
    ):
        flat = [dict(flatten(pick(report))) for report in reports]
        names = list(dict.fromkeys(name for facts in flat for name in facts))
        rows = []
        for name in names:
            values = [facts.get(name) for facts in flat]
            cells = (name.replace("_", " "), *map(said, values))
            rows.append(FactRow(cells, differs=any(value != values[0] for value in values)))
        rows.sort(key=lambda row: not row.differs)
        folded = title == "Environment" and len(reports) == 1
        tables.append(Facts(title, rows, ("", *labels), folded))
    servers = {
        server.name
        + ("" if len(reports) == 1 else f", {label}"): f"{server.version}; {' '.join(server.command)}"
        for label, report in zip(labels, reports, strict=True)
        for server in report.servers
    }
    tables.append(Facts("Servers", [FactRow(item) for item in servers.items()], folded=True))
    return tables


def _render(**values: Any) -> str:
    return render("benchmarks.show", "page.html", **values)
