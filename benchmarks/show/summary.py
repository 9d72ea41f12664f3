"""The table at the end of a run: what the scenario asked for first, in words short enough for 80 columns.

Rows are in the order of the first figure, the best one first. A column that has no room is left out, and the
lines below the table name it; they also say what the short headings stand for, what a ≥ means, and why there
is a dash.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from benchmarks.reports.figures import Figure, by_block, figures, saturated
from benchmarks.reports.report import Report
from benchmarks.show.wording import STEPS, number

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "paced": ("latency_p50", "latency_p99", "highest_rate", "server_cpu_us_per_message"),
    "idle": ("idle_ratio", "latency_p50", "latency_p99", "longest_wait_ms", "server_cpu_us_per_message"),
    "connections": (
        "server_cpu_us_per_connection", "first_reply_p50", "first_reply_p99", "connections_per_second",
    ),
    "churn": ("server_cpu_us_per_session", "session_p50", "session_p99", "sessions_per_second"),
    "memory": ("user_kib_per_connection", "kernel_kib_per_connection", "first_mib"),
    "tls": ("server_cpu_us_per_message", "server_cpu_us_per_handshake", "messages_per_second"),
    "push": ("server_cpu_us_per_delivery", "latency_p50", "latency_p99", "deliveries_per_second"),
    "rooms": ("server_cpu_us_per_delivery", "deliveries_per_call", "latency_p99", "deliveries_per_second"),
    "stuck": ("latency_p50", "latency_p99", "memory_mib", "server_cpu_us_per_delivery"),
}  # fmt: skip
"""What answers a scenario's question, in this order; others show the metrics that take part in verdicts."""
SHORT: Final = {
    "server_cpu_us_per_message": "CPU/msg",
    "server_user_us_per_message": "user/msg",
    "server_system_us_per_message": "sys/msg",
    "machine_cpu_us_per_message": "all/msg",
    "messages_per_second": "msgs",
    "highest_rate": "max rate",
    "idle_ratio": "CPU ratio",
    "alone_cpu_us_per_message": "alone/msg",
    "gc_pause_max_ms": "gc pause",
    "longest_wait_ms": "longest",
    "server_cpu_us_per_connection": "CPU/conn",
    "connections_per_second": "conns",
    "server_cpu_us_per_session": "CPU/sess",
    "sessions_per_second": "sessions",
    "user_kib_per_connection": "server",
    "kernel_kib_per_connection": "kernel",
    "total_kib_per_connection": "both",
    "first_mib": "at start",
    "server_cpu_us_per_handshake": "CPU/hands",
    "server_cpu_us_per_delivery": "CPU/deliv",
    "machine_cpu_us_per_delivery": "all/deliv",
    "deliveries_per_second": "deliv",
    "deliveries_per_call": "deliv/call",
    "memory_mib": "memory",
}
"""Headings; a percentile is headed by its name (p50)."""
WHY_NONE: Final = {
    "highest_rate": "no highest rate was sought (--bound-ms 0), or none was under the bound",
    "deliveries_per_call": "system calls were not counted: that takes a C compiler",
}
NAME_COLUMNS: Final = 26
"""A longer name of a server is folded."""
GAP: Final = 3
"""Columns between two columns."""
WIDE: Final = 130
"""From so many columns on, all metrics are shown."""


@dataclass
class _Column:
    heading: str
    cells: dict[str, str]
    legend: str = ""

    @property
    def width(self) -> int:
        lines = [*self.heading.split("\n"), *self.cells.values()]
        return max(map(len, lines), default=0)


@dataclass
class Summary:
    """A table and the lines below it."""

    table: Table
    legend: list[str] = field(default_factory=list)


def short(figure: Figure) -> str:
    """A heading of two lines: a short name, and the unit."""
    name = SHORT.get(figure.name) or figure.name.rpartition("_")[2]
    if name == figure.name:
        name = figure.metric.title
    _, unit = _scale(figure)
    return f"{name}\n{unit.replace('1/s', 'a second')}"


def _scale(figure: Figure) -> tuple[float, str]:
    """The largest unit that leaves at least 1 of it to every server, and how many of the metric's it is."""
    least = min(map(abs, figure.shown.values()), default=0)
    fitting = [(size, name) for name, size in STEPS.get(figure.metric.unit, ()) if least >= size]
    return max(fitting, default=(1.0, figure.metric.unit))


def chosen(report: Report, width: int) -> list[Figure]:
    """The figures to show, the one that the rows are ordered by first; only such as some server has."""
    known = {figure.name: figure for figure in figures(report) if figure.shown}
    names = list(COLUMNS.get(report.scenario, ())) or [n for n, f in known.items() if f.metric.primary]
    if width >= WIDE:
        names += [name for name in known if name in report.metrics and name not in names]
    return [known[name] for name in names if name in known]


def _value(report: Report, figure: Figure, server: str) -> str:
    if server not in figure.shown:
        return "–"
    said = number(figure.shown[server] / _scale(figure)[0])
    return f"≥{said}" if figure.metric.when_saturated and not saturated(report, server) else said


def _ratios(report: Report, figure: Figure) -> dict[str, str]:
    """For each server the median of its blocks' ratios to the first server, and their range."""
    base = by_block(figure.samples.get(report.servers[0].name, ()))
    found = {}
    for server, samples in figure.samples.items():
        own = by_block(samples)
        ratios = [own[block] / base[block] for block in own.keys() & base.keys()]
        if ratios:
            ends = "–".join(
                f"{end(ratios):.2f}" if end(ratios) < 10 else number(end(ratios)) for end in _ENDS
            )
            found[server] = f"{number(statistics.median(ratios))} ({ends})"
    return found


_ENDS: Final[tuple[Callable[[Iterable[float]], float], ...]] = (min, max)


def _busy(report: Report, server: str) -> str:
    trials = report.trials_of(server)
    shares = [
        f"{statistics.median(trial.cpu[who] for trial in trials):.0%}"
        for who in ("server", "generator")
        if trials and all(who in trial.cpu for trial in trials)
    ]
    return " ".join(shares) or "–"


def summarize(report: Report, width: int) -> Summary:
    """The table of a report that fits ``width`` columns, and what a reader has to know of it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = chosen(report, width)
    servers = [server.name for server in report.servers]
    columns = [_Column(short(f), {s: _value(report, f, s) for s in servers}, f.metric.title) for f in shown]
    if shown:
        leading = shown[0]
        sign = -1 if leading.metric.better == "higher" else 1
        servers.sort(key=lambda s: (s not in leading.shown, sign * leading.shown.get(s, 0)))
        ratios = _ratios(report, leading)
        heading = f"ratio of\n{short(leading).partition(chr(10))[0]}"
        columns.insert(1, _Column(heading, {s: ratios.get(s, "–") for s in servers}))
    busy = _Column("busy\nserver gen.", {s: _busy(report, s) for s in servers})
    if any(cell != "–" for cell in busy.cells.values()):
        columns.append(busy)
    left_out = _fit(columns, width - min(NAME_COLUMNS, max(map(len, servers), default=0)))
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1),
    )
    table.add_column("server", overflow="fold", max_width=NAME_COLUMNS)
    for column in columns:
        table.add_column(Text(column.heading), justify="right", no_wrap=True)
    for server in servers:
        table.add_row(Text(server), *(Text(column.cells[server]) for column in columns))
    return Summary(table, _legend(report, shown, columns, left_out, servers))


def _fit(columns: list[_Column], room: int) -> list[_Column]:
    """Take columns off the end until the others have room: but for the first figure and its ratio."""
    left_out: list[_Column] = []
    while len(columns) > 2 and sum(column.width + GAP for column in columns) > room:
        left_out.insert(0, columns.pop())
    return left_out


def _legend(
    report: Report,
    shown: Sequence[Figure],
    columns: Sequence[_Column],
    left_out: Sequence[_Column],
    servers: Sequence[str],
) -> list[str]:
    said: dict[str, list[str]] = {}
    for c in columns:
        if c.legend:  # percentiles of one histogram share their words
            title, _, percentile = c.legend.rpartition(", ")
            name = c.heading.partition("\n")[0]
            said.setdefault(title if percentile == name else c.legend, []).append(name)
    lines = ["; ".join(f"{', '.join(names)}: {title}" for title, names in said.items())] if said else []
    if lines and any("ratio of" in column.heading for column in columns):
        lines[0] += f"; ratio: to {report.servers[0].name}, median of the blocks (range)"
    if left_out:
        named = ", ".join(column.legend or "how busy server and generator were" for column in left_out)
        lines.append(f"no room at this width for: {named}")
    if any(cell.startswith("≥") for column in columns for cell in column.cells.values()):
        lines.append("≥: the server was not saturated in every trial, and may do more")
    missing = [name for name in COLUMNS.get(report.scenario, ()) if name not in {f.name for f in shown}]
    lines += [f"not shown: {WHY_NONE[name]}" for name in missing if name in WHY_NONE]
    for figure in shown:
        without = [server for server in servers if server not in figure.shown]
        if without:
            why = _why_none(report, figure, without)
            lines.append(f"–: {figure.metric.title}: {', '.join(without)}: {why}")
    return lines


def _why_none(report: Report, figure: Figure, servers: Sequence[str]) -> str:
    failed = [f.message for f in report.warnings if f.server in servers and f.check == "trial-failed"]
    if failed:
        return failed[-1]
    if not any(report.trials_of(server) for server in servers):
        return "not measured"
    if figure.name in WHY_NONE:
        return WHY_NONE[figure.name]
    if figure.name not in report.metrics:
        return "too few were recorded for this percentile"
    if not any(trial.messages for server in servers for trial in report.trials_of(server)):
        return "nothing was confirmed"
    return "not measured of this server"
