"""From the record of a run to the rows and lines that people read.

The same functions feed the console, the web page and the report, so that they can't disagree.
"""

from __future__ import annotations

from loadtest.client.address import ports_per_address
from loadtest.count.health import Health, verdicts
from loadtest.count.results import Results, percentiles
from loadtest.count.run_record import RunRecord
from loadtest.run.options import Plan


def milliseconds(microseconds: float | None) -> str:
    """For a table."""
    return "-" if microseconds is None else f"{microseconds / 1e3:,.3f}"


def warnings(record: RunRecord) -> list[tuple[str, str]]:
    """Where the generator, and not the server, may have set the figures; short names and sentences."""
    failures = {group for _, group in record.failures}
    generating = [(name, health) for name, health in record.health.items() if name != "master"]
    return verdicts(generating, failures, ports_per_address())


def latency_rows(record: RunRecord) -> list[tuple[str, str, int, list[float | None], int, str]]:
    """Entry, latency, samples, percentiles and the highest, in microseconds; and how many are not in them."""
    rows = []
    for name in sorted(
        record.entries, key=lambda name: (not name.startswith("CONNECT"), name == "EXIT", name)
    ):
        kept = record.entries[name]
        kinds = [("service", kept.latencies)]
        if kept.split_first:
            kinds.append(("first byte", kept.first_byte))
        if kept.response:
            kinds.append(("response", kept.response))
        for kind, counts in kinds:
            if counts:
                out = f"{kept.left_out:,} that failed are not in it" if kept.left_out else ""
                rows.append((name, kind, sum(counts.values()), percentiles(counts), max(counts), out))
    return rows


def pace(record: RunRecord, plan: Plan, total_users: int) -> str | None:
    """How a schedule was kept, in a line; None for a closed loop."""
    if not plan.rate:
        return None
    target = plan.rate * total_users if plan.rate_per_user else plan.rate
    intended = record.counts["intended"]
    messages = record.messages()
    done = messages.passed + messages.failed
    reached = Results(record)["rate"] or 0.0
    if done > 1.2 * intended + 100:  # tasks of a class of somebody's own, with several requests each
        return (
            f"target {target:,.1f} tasks/s; intended {intended:,} tasks, "
            f"answered {messages.passed:,} requests ({reached:,.1f}/s), "
            f"failed {messages.failed:,}, late starts {record.counts['late_starts']:,}"
        )
    return (
        f"target {target:,.1f}/s, reached {reached:,.1f}/s; intended {intended:,}, "
        f"answered {messages.passed:,}, "
        f"failed {messages.failed:,}, backlog at the end {max(0, intended - done):,}, "
        f"late starts {record.counts['late_starts']:,}"
    )


def health_line(health: Health) -> str:
    """What one process says of itself."""
    return (
        f"CPU {health.cpu:.0%}, loop late p99 {health.lag_p99 / 1e3:.2f} ms, "
        f"longest garbage collection {health.gc_pause / 1e3:.1f} ms, "
        f"connections {health.ports:,}, files {health.files:,} of {health.file_limit:,}"
    )
