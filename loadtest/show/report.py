"""The report of a Locust run, in the schema of ``benchmarks.reports.report``.

A Locust run measures one server once. It is cut into successive windows of equal length, and each is a
trial, which shows its course; the report says so in a warning, because windows of one run tell nothing of
how runs differ, and ``python -m benchmarks compare`` takes the whole run as one sample. Every answered
request is in the histogram of its window, and so is one that timed out, with the time that it took. Rates
are given only for whole windows after the last user was spawned, and are what was answered divided by the
time that was measured.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.reports import environment
from benchmarks.reports.histograms import encode_counts
from benchmarks.reports.report import Fired, HistogramKind, Metric, Report, SeriesKind, Server, Trial, utc_now
from loadtest.count.counters import FIGURE, PUSH, RECEIVE, REQUEST, TRANSACTION, total
from loadtest.count.run_record import Point, RunRecord, Second, connects_in, measured_seconds, messages_of
from loadtest.run.options import Plan, own_options
from loadtest.show import tables

SERIES: Final = {
    "rate": SeriesKind(title="Messages answered", unit="1/s"),
    "failed": SeriesKind(title="Requests failed", unit="1/s"),
    "connections": SeriesKind(title="Open connections", unit=""),
    "service_p50": SeriesKind(title="Service time, p50", unit="ms"),
    "service_p99": SeriesKind(title="Service time, p99", unit="ms"),
    "response_p50": SeriesKind(title="Response time, p50", unit="ms"),
    "response_p99": SeriesKind(title="Response time, p99", unit="ms"),
    "connect_p50": SeriesKind(title="Connect time, p50", unit="ms"),
    "connect_p99": SeriesKind(title="Connect time, p99", unit="ms"),
    "generator_cpu": SeriesKind(title="Busiest generating process", unit="cores"),
    "generator_lag": SeriesKind(title="Latest generator loop", unit="ms"),
}
_LEFT_OUT: Final = frozenset({"host", "report", "report_html", "fail_if", "tcp_total_users"})
"""Options that don't say what was measured."""
_LOCUST: Final = ("num_users", "spawn_rate", "run_time", "processes", "tags", "exclude_tags")


def make_report(
    record: RunRecord,
    plan: Plan,
    options: Any,
    host: str,
    *,
    users: int = 1,
    notes: Sequence[str] = (),
    troubles: Sequence[tuple[str, str]] = (),
    spawned_at: float = 0.0,
    complete: bool = True,
    ended_at: float | None = None,
) -> Report:
    """The report of what ``record`` holds; ``spawned_at`` is when (Unix time) all ``users`` were there, and
    ``ended_at`` when the run ended: now, unless given."""
    fired = [Fired(check=check, message=text) for check, text in (*troubles, *tables.warnings(record))]
    trials = _trials(record, plan, host, spawned_at)
    if trials and plan.rate:
        trials[-1].values["intended"] = float(record.counts["intended"])
        trials[-1].values["late_starts"] = float(record.counts["late_starts"])
    pace = tables.pace(record, plan, users)
    fired += [Fired(check="schedule", message=pace)] if pace else []
    fired += [Fired(check="knee", message=note) for note in notes]
    if len(trials) > 1:
        fired.append(
            Fired(
                check="one-run",
                message=f"the {len(trials)} trials are successive parts of one run: their spread is that "
                "within a run, and says nothing of how runs differ",
            )
        )
    if not plan.rate:
        fired.append(Fired(check="closed-loop", message=plan.model))
    histograms = {
        "service": HistogramKind(title="Service time, sent to answered"),
        "response": HistogramKind(
            title="Response time, intended start to answered", open_schedule=bool(plan.rate)
        ),
        "connect": HistogramKind(title="Connect time"),
        "first_byte": HistogramKind(title="First byte, sent to first byte"),
    }
    used = {name for trial in trials for name in trial.histograms}
    for name in sorted(used - set(histograms)):
        kind, _, entry = name.partition(":")
        histograms[name] = HistogramKind(
            title=f"{kind.capitalize()} time of {entry}", open_schedule=kind == "response"
        )
    return Report(
        kind="locust",
        id=str(uuid.uuid4()),
        scenario="locust",
        created=utc_now(ended_at),
        complete=complete,
        parameters=_parameters(options, plan),
        environment=environment.describe({"generator": sorted(os.sched_getaffinity(0))}),
        servers=[Server(name=host, version="", command=[host], source_hash="")],
        metrics={
            "messages_per_second": Metric(
                unit="1/s",
                better="none" if plan.rate or plan.hold else "higher",
                title="Messages a second",
                primary=not (plan.rate or plan.hold),
            ),
            "failed_share": Metric(unit="", better="lower", title="Share of messages that failed"),
            "intended": Metric(unit="", better="none", title="Messages intended, in the whole run"),
            "late_starts": Metric(unit="", better="none", title="Late starts, in the whole run"),
            "aborted": Metric(unit="", better="none", title="In flight when stopped"),
            "connections": Metric(unit="", better="none", title="Open connections, at most"),
        },
        revision=environment.revision(),
        harness=_harness(),
        histograms={name: kind for name, kind in histograms.items() if name in used},
        series={name: kind for name, kind in SERIES.items() if any(name in trial.series for trial in trials)},
        trials=trials,
        warnings=fired,
    )


def _trials(record: RunRecord, plan: Plan, host: str, spawned_at: float) -> list[Trial]:
    points = record.points()
    if not points:
        return []
    begin = points[0][0]
    length = record.window_seconds
    windows = {first: [second] for first, second in record.windows.items()}
    for number, second in record.seconds.items():
        windows.setdefault(number - number % length, []).append(second)
    while len(windows) > 10:
        length *= 2
        coarser: dict[int, list[Second]] = {}
        for first, parts in windows.items():
            coarser.setdefault(first - first % length, []).extend(parts)
        windows = coarser
    last = points[-1][0]
    trials = []
    for block, first in enumerate(sorted(windows)):
        inside = [(number, point) for number, point in points if first <= number < first + length]
        steady = first >= spawned_at and first + length <= min(last, record.stopping_at)
        seconds = min(first + length, last + 1) - max(first, begin)
        trials.append(_trial(host, block, windows[first], inside, seconds, begin, steady=steady))
    return trials


def _trial(
    host: str,
    block: int,
    parts: list[Second],
    points: list[tuple[int, Point]],
    seconds: int,
    begin: int,
    *,
    steady: bool,
) -> Trial:
    names = sorted({name for part in parts for name in part.entries})
    entries = {name: total(part.entries[name] for part in parts if name in part.entries) for name in names}
    messages = total(messages_of(entries))
    failed = {f"{name} {group}": n for name, kept in entries.items() for group, n in kept.failures.items()}
    requests = messages.passed + messages.failed
    values = {
        "failed_share": messages.failed / requests if requests else 0.0,
        "aborted": float(sum(kept.aborted for kept in entries.values())),
        "connections": float(max((point.open for _, point in points), default=0)),
    }
    if steady:
        values["messages_per_second"] = messages.passed / measured_seconds(part.spans for part in parts)
    counts = {
        "service": messages.latencies,
        "response": messages.response,
        "connect": connects_in(entries).latencies,
        "first_byte": messages.first_byte if messages.split_first else {},
    }
    own = [name for name in names if entries[name].kind == REQUEST]
    own = own if len(own) > 1 else []
    own += [name for name in names if entries[name].kind in (RECEIVE, PUSH, TRANSACTION, FIGURE)]
    counts.update({f"service:{name}": entries[name].latencies for name in own})
    counts.update({f"response:{name}": entries[name].response for name in own})
    return Trial(
        server=host,
        block=block,
        order=block,
        seconds=float(seconds),
        messages=messages.passed,
        errors=failed,
        values=values,
        cpu={"generator": sum(point.cpu for _, point in points) / len(points)} if points else {},
        series=_series(points, begin),
        histograms={name: encode_counts(found) for name, found in counts.items() if found},
    )


def _series(points: list[tuple[int, Point]], begin: int) -> dict[str, list[tuple[float, float]]]:
    series: dict[str, list[tuple[float, float]]] = {}

    def add(name: str, number: int, value: float) -> None:
        series.setdefault(name, []).append((float(number - begin), value))

    for number, point in points:
        add("rate", number, point.rate)
        add("failed", number, point.failed)
        add("connections", number, point.open)
        add("generator_cpu", number, round(point.cpu, 4))
        add("generator_lag", number, point.lag / 1e3)
        for kind in ("service", "response", "connect"):
            latency = getattr(point, kind)
            if latency:
                add(f"{kind}_p50", number, latency[0] / 1e3)
                add(f"{kind}_p99", number, latency[1] / 1e3)
    return series


def _parameters(options: Any, plan: Plan) -> dict[str, Any]:
    given = vars(options) if options is not None else {}
    parameters = {name: given[name] for name in own_options() if name in given and name not in _LEFT_OUT}
    parameters.update({name: given.get(name) for name in _LOCUST})
    parameters["model"] = plan.model
    return parameters


def _harness() -> str:
    return environment.source_hash(sorted(Path(__file__).parents[1].rglob("*.py")))
