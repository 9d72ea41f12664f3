"""A result in words: numbers with units, the verdict in a sentence, Markdown, and tables for a terminal.

A ratio is candidate / baseline with its 95% interval. Verdicts are the words *faster*, *slower*, *same* and
*unclear* everywhere; sentences about memory say *less* and *more*.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from benchmarks.judge.compare import Mean, Result
from benchmarks.judge.statistics import Verdict
from benchmarks.judge.verdicts import Comparison
from benchmarks.show import fired

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_STYLES: Final = {
    Verdict.FASTER: "green",
    Verdict.SLOWER: "bold red",
    Verdict.SAME: "cyan",
    Verdict.UNCLEAR: "yellow",
}
STEPS: Final[dict[str, tuple[tuple[str, float], ...]]] = {
    "µs": (("µs", 1), ("ms", 1e3), ("s", 1e6)),
    "ms": (("ms", 1), ("s", 1e3)),
    "B": (("B", 1), ("KiB", 1024), ("MiB", 1024**2), ("GiB", 1024**3)),
    "KiB": (("KiB", 1), ("MiB", 1024), ("GiB", 1024**2)),
    "MiB": (("MiB", 1), ("GiB", 1024)),
}
_MEMORY_UNITS: Final = ("B", "KiB", "MiB")


def number(value: float) -> str:
    """Three significant digits, thousands apart, no exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 6)}f}"


def quantity(value: float, unit: str) -> str:
    """A number with its unit, in the largest unit that leaves at least 1 of it."""
    for name, size in reversed(STEPS.get(unit, ())):
        if abs(value) >= size:
            return f"{number(value / size)} {name}"
    return f"{number(value)}/s" if unit == "1/s" else f"{number(value)} {unit}".rstrip()


def percent(fraction: float) -> str:
    """A fraction as a percentage, with a decimal where it is below 10%."""
    return f"{fraction:.1%}" if abs(fraction) < 0.0995 else f"{fraction:.0%}"


def ratio(value: float) -> str:
    """A ratio: three decimals near 1, three digits elsewhere."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.3f}" if 0.1 <= value < 10 else number(value)


def interval(comparison: Comparison) -> str:
    """The 95% interval of the ratio, a dash where there is none."""
    estimate = comparison.estimate
    return "-" if estimate.method == "none" else f"{ratio(estimate.low)}–{ratio(estimate.high)}"


def change(comparison: Comparison) -> str:
    """``5.1% more (95% interval 4.2% to 6.0%)``, of one comparison; a factor beyond a doubling."""
    estimate = comparison.estimate
    value, low, high = estimate.ratio, estimate.low, estimate.high
    if value >= 2:
        return f"{value:.1f} times as much (95% interval {low:.1f} to {high:.1f})"
    if value >= 1:
        return f"{percent(value - 1)} more (95% interval {percent(low - 1)} to {percent(high - 1)})"
    return f"{percent(1 - value)} less (95% interval {percent(1 - high)} to {percent(1 - low)})"


def headline(result: Result) -> str:
    """The verdict in a sentence or two, and what was not compared."""
    return _verdicts(result) + (
        f" Not all was compared: {'; '.join(result.missing)}." if result.missing else ""
    )


def _verdicts(result: Result) -> str:
    if result.refused:
        forced = bool(result.comparisons)
        start = "Compared by force, although" if forced else "Not comparable:"
        return f"{start} {'; '.join(result.refused)}." + (f" {_found(result)}" if forced else "")
    return _found(result)


def _found(result: Result) -> str:
    judged = [c for c in result.comparisons if c.verdict is not None]
    if not judged:
        return "No verdict."
    if len(result.candidates) == 1:
        return _one_candidate(judged, result)
    leading = judged[0].metric.title
    said = []
    for verdict in Verdict:
        names = [c.candidate for c in judged if c.metric.title == leading and c.verdict is verdict]
        if names:
            who = f" ({', '.join(names)})" if len(names) <= fired.NAMED else ""
            said.append(
                f"{len(names)} {'is' if len(names) == 1 else 'are'} {_phrase(verdict, judged[0])}{who}"
            )
    base = result.baseline if result.paired else f"their counterparts in {result.baseline}"
    return f"By {leading}, of {len(result.candidates)} compared with {base}: {', '.join(said)}."


def _phrase(verdict: Verdict, comparison: Comparison) -> str:
    memory = comparison.metric.unit in _MEMORY_UNITS
    words = {Verdict.FASTER: "better", Verdict.SLOWER: "worse"} if memory else {}
    return words.get(verdict, verdict.value)


def _one_candidate(judged: Sequence[Comparison], result: Result) -> str:
    name, base = judged[0].candidate, judged[0].baseline
    worse = [c for c in judged if c.verdict is Verdict.SLOWER]
    better = [c for c in judged if c.verdict is Verdict.FASTER]
    same = [c for c in judged if c.verdict is Verdict.SAME]
    parts = []
    for verdict, group in ((Verdict.SLOWER, worse), (Verdict.FASTER, better)):
        if group:
            also = f", and also by {_titles(group[1:])}" if len(group) > 1 else ""
            figure = f"{group[0].metric.title} is {change(group[0])}{also}"
            parts.append(f"{_phrase(verdict, group[0])} than {base}: {figure}")
    if parts:
        return f"{name} is {', and '.join(parts)}."
    if len(same) == len(judged):
        what = judged[0].metric.title if len(judged) == 1 else f"all {len(judged)} metrics judged"
        return f"{name} and {base} are the same within {percent(result.margin)}: {what}."
    open_ones = [c for c in judged if c.verdict is Verdict.UNCLEAR]
    known = f" The same within {percent(result.margin)}: {_titles(same)}." if same else ""
    return (
        f"It is unclear whether {name} differs from {base}: {_titles(open_ones)} "
        f"({open_ones[0].reason}).{known}"
    )


def _titles(comparisons: Iterable[Comparison]) -> str:
    return ", ".join(comparison.metric.title for comparison in comparisons)


def reasons(result: Result) -> list[str]:
    """Why verdicts are unclear, a line for each reason that the headline does not give."""
    found: dict[str, list[str]] = {}
    several = len(result.candidates) > 1
    for c in result.comparisons:
        if c.verdict is Verdict.UNCLEAR and c.reason not in headline(result):
            who = f"{c.candidate}, {c.metric.title}" if several else c.metric.title
            found.setdefault(c.reason, []).append(who)
    return [f"unclear: {'; '.join(whose)}: {reason}" for reason, whose in found.items()]


def method(result: Result) -> str:
    """How the ratios came about, in a sentence."""
    if not result.comparisons:
        return ""
    used = {c.estimate.method for c in result.comparisons if c.verdict is not None}
    if not result.paired:
        of, spread = "two runs", "a run's blocks"
        if all(result.runs):
            counts = " and ".join(str(len(made)) for made in result.runs)
            of = f"{counts} runs, a sample each" if max(map(len, result.runs)) > 1 else "one run a side"
            spread = "runs"
        tested = ", 95% bootstrap interval, Mann-Whitney test" if "mann-whitney" in used else ""
        return (
            f"unpaired: ratio of the medians of {of}{tested}; "
            f"margin {percent(result.margin)}, or the spread of {spread} where that is wider"
        )
    tests = {
        "wilcoxon": "exact Wilcoxon test",
        "t": "Student's t on logarithms",
        "pooled-t": "Student's t on logarithms, scatter pooled over the servers",
    }
    names = " and ".join(text for key, text in tests.items() if key in used) or "no test"
    blocks = max((c.estimate.n for c in result.comparisons), default=0)
    return (
        f"paired: ratios in {blocks} block{'' if blocks == 1 else 's'} of one run, "
        f"Hodges-Lehmann estimate, 95% interval, {names}, "
        f"Holm's correction for each metric; "
        f"margin {percent(result.margin)}, or the noise floor where that is wider"
    )


def legend(result: Result) -> str:
    """What a dash for a verdict means; empty where every metric has one."""
    some = any(comparison.verdict is None for comparison in result.comparisons)
    return "verdict –: measured beside the others, takes no part in verdicts" if some else ""


def verdict_text(comparison: Comparison) -> str:
    """The verdict, a dash for a metric that takes no part."""
    return comparison.verdict.value if comparison.verdict is not None else "–"


def groups(result: Result) -> list[tuple[str, str, list[Comparison]]]:
    """What the tables show: (title, heading of the first column, rows).

    One candidate: one table with a metric a row. Several: a table a metric, with a candidate a row, the best
    one first.
    """
    if len(result.candidates) == 1:
        return [
            (f"{result.candidates[0]} against {result.comparisons[0].baseline}", "metric", result.comparisons)
        ]
    by_metric: dict[str, list[Comparison]] = {}
    for comparison in result.comparisons:
        by_metric.setdefault(comparison.name, []).append(comparison)
    return [(rows[0].metric.title, "server", best_first(rows)) for rows in by_metric.values()]


def best_first(rows: list[Comparison]) -> list[Comparison]:
    """Comparisons by one metric in the order of their ratios; what has no ratio comes last."""
    higher = rows[0].metric.better == "higher"

    def key(comparison: Comparison) -> tuple[bool, float]:
        found = comparison.estimate
        return not found.n, -found.ratio if higher else found.ratio

    return sorted(rows, key=key)


def row(comparison: Comparison, first_column: str) -> tuple[str, ...]:
    """The cells of one comparison: name, baseline, candidate, ratio, interval, verdict."""
    unit = comparison.metric.unit
    name = comparison.metric.title if first_column == "metric" else comparison.candidate
    return (
        name,
        quantity(comparison.values[0], unit),
        quantity(comparison.values[1], unit),
        ratio(comparison.estimate.ratio),
        interval(comparison),
        verdict_text(comparison),
    )


def mean_line(mean: Mean) -> str:
    """A geometric mean with what it is of."""
    of = f"geometric mean of {mean.servers} servers' ratios"
    return f"{mean.title}, {mean.candidate}: {of} {ratio(mean.ratio)}"


def markdown(result: Result) -> str:
    """The result as Markdown for a pull request or a README."""
    lines = [f"**{headline(result)}**", ""]
    for title, first, rows in groups(result):
        names = (
            (title, result.baseline, "this")
            if first == "server"
            else (first, result.baseline, rows[0].candidate)
        )
        lines.append("| " + " | ".join(map(_escape, (*names, "ratio", "95% interval", "verdict"))) + " |")
        lines.append("|---|---:|---:|---:|---:|---|")
        lines += ["| " + " | ".join(map(_escape, row(c, first))) + " |" for c in rows]
        lines.append("")
    lines += [f"- {mean_line(mean)}" for mean in result.means]
    if result.comparisons:
        lines += [f"- {line}" for line in (method(result), legend(result)) if line]
    lines += [f"- {_escape(note)}" for note in (*reasons(result), *result.notes, *result.differences)]
    lines += [f"- {_escape(text)}" for text in fired.each(result)]
    return "\n".join(lines).rstrip() + "\n"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def print_result(result: Result, console: Console, verbose: bool = False) -> None:
    """The verdict, the tables and what a reader should know, on a terminal of 80 columns or more."""
    from rich.text import Text

    console.print(Text(headline(result), style="bold"))
    unjudged: list[str] = []
    for title, first, rows in groups(result):
        if first == "server" and all(c.verdict is None for c in rows):
            unjudged.append(title)
            continue
        console.print()
        console.print(_table(title, first, rows))
    if unjudged:
        console.print(Text(f"also measured, without verdict (--html, --markdown): {', '.join(unjudged)}"))
    for mean in result.means:
        console.print(Text(mean_line(mean)))
    console.print()
    if result.comparisons:
        for line in filter(None, (method(result), legend(result))):
            console.print(Text(line, style="dim"))
    for line in reasons(result):
        console.print(Text(line, style="yellow"))
    for note in (*result.notes, *result.differences):
        console.print(Text(f"note: {note}", style="dim"))
    for line in fired.each(result) if verbose else fired.grouped(result):
        console.print(Text(f"warning: {line}", style="yellow"))


def _table(title: str, first: str, rows: Sequence[Comparison]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title, style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
    )
    table.add_column(Text(first), ratio=None, overflow="fold")
    for heading in ("baseline", "this" if first == "server" else "candidate", "ratio", "95% interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for comparison in rows:
        cells = row(comparison, first)
        style = _STYLES[comparison.verdict] if comparison.verdict is not None else "dim"
        table.add_row(*map(Text, cells[:-1]), Text(cells[-1], style=style))
    return table
