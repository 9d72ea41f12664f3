"""The report: one JSON file a run, with everything that was measured and where it was measured.

A runner fills a :class:`Report` and calls :meth:`Report.save` after every trial: the file is replaced
in one step, so a run that is interrupted leaves a readable report with ``complete`` false. Readers
call :meth:`Report.load`, which checks the file against ``schema/report-1.json`` and against itself
(every trial names a server of the report, every value a metric) and raises :class:`ReportError` with
one line for anything else: a truncated file, another program's JSON, an older or a newer schema. Control
characters are written out in what is loaded.

Units: seconds unless a name says otherwise; a metric, a series and a histogram each carry their own.
A value that was not measured is left out, never written as zero or NaN.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, Self, TypedDict, cast

from benchmarks.reports.document import SCHEMA, SCHEMA_VERSION, ReportError, check_schema, check_version
from benchmarks.reports.plain import plain

Kind = Literal["benchmark", "locust"]
Better = Literal["lower", "higher", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A figure that every trial has one value of.

    ``primary`` metrics take part in verdicts, the others are shown beside them. With
    ``when_saturated`` a metric is primary only between servers that every trial saturated
    (messages per second say nothing of a server that waited for its clients).
    """

    unit: str
    better: Better
    title: str
    primary: bool = False
    when_saturated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramKind:
    """What the HDR histograms of one name hold: ``unit_seconds`` is the length of a recorded 1.

    ``open_schedule`` says that latencies run from the intended start of each request. Only then are
    their percentiles free of coordinated omission, and only then do p50 and p99 take part in verdicts.
    """

    title: str
    unit_seconds: float = 1e-6
    open_schedule: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesKind:
    """What the time series of one name hold."""

    title: str
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One of the servers measured; ``name`` is unique in a report.

    Two servers with equal ``command`` and ``source_hash`` are the same one measured twice: their
    difference is the run's noise.
    """

    name: str
    version: str
    command: list[str]
    source_hash: str


class Plateau(TypedDict, total=False):
    """Memory, in bytes, while a number of connections was held; only ``kernel_bytes`` may be left out."""

    connections: int
    user_bytes: float
    kernel_bytes: float


@dataclass(slots=True, kw_only=True)
class Trial:
    """One fresh server process, measured once: the sample of all statistics.

    Trials of one ``block`` ran near each other in time, each server at least once, and are compared
    with each other; ``order`` counts the trials of the run from 0. ``cpu`` holds fractions of one core
    (``server``, ``generator``, ``machine``), context switches and the like. ``histograms`` are HDR V2,
    compressed, base64.
    """

    server: str
    block: int
    order: int
    seconds: float
    messages: int
    errors: dict[str, int] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    saturated: bool | None = None
    memory: list[Plateau] = field(default_factory=list)
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    histograms: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """A check that fired: its short name (``generator-busy``) and a sentence for a person."""

    check: str
    message: str
    server: str | None = None
    block: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """The git commit that was measured (empty outside git), and whether files differed from it."""

    commit: str
    dirty: bool


@dataclass(slots=True, kw_only=True)
class Report:
    """One run of one scenario with one set of parameters.

    ``environment`` has at least ``kernel``, ``cpu``, ``cores``, ``python`` and ``pinning``; two reports
    are compared only where kernel, CPU, pinning, scenario and parameters are equal. ``harness`` is a
    hash of the code that measured.
    """

    id: str
    scenario: str
    parameters: dict[str, Any]
    environment: dict[str, Any]
    servers: list[Server]
    metrics: dict[str, Metric]
    revision: Revision
    harness: str
    kind: Kind = "benchmark"
    created: str = field(default_factory=lambda: utc_now())
    complete: bool = False
    histograms: dict[str, HistogramKind] = field(default_factory=dict)
    series: dict[str, SeriesKind] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    warnings: list[Fired] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON types, ``schema`` and ``schema_version`` first."""
        return {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, document: object, where: str = "report") -> Self:
        """The report in ``document``; :class:`ReportError` names ``where`` and what is wrong."""
        check_version(document, where)
        data = cast(dict[str, Any], plain(document))
        check_schema(data, where)
        try:
            report = cls(
                **{name: data[name] for name in _PLAIN_FIELDS},
                servers=[Server(**server) for server in data["servers"]],
                metrics={name: Metric(**metric) for name, metric in data["metrics"].items()},
                revision=Revision(**data["revision"]),
                histograms={n: HistogramKind(**kind) for n, kind in data["histograms"].items()},
                series={n: SeriesKind(**kind) for n, kind in data["series"].items()},
                trials=[Trial(**trial) for trial in data["trials"]],
                warnings=[Fired(**fired) for fired in data["warnings"]],
            )
        except TypeError as error:  # the schema lets through only what the classes take
            raise ReportError(f"{where}: not a report this program reads: {error}") from None
        report.check(where)
        return report

    def check(self, where: str = "report") -> None:
        """Raise :class:`ReportError` unless the report agrees with itself; a schema cannot say these."""
        names = [server.name for server in self.servers]
        if len(set(names)) != len(names):
            raise ReportError(f"{where}: two servers share a name")
        for trial in self.trials:
            at = f"{where}: trial {trial.order}"
            if trial.server not in names:
                raise ReportError(f"{at} is of {trial.server!r}, which is not among the report's servers")
            _all_described(at, "metric", trial.values, self.metrics)
            _all_described(at, "histogram", trial.histograms, self.histograms)
            _all_described(at, "series", trial.series, self.series)
        orders = [trial.order for trial in self.trials]
        if len(set(orders)) != len(orders):
            raise ReportError(f"{where}: two trials share an order")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report to ``path``, which holds either what it held before or the whole report.

        Raises :class:`ReportError` for a report that :meth:`load` would refuse (nothing is written
        then) and ``OSError`` where the file cannot be written.
        """
        path = Path(path)
        try:
            text = json.dumps(self.to_json(), ensure_ascii=False, allow_nan=False, indent=1)
        except ValueError as error:
            raise ReportError(f"{path}: a figure is not a finite number ({error})") from None
        Report.from_json(json.loads(text), str(path))
        try:
            descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        except OSError as error:  # which would name a file that nobody asked for
            raise OSError(error.errno, error.strerror, str(path)) from None
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The report at ``path``; :class:`ReportError`, one line, where it is none or cannot be read."""
        where = os.fspath(path)
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise ReportError(f"{where}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ReportError(f"{where}: not a report: not UTF-8 text") from None
        if not text.strip():
            raise ReportError(f"{where}: not a report: the file is empty")
        try:
            document = json.loads(text, parse_constant=_finite, parse_float=_finite)
        except json.JSONDecodeError as error:
            text = text.rstrip()
            cut = text.lstrip().startswith("{") and (error.pos >= len(text) or not text.endswith("}"))
            what = "the file is cut short" if cut else "it is not JSON"
            raise ReportError(f"{where}: not a report: {what} ({error.msg}, line {error.lineno})") from None
        except _NotFiniteError as error:
            raise ReportError(f"{where}: not a report: {error} is not a finite number") from None
        except RecursionError:
            raise ReportError(f"{where}: not a report: nested too deeply") from None
        return cls.from_json(document, where)

    @property
    def state(self) -> str:
        """``complete``, or why it is not, by the checks that fired: in a few words."""
        if self.complete:
            return "complete"
        failed = sum(fired.check == "trial-failed" for fired in self.warnings)
        why = [f"{failed} trial{'' if failed == 1 else 's'} failed"] if failed else []
        if any(fired.check == "interrupted" for fired in self.warnings):
            why.append("its run was interrupted")
        return "incomplete: " + (" and ".join(why) or "its run did not come to its end")

    def trials_of(self, server: str) -> list[Trial]:
        """The trials of one server in the order they ran."""
        return sorted((t for t in self.trials if t.server == server), key=lambda t: t.order)

    def server(self, name: str) -> Server:
        """The server called ``name``; ``KeyError`` where the report has none."""
        for server in self.servers:
            if server.name == name:
                return server
        raise KeyError(name)


_PLAIN_FIELDS: Final = (
    "id",
    "scenario",
    "parameters",
    "environment",
    "harness",
    "kind",
    "created",
    "complete",
)


class _NotFiniteError(ValueError):
    """NaN, Infinity or 1e999, which Python's parser takes and no measurement gives."""


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _NotFiniteError(text)
    return value


def utc_now(at: float | None = None) -> str:
    """The time, or the Unix time ``at``, as ISO 8601 in UTC, to the second."""
    moment = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _all_described(at: str, what: str, used: Iterable[str], known: Iterable[str]) -> None:
    undescribed = set(used) - set(known)
    if undescribed:
        raise ReportError(f"{at} has a {what} {min(undescribed)!r} that the report does not describe")
