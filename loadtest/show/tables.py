"""From a tally to what people read: figures for conditions, the summary's text, warnings.

The same functions feed the console, the web page, the report and the exit status, so that they can't
disagree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from loadtest.client.address import ports_per_address
from loadtest.count.counters import Kept, histogram, samples_needed
from loadtest.count.health import Health, verdicts
from loadtest.count.run_record import Tally, measured_seconds
from loadtest.run.options import Plan

PERCENTS = (50.0, 90.0, 99.0, 99.9)


def percentiles(counts: dict[int, int], percents: tuple[float, ...] = PERCENTS) -> list[float | None]:
    """Percentiles in microseconds; None where fewer than 10 samples lie beyond, which is too few to say."""
    if not counts:
        return [None for _ in percents]
    found = histogram(counts)
    samples = found.get_total_count()
    return [
        float(found.get_value_at_percentile(percent)) if samples >= samples_needed(percent) else None
        for percent in percents
    ]


def milliseconds(microseconds: float | None) -> str:
    """For a table."""
    return "-" if microseconds is None else f"{microseconds / 1e3:,.3f}"


class Figures(Mapping[str, float | None]):
    """What conditions can ask for: ``p99``, ``service.p99``, ``errors``, ``error_share``, ``rate`` ..."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.messages = tally.messages()
        points = tally.points()
        full = [
            point
            for second, point in points[:-1]  # the last one is being filled
            if second >= tally.spawned_at and second + 1 <= tally.stopping_at
        ]
        full = full or [point for _, point in points]
        seconds = measured_seconds(point.spans for point in full)
        failed = sum(kept.failed for kept in tally.entries.values())
        requests = failed + sum(kept.passed for kept in tally.entries.values())
        self._plain: dict[str, float | None] = {
            "errors": float(failed),
            "error_share": failed / requests if requests else None,
            "rate": sum(point.messages for point in full) / seconds if seconds else None,
            "aborted": float(tally.aborted),
            "connections": float(max((point.open for _, point in points), default=0)),
        }

    def _counts(self, kind: str) -> dict[int, int]:
        if kind == "connect":
            return self.tally.entries.get("CONNECT", Kept()).service
        if kind == "first_byte":
            return self.messages.first_byte
        if kind == "response" or (not kind and self.messages.response):
            return self.messages.response
        return self.messages.service

    def _percentile(self, name: str) -> tuple[dict[int, int], float]:
        match = re.fullmatch(r"(?:(service|response|connect|first_byte)\.)?p(\d+(?:\.\d+)?)", name)
        if not match:
            raise KeyError(name)
        return self._counts(match[1] or ""), float(match[2])

    def __getitem__(self, name: str) -> float | None:
        if name in self._plain:
            return self._plain[name]
        counts, percent = self._percentile(name)
        return percentiles(counts, (percent,))[0]

    def missing(self, name: str) -> str:
        """Why there is no figure called ``name``, to follow its name in a sentence."""
        if name not in self._plain:
            counts, percent = self._percentile(name)
            if counts:
                samples, needed = sum(counts.values()), samples_needed(percent)
                return f"can't be judged by {samples:,} samples: it takes {needed:,}, for 10 to lie beyond it"
        return "was not measured"

    def __iter__(self) -> Iterator[str]:
        return iter(self._plain)

    def __len__(self) -> int:
        return len(self._plain)


def warnings(tally: Tally) -> list[tuple[str, str]]:
    """Where the generator, and not the server, may have set the figures; short names and sentences."""
    failures = {group for _, group in tally.failures}
    generating = [(name, health) for name, health in tally.health.items() if name != "master"]
    return verdicts(generating, failures, ports_per_address())


def latency_rows(tally: Tally) -> list[tuple[str, str, int, list[float | None], int]]:
    """Entry, latency, samples, percentiles and the highest, in microseconds."""
    rows = []
    for name in sorted(tally.entries, key=lambda name: (name != "CONNECT", name == "EXIT", name)):
        kept = tally.entries[name]
        kinds = [("service", kept.service)]
        if kept.split_first:
            kinds.append(("first byte", kept.first_byte))
        if kept.response:
            kinds.append(("response", kept.response))
        for kind, counts in kinds:
            if counts:
                rows.append((name, kind, sum(counts.values()), percentiles(counts), max(counts)))
    return rows


def pace(tally: Tally, plan: Plan, total_users: int) -> str | None:
    """How a schedule was kept, in a line; None for a closed loop."""
    if not plan.rate:
        return None
    target = plan.rate * total_users if plan.rate_per_user else plan.rate
    intended = tally.counts["intended"]
    messages = tally.messages()
    done = messages.passed + messages.failed
    reached = Figures(tally)["rate"] or 0.0
    if done > 1.2 * intended + 100:  # tasks of a class of somebody's own, with several requests each
        return (
            f"target {target:,.1f} tasks/s; intended {intended:,} tasks, "
            f"answered {messages.passed:,} requests ({reached:,.1f}/s), "
            f"failed {messages.failed:,}, late starts {tally.counts['late_starts']:,}"
        )
    return (
        f"target {target:,.1f}/s, reached {reached:,.1f}/s; intended {intended:,}, "
        f"answered {messages.passed:,}, "
        f"failed {messages.failed:,}, backlog at the end {max(0, intended - done):,}, "
        f"late starts {tally.counts['late_starts']:,}"
    )


def health_line(health: Health) -> str:
    """What one process says of itself."""
    return (
        f"CPU {health.cpu:.0%}, loop late p99 {health.lag_p99 / 1e3:.2f} ms, "
        f"longest garbage collection {health.gc_pause / 1e3:.1f} ms, "
        f"connections {health.ports:,}, files {health.files:,} of {health.file_limit:,}"
    )


def summary(tally: Tally, plan: Plan, total_users: int) -> str:
    """The end of a run in words and tables, for a console."""
    lines = [f"WARNING {text}" for _, text in warnings(tally)]
    lines.append(f"TCP requests in milliseconds ({plan.model})")
    header = ["p50", "p90", "p99", "p99.9", "max"]
    lines.append(f"{'':<12} {'':<10} {'answered':>11} " + " ".join(f"{column:>11}" for column in header))
    for name, kind, samples, values, highest in latency_rows(tally):
        cells = " ".join(f"{milliseconds(value):>11}" for value in [*values, highest])
        lines.append(f"{name:<12} {kind:<10} {samples:>11,} {cells}")
    line = pace(tally, plan, total_users)
    if line:
        lines.append(line)
    everything = [*tally.entries.values()]
    lines.append(
        f"connections: {tally.counts['opened']:,} opened, {sum(tally.open.values()):,} open at the end; "
        f"{sum(kept.bytes_out for kept in everything):,} bytes sent, "
        f"{sum(kept.bytes_in for kept in everything):,} received; "
        f"in flight when stopped: {tally.aborted:,} (aborted: neither passed nor failed)"
    )
    for (name, group), count in tally.failures.most_common():
        example = tally.samples.get(group, "")
        lines.append(f"{count:>8,} x {name} {group}" + (f"   e.g. {example}" if example else ""))
    for process, health in sorted(tally.health.items()):
        if process != "master":
            lines.append(f"generator {process}: {health_line(health)}")
    return "\n".join(lines)
