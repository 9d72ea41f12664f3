"""Everything that a report or a comparison can be drawn as (:mod:`benchmarks.reports.drawing` says how)."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.reports.drawing import (
    BAND,
    COLOURS,
    INK,
    Plot,
    colour,
    inline_svg,
    legend,
    legend_height,
    panels,
    plain_log,
    short,
    thousands,
)
from benchmarks.reports.figures import Figure as Measured
from benchmarks.reports.figures import by_block, merged
from benchmarks.reports.histograms import MIN_ABOVE
from benchmarks.reports.report import Report, SeriesKind

TOGETHER: Final = 4
"""Most subjects that one drawing shows as lines; with more, each has a small one of its own."""

_FIRST_TAIL: Final = -math.log10(0.9)


Look = dict[str, Any]
"""How a line is drawn: Matplotlib's ``color``, ``linestyle`` and ``label``."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One server of one report, under the name that the page gives it."""

    label: str
    report: Report
    server: str


def ratios(title: str, rows: Sequence[tuple[str, float, float, float]], margin: float) -> Plot:
    """(label, ratio, low, high) with the baseline's 1 as a line and the margin as a band around it."""

    def draw(axes: Any) -> None:
        axes.axvspan(1 / (1 + margin), 1 + margin, color=BAND, linewidth=0)
        axes.axvline(1, color=INK, linewidth=0.8)
        for place, (_, value, low, high) in enumerate(rows):
            if math.isfinite(high) and low > 0:
                axes.plot([low, high], [place, place], color=COLOURS[0], linewidth=2.4, solid_capstyle="butt")
            axes.plot([value], [place], "o", color=COLOURS[0], markersize=5)
        axes.set_yticks(range(len(rows)), [_folded(label) for label, *_ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        spread = [bound for _, v, low, high in rows for bound in (v, low, high) if 0 < bound < math.inf]
        if max([1.0, *spread]) / min([1.0, *spread]) > 2.5:
            axes.set_xscale("log")
            plain_log(axes.xaxis)
        axes.set_xlabel("ratio to the baseline, 95% interval")

    caption = f"{title}: " + "; ".join(f"{label} {value:.3f}" for label, value, *_ in rows)
    height = _height(len(rows)) + 0.17 * sum(_folded(label).count("\n") for label, *_ in rows)
    return Plot(title, caption, inline_svg(height, draw))


def bars(measured: Measured, subjects: Sequence[Subject], values: Mapping[str, Measured]) -> Plot:
    """A metric: a bar to each subject's figure, and a dot for every trial."""
    shown = [(s, values[s.label].shown[s.server]) for s in subjects if s.server in values[s.label].shown]
    metric = measured.metric

    def draw(axes: Any) -> None:
        for place, (subject, value) in enumerate(shown):
            axes.barh(place, value, height=0.62, color=COLOURS[0], alpha=0.35, linewidth=0)
            samples = values[subject.label].samples[subject.server]
            step = 0.5 / max(1, len(samples) - 1)
            heights = [place - 0.25 + step * index for index in range(len(samples))]
            dots = [sample.value for sample in samples]
            axes.plot(dots, heights, "o", color=COLOURS[0], markersize=3, linestyle="none")
        axes.set_yticks(range(len(shown)), [short(subject.label) for subject, _ in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.grid(axis="y", visible=False)
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel(f"{metric.unit} ({metric.better} is better); a dot is a trial")
        thousands(axes.xaxis)

    caption = f"{metric.title} in {metric.unit}: " + "; ".join(f"{s.label} {v:,.4g}" for s, v in shown)
    return Plot(metric.title[:1].upper() + metric.title[1:], caption, inline_svg(_height(len(shown)), draw))


def percentiles(name: str, subjects: Sequence[Subject]) -> Plot | None:
    """Latency over percentile with a logarithmic tail, as far as 10 values lie above; None without any."""
    lines = []
    for index, subject in enumerate(subjects):
        histogram = (
            merged(subject.report, subject.server, name) if name in subject.report.histograms else None
        )
        count = histogram.get_total_count() if histogram is not None else 0
        if histogram is None or count < 2 * MIN_ABOVE:
            continue
        unit = subject.report.histograms[name].unit_seconds * 1e3
        last = math.log10(count / MIN_ABOVE)
        # From the 10th percentile: the least of millions says nothing, and would stretch the scale to it.
        tails = [_FIRST_TAIL + (last - _FIRST_TAIL) * step / 60 for step in range(61)]
        latencies = [histogram.get_value_at_percentile(100 * (1 - 10**-tail)) * unit for tail in tails]
        lines.append((index, subject, [10**tail for tail in tails], latencies))
    if not lines:
        return None
    kind = lines[0][1].report.histograms[name]

    longest = max(tails[-1] for _, _, tails, _ in lines)

    def line(axes: Any, which: int, look: Look) -> None:
        _, _, tails, latencies = lines[which]
        axes.plot(tails, latencies, linewidth=1.6, **look)

    def finish(axes: Any) -> None:
        axes.set_xscale("log")
        axes.set_yscale("log")
        plain_log(axes.yaxis)
        marks = [(2, "50%"), (10, "90%"), (100, "99%"), (1e3, "99.9%"), (1e4, "99.99%"), (1e5, "99.999%")]
        kept = [(place, text) for place, text in marks if place <= longest * 1.05]
        if len(lines) > TOGETHER:
            kept = kept[::2]
        axes.set_xticks([place for place, _ in kept], [text for _, text in kept], rotation=0)
        axes.minorticks_off()
        axes.set_xlim(10**_FIRST_TAIL, longest)
        axes.set_xlabel("percentile")
        axes.set_ylabel("milliseconds")

    rest = "" if kind.open_schedule else "; closed loop: not corrected for coordinated omission"
    caption = f"{kind.title}: milliseconds by percentile{rest}"
    return _lines(kind.title, caption, 2.9, [subject for _, subject, *_ in lines], line, finish)


def memory(subjects: Sequence[Subject]) -> Plot | None:
    """Memory over connections held: every plateau as a dot, a line through each subject's medians."""
    found = [
        (index, subject, plateaus)
        for index, subject in enumerate(subjects)
        if (plateaus := [p for trial in subject.report.trials_of(subject.server) for p in trial.memory])
    ]
    if not found:
        return None

    def line(axes: Any, which: int, look: Look) -> None:
        plateaus = found[which][2]
        held = sorted({plateau["connections"] for plateau in plateaus})
        middle = [
            statistics.median(p["user_bytes"] for p in plateaus if p["connections"] == count) / 2**20
            for count in held
        ]
        axes.plot(held, middle, linewidth=1.4, **look)
        dots = [(p["connections"], p["user_bytes"] / 2**20) for p in plateaus]
        axes.plot(*zip(*dots, strict=True), "o", color=look["color"], markersize=2.6, linestyle="none")

    def finish(axes: Any) -> None:
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.set_xlabel("connections held")
        axes.set_ylabel("MiB (PSS)")
        axes.locator_params(axis="x", nbins=5 if len(found) <= TOGETHER else 3)
        thousands(axes.xaxis)
        thousands(axes.yaxis)

    caption = "memory of the server's processes by connections held"
    return _lines("memory over connections", caption, 2.7, [subject for _, subject, _ in found], line, finish)


def over_time(name: str, kind: SeriesKind, subjects: Sequence[Subject]) -> Plot | None:
    """A series: every trial as a line, coloured by subject; None where no line has two points."""
    lines = [(index, subject, _series(subject, name)) for index, subject in enumerate(subjects)]
    found = [line for line in lines if any(len(points) > 1 for points in line[2])]
    if not found:
        return None

    def line(axes: Any, which: int, look: Look) -> None:
        series = found[which][2]
        strength = 0.9 if len(series) == 1 else 0.5
        for number, points in enumerate(series):
            if number:
                look = {**look, "label": None}
            axes.plot(*zip(*points, strict=True), linewidth=1.1, alpha=strength, **look)

    def finish(axes: Any) -> None:
        axes.set_ylim(bottom=0)
        axes.set_xlabel("seconds")
        axes.set_ylabel(kind.unit)
        thousands(axes.yaxis)

    title = kind.title.removesuffix(" over time")  # said once, and apart from the title of the metric's bars
    caption = f"{title} in {kind.unit} over time"
    return _lines(f"{title} over time", caption, 2.5, [subject for _, subject, _ in found], line, finish)


def _series(subject: Subject, name: str) -> list[list[tuple[float, float]]]:
    """The lines of a subject: one a trial, or one a run where the trials are stretches of Locust runs."""
    lines = [t.series[name] for t in subject.report.trials_of(subject.server) if t.series.get(name)]
    if subject.report.kind != "locust":
        return lines
    joined: list[list[tuple[float, float]]] = []
    for line in lines:
        if joined and line[0][0] > joined[-1][-1][0]:
            joined[-1] = joined[-1] + line
        else:  # times begin anew: another run
            joined.append(line)
    return joined


def blocks(measured: Measured, subjects: Sequence[Subject], values: Mapping[str, Measured]) -> Plot | None:
    """A metric block by block, which shows drift; None where there are fewer than 3 blocks."""
    found = [
        (index, subject, by_block(values[subject.label].samples[subject.server]))
        for index, subject in enumerate(subjects)
        if subject.server in values[subject.label].samples
    ]
    if max((len(line) for _, _, line in found), default=0) < 3:
        return None

    every = [value for _, _, values in found for value in values.values()]

    def line(axes: Any, which: int, look: Look) -> None:
        by_number = found[which][2]
        numbers = [block + 1 for block in sorted(by_number)]  # as the terminal counts them
        heights = [by_number[block] for block in sorted(by_number)]
        axes.plot(numbers, heights, marker="o", markersize=3, linewidth=1.1, **look)

    def finish(axes: Any) -> None:
        if max(every) > 4 * min(every):
            axes.set_yscale("log")
            plain_log(axes.yaxis)
        else:
            thousands(axes.yaxis)
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("block, in the order measured")
        axes.set_ylabel(measured.metric.unit)

    title = f"{measured.metric.title}, block by block"
    caption = f"{measured.metric.title} in {measured.metric.unit}, by block"
    return _lines(title, caption, 2.6, [subject for _, subject, _ in found], line, finish)


def trend(
    title: str, unit: str, names: Sequence[str], lines: Mapping[str, Sequence[tuple[int, float]]]
) -> Plot:
    """History: a line a server over the reports, which are named ``names`` in order."""

    def draw(axes: Any) -> None:
        for index, (server, points) in enumerate(lines.items()):
            shade, style = colour(index)
            axes.plot(
                *zip(*points, strict=True),
                color=shade,
                linestyle=style,
                marker="o",
                markersize=4,
                label=short(server),
            )
        every = [value for points in lines.values() for _, value in points]
        if min(every) > 0 and max(every) > 5 * min(every):
            axes.set_yscale("log")
            plain_log(axes.yaxis)
        else:
            axes.set_ylim(bottom=0)
            thousands(axes.yaxis)
        step = max(1, math.ceil(len(names) / 5))
        axes.set_xticks(range(0, len(names), step), names[::step])
        axes.set_xlim(-0.3, len(names) - 0.7)
        axes.set_ylabel(unit)
        legend(axes, len(lines))

    caption = f"{title} in {unit}, a point a report"
    return Plot(title[:1].upper() + title[1:], caption, inline_svg(2.6 + legend_height(len(lines)), draw))


def _lines(
    title: str,
    caption: str,
    height: float,
    subjects: Sequence[Subject],
    line: Callable[[Any, int, Look], None],
    finish: Callable[[Any], None],
) -> Plot:
    """Lines of all subjects in one drawing; of many, each in a small one beside the first one's in grey."""
    title = title[:1].upper() + title[1:]
    labels = [short(subject.label) for subject in subjects]
    if len(subjects) <= TOGETHER:

        def draw(axes: Any) -> None:
            for which, label in enumerate(labels):
                shade, style = colour(which)
                line(axes, which, {"color": shade, "linestyle": style, "label": label})
            finish(axes)
            legend(axes, len(subjects))

        return Plot(title, caption, inline_svg(height + legend_height(len(subjects)), draw))

    def draw_one(axes: Any, which: int) -> None:
        if which:
            line(axes, 0, {"color": COLOURS[-1], "linestyle": "-", "label": None})
        line(axes, which, {"color": COLOURS[0], "linestyle": "-", "label": None})

    return Plot(title, f"{caption}; in grey beside each: {labels[0]}", panels(labels, draw_one, finish))


def _height(rows: int) -> float:
    return 0.85 + 0.34 * max(1, rows)


def _folded(label: str) -> str:
    """A label in lines of 24 characters."""
    return textwrap.fill(label, 24)
