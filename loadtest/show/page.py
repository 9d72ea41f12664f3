"""The report as one HTML file: plots as inline SVG, nothing loaded from anywhere.

Warnings about the generator come first, because they say whether the rest can be believed. Skeleton, style
and drawing are those of the benchmarks' pages (:mod:`benchmarks.reports.page`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from benchmarks.reports.drawing import COLOURS, Plot, inline_svg, legend, plain_log
from benchmarks.reports.histograms import histogram
from benchmarks.reports.page import FactRow, Facts, render
from benchmarks.reports.report import Report
from loadtest.count.run_record import Point, RunRecord
from loadtest.run.options import Plan
from loadtest.show import tables

_FIRST, _SECOND = COLOURS[:2]
_HEIGHT: Final = 2.8
"""Inches."""


def report_page(
    report: Report,
    record: RunRecord,
    plan: Plan,
    users: int,
    *,
    troubles: Sequence[tuple[str, str]] = (),
    running: bool = False,
) -> str:
    """The whole page."""
    points = _whole(record.points())
    pace = tables.pace(record, plan, users)
    told = [fired.message for fired in report.warnings if fired.check in ("knee", "one-run")]
    generator = [
        FactRow([process, tables.health_line(health)])
        for process, health in sorted(record.health.items())
        if process != "master"
    ]
    conditions = [*report.parameters.items(), *report.environment.items()]
    return render(
        "loadtest.show",
        "page.html",
        report=report,
        host=report.servers[0].name,
        users=users,
        model=plan.model,
        running=running,
        warnings=[text for _, text in (*troubles, *tables.warnings(record))],
        notes=[*([pace] if pace else []), *told],
        figures=_figures(record, points),
        percentiles=["p50", "p90", "p99", "p99.9", "max"],
        latencies=tables.latency_rows(record),
        ms=tables.milliseconds,
        plots=_plots(record, points) if points else [],
        errors=[
            (name, group, count, record.samples.get(group, ""))
            for (name, group), count in record.failures.most_common()
        ],
        aborted=record.aborted,
        conditions=[
            Facts("Generator", generator),
            Facts(
                "Parameters and environment",
                [FactRow([name, str(value)]) for name, value in conditions],
                folded=True,
            ),
        ],
    )


def _figures(record: RunRecord, points: list[tuple[int, Point]]) -> list[tuple[str, str]]:
    """What a reader looks for first: a number and what it is."""
    messages = record.messages()
    rates = [point.rate for _, point in points]
    done = messages.passed + messages.failed
    found = [
        (f"{sum(rates) / len(rates):,.0f}/s" if rates else "-", "answered"),
        (f"{messages.failed / done:.2%}" if done else "-", f"of {done:,} requests failed"),
    ]
    counts, kind = (messages.response, "response") if messages.response else (messages.latencies, "service")
    if counts:
        latencies = histogram(counts)
        for label, share in (("median", 50), ("p99", 99)):
            value = latencies.get_value_at_percentile(share) / 1e3
            found.append((f"{tables.milliseconds(value * 1e3)} ms", f"{kind} time, {label}"))
    return found


def _plots(record: RunRecord, points: list[tuple[int, Point]]) -> list[Plot]:
    begin = points[0][0]
    times = [number - begin for number, _ in points]
    drawn = [point for _, point in points]
    kind = "response" if any(point.response for point in drawn) else "service"
    return [
        _lines(
            "Messages a second",
            "Messages answered and requests failed in each second of the run",
            "1/s",
            {
                "answered": (times, [point.rate for point in drawn]),
                "failed": (times, [float(point.failed) for point in drawn]),
            },
        ),
        _latency(f"{kind.capitalize()} time over the run", kind, times, drawn),
        _distribution(record),
        _lines(
            "Open connections",
            "Connections that were open in each second of the run",
            "open",
            {"": (times, [float(point.open) for point in drawn])},
        ),
        *([_latency("Connect time over the run", "connect", times, drawn)] if _several(drawn) else []),
        _lines(
            "Generator",
            "Processor cores that the busiest generating process used, and seconds that its loop was late",
            "",
            {
                "CPU (cores)": (times, [point.cpu for point in drawn]),
                "loop late (s)": (times, [point.lag / 1e6 for point in drawn]),
            },
        ),
    ]


def _whole(points: list[tuple[int, Point]]) -> list[tuple[int, Point]]:
    """The course without its first and last second, of which the run had only a part."""
    return points[1:-1] if len(points) > 3 else points


def _several(points: list[Point]) -> bool:
    """Whether connects were made in more than one second: one point is no course, and stands in the table."""
    return sum(bool(point.connect) for point in points) > 1


Line = tuple[list[int], list[float]]


def _latency(title: str, kind: str, times: list[int], points: list[Point]) -> Plot:
    have = [
        (time, getattr(point, kind))
        for time, point in zip(times, points, strict=True)
        if getattr(point, kind)
    ]
    seconds = [time for time, _ in have]
    lines = {
        label: (seconds, [three[index] / 1e3 for _, three in have])
        for index, label in enumerate(("p50", "p99"))
    }
    caption = f"Median and 99th percentile of the {kind} time in each second, in milliseconds"
    return _lines(title, caption, "ms", lines, log=True)


def _lines(title: str, caption: str, unit: str, lines: dict[str, Line], *, log: bool = False) -> Plot:
    """A plot over the seconds of the run."""

    def draw(axes: Any) -> None:
        for (label, (times, values)), colour in zip(lines.items(), (_FIRST, _SECOND), strict=False):
            marker = "o" if len(times) == 1 else ""  # a line of one point would not be seen
            axes.plot(times, values, color=colour, label=label, marker=marker)
        axes.set_xlabel("seconds")
        axes.set_ylabel(unit)
        if log and any(values for _, values in lines.values()):
            axes.set_yscale("log")
            plain_log(axes.yaxis)
        else:
            axes.set_ylim(bottom=0)
        legend(axes, len([label for label in lines if label]))

    return Plot(title, caption, inline_svg(_HEIGHT, draw))


def _distribution(record: RunRecord) -> Plot:
    messages = record.messages()
    kinds = (("service", messages.latencies, _FIRST), ("response", messages.response, _SECOND))

    def draw(axes: Any) -> None:
        for label, counts, colour in kinds:
            if counts:
                found = histogram(counts)
                shares = [1 - 10 ** (-step / 10) for step in range(1, 51)]
                shares = [share for share in shares if found.get_total_count() * (1 - share) >= 1]
                values = [found.get_value_at_percentile(share * 100) / 1e3 for share in shares]
                axes.plot([1 / (1 - share) for share in shares], values, color=colour, label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        if any(counts for _, counts, _ in kinds):
            plain_log(axes.yaxis)
        ticks = (10, 100, 1000, 10_000, 100_000)
        axes.set_xticks(ticks, ["90%", "99%", "99.9%", "99.99%", "99.999%"])
        axes.set_xlabel("percentile")
        axes.set_ylabel("ms")
        legend(axes, sum(bool(counts) for _, counts, _ in kinds))

    caption = "Latency of messages in milliseconds by percentile, from 20% to the highest that has samples"
    return Plot("Latency by percentile", caption, inline_svg(_HEIGHT, draw))
