"""The end of a run in words and tables, for a console."""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.count.counters import SEND
from loadtest.count.run_record import RunRecord
from loadtest.run.options import Plan
from loadtest.show.tables import health_line, latency_rows, milliseconds, pace, warnings


def summary(record: RunRecord, plan: Plan, total_users: int, troubles: Sequence[tuple[str, str]] = ()) -> str:
    """The text, in lines; ``troubles`` are those of the run, for its top."""
    lines = [f"WARNING {text}" for _, text in (*troubles, *warnings(record))]
    lines.append(f"TCP requests in milliseconds ({plan.model})")
    header = ["p50", "p90", "p99", "p99.9", "max"]
    lines.append(f"{'':<12} {'':<10} {'answered':>11} " + " ".join(f"{column:>11}" for column in header))
    for name, kind, samples, values, highest, out in latency_rows(record):
        cells = " ".join(f"{milliseconds(value):>11}" for value in [*values, highest])
        lines.append(f"{name:<12} {kind:<10} {samples:>11,} {cells}" + (f"   {out}" if out else ""))
    for name, kept in sorted(record.entries.items()):
        if kept.untimed:
            lines.append(
                f"{name:<12} {'no reply due' if kept.kind == SEND else 'came':<12} {kept.untimed:>9,}"
            )
    line = pace(record, plan, total_users)
    if line:
        lines.append(line)
    everything = [*record.entries.values()]
    lines.append(
        f"connections: {record.counts['opened']:,} opened, {sum(record.open.values()):,} open at the end; "
        f"{sum(kept.bytes_out for kept in everything):,} bytes sent, "
        f"{sum(kept.bytes_in for kept in everything):,} received; "
        f"in flight when stopped: {record.aborted:,} (aborted: neither passed nor failed)"
    )
    for (name, group), count in record.failures.most_common():
        example = record.samples.get(group, "")
        lines.append(f"{count:>8,} x {name} {group}" + (f"   e.g. {example}" if example else ""))
    for process, health in sorted(record.health.items()):
        if process != "master":
            lines.append(f"generator {process}: {health_line(health)}")
    return "\n".join(lines)
