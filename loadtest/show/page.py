"""The report as one HTML file: plots as inline SVG, nothing loaded from anywhere.

Warnings about the generator come first, because they say whether the rest can be believed.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.resources import files
from typing import Any, Final

import numpy as np
from jinja2 import Environment
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.report import Report
from loadtest.count.histograms import histogram
from loadtest.count.run_record import Point, RunRecord
from loadtest.run.options import Plan
from loadtest.show import tables

_COLOURS: Final = {"p50": "#2563eb", "p99": "#dc2626", "first": "#059669", "second": "#d97706"}


def report_page(report: Report, record: RunRecord, plan: Plan, users: int) -> str:
    """The whole page."""
    points = record.points()
    pace = tables.pace(record, plan, users)
    told = [fired.message for fired in report.warnings if fired.check in ("knee", "one-run")]
    conditions = [*report.parameters.items(), *report.environment.items()]
    template = Environment(autoescape=True, trim_blocks=True).from_string(
        files("loadtest.show").joinpath("page.html").read_text("utf-8")
    )
    return template.render(
        report=report,
        host=report.servers[0].name,
        users=users,
        model=plan.model,
        warnings=[text for _, text in tables.warnings(record)],
        notes=[*([pace] if pace else []), *told],
        latencies=tables.latency_rows(record),
        ms=tables.milliseconds,
        plots=_plots(record, points) if points else [],
        errors=[
            (name, group, count, record.samples.get(group, ""))
            for (name, group), count in record.failures.most_common()
        ],
        aborted=record.aborted,
        generator=[
            (process, tables.health_line(health))
            for process, health in sorted(record.health.items())
            if process != "master"
        ],
        conditions=conditions,
    )


def _plots(record: RunRecord, points: list[tuple[int, Point]]) -> list[tuple[str, Markup]]:
    begin = points[0][0]
    times = [number - begin for number, _ in points]
    drawn = [point for _, point in points]
    kind = "response" if any(point.response for point in drawn) else "service"

    def latency(kind: str, axes: Axes) -> None:
        have = [
            (time, getattr(point, kind))
            for time, point in zip(times, drawn, strict=True)
            if getattr(point, kind)
        ]
        for index, label in enumerate(("p50", "p99")):
            axes.plot(
                [time for time, _ in have],
                [three[index] / 1e3 for _, three in have],
                _COLOURS[label],
                label=label,
            )
        axes.set_ylabel("ms")
        axes.set_yscale("log")
        axes.legend(frameon=False)

    def rate(axes: Axes) -> None:
        axes.plot(times, [point.rate for point in drawn], _COLOURS["first"], label="answered")
        axes.plot(times, [point.failed for point in drawn], _COLOURS["p99"], label="failed")
        axes.set_ylabel("1/s")
        axes.legend(frameon=False)

    def connections(axes: Axes) -> None:
        axes.plot(times, [point.open for point in drawn], _COLOURS["first"])
        axes.set_ylabel("open")

    def generator(axes: Axes) -> None:
        axes.plot(times, [point.cpu for point in drawn], _COLOURS["first"], label="CPU (cores)")
        axes.plot(times, [point.lag / 1e6 for point in drawn], _COLOURS["second"], label="loop late (s)")
        axes.legend(frameon=False)

    def distribution(axes: Axes) -> None:
        messages = record.messages()
        for label, counts, colour in (
            ("service", messages.service, _COLOURS["p50"]),
            ("response", messages.response, _COLOURS["p99"]),
        ):
            if counts:
                found = histogram(counts)
                shares = [1 - 10 ** (-step / 10) for step in range(1, 51)]
                shares = [share for share in shares if found.get_total_count() * (1 - share) >= 1]
                values = [found.get_value_at_percentile(share * 100) / 1e3 for share in shares]
                axes.plot([1 / (1 - share) for share in shares], values, colour, label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        ticks = (10, 100, 1000, 10_000, 100_000)
        axes.set_xticks(ticks, ["90%", "99%", "99.9%", "99.99%", "99.999%"])
        axes.set_xlabel("percentile")
        axes.set_ylabel("ms")
        axes.legend(frameon=False)

    wanted: list[tuple[str, Callable[[Axes], None]]] = [
        ("Messages a second", rate),
        (f"{kind.capitalize()} time over the run", lambda axes: latency(kind, axes)),
        ("Latency by percentile", distribution),
        ("Open connections", connections),
        ("Connect time over the run", lambda axes: latency("connect", axes)),
        ("Generator", generator),
    ]
    return [(title, _draw(draw)) for title, draw in wanted]


def _draw(draw: Callable[[Axes], None]) -> Markup:
    drawing = Figure(figsize=(6, 2.8), layout="constrained")
    axes = drawing.add_subplot()
    draw(axes)
    if not axes.get_xlabel():
        axes.set_xlabel("seconds")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_yscale() == "linear":
        axes.set_ylim(bottom=0)
    for line in axes.get_lines():
        if len(np.atleast_1d(line.get_xdata())) == 1:
            line.set_marker("o")  # a line of one point would not be seen
    if not any(len(np.atleast_1d(line.get_xdata())) for line in axes.get_lines()):
        return Markup("<p>Nothing was measured.</p>")
    text: Any = io.StringIO()
    drawing.savefig(text, format="svg", metadata={"Date": None})
    svg: str = text.getvalue()
    return Markup(svg[svg.index("<svg") :])
