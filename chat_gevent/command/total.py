"""The figures of several workers as one, and a snapshot as bytes and back.

Counts are added up over the workers that live and those that are gone; of what is as it is at the moment
(clients that are connected, files that are open) only the living have a part.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from chat_gevent.command.metrics import LAG_BUCKETS
from chat_gevent.command.snapshot import BackplaneFigures, HandlerFigures, ProcessFigures, Snapshot

COUNTS: Final = (
    "accepted",
    "messages",
    "received_bytes",
    "sent_bytes",
    "pushes",
    "pushes_dropped",
    "broadcasts",
    "log_lines_dropped",
)
SECONDS: Final = ("broadcast_seconds", "lag_seconds")
COUNTS_BY_REASON: Final = ("refused", "closed", "errors")
NOW: Final = ("connections", "connections_limit", "queued_bytes", "workers_busy", "workers_free")

_NAMES: Final = tuple(each.name for each in fields(Snapshot))
_PARTS: Final = {"handler": HandlerFigures, "backplane": BackplaneFigures, "process": ProcessFigures}


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """What is known of one worker."""

    worker: int
    """Its number; a successor may have it again."""
    pid: int
    age: float
    """Seconds since its figures were taken."""
    ready: bool
    """Whether it takes new clients."""
    messages_per_second: float
    """In the last second."""
    draining_seconds: float | None
    """How long it has asked its clients to leave; None: it does not."""
    figures: Snapshot
    messages: int
    """Messages answered by it and by those that had its number before."""
    cpu_seconds: float
    """CPU time in the same way."""


def add_up(living: Sequence[Snapshot], gone: Snapshot | None = None) -> Snapshot:
    """The sum over workers; of ``gone``, the sum over those that live no more, only counts are taken."""
    every = [*living, gone] if gone is not None else living
    values: dict[str, Any] = {name: sum(getattr(each, name) for each in every) for name in COUNTS}
    values |= {name: add_seconds(getattr(each, name) for each in every) for name in SECONDS}
    values |= {name: sum(getattr(each, name) for each in living) for name in NOW}
    values |= {name: _by_reason(getattr(each, name) for each in every) for name in COUNTS_BY_REASON}
    counts = [each.lag_counts for each in every] or [(0,) * (len(LAG_BUCKETS) + 1)]
    return Snapshot(
        **values,
        lag_bounds=LAG_BUCKETS,
        lag_counts=tuple(map(sum, zip(*counts, strict=True))),
        lag_p50=max((each.lag_p50 for each in living), default=0.0),
        lag_p99=max((each.lag_p99 for each in living), default=0.0),
        handler=_handler(living, every),
        backplane=_backplane(living, every),
        draining=bool(living) and all(each.draining for each in living),
        process=ProcessFigures(
            cpu_seconds=add_seconds(each.process.cpu_seconds for each in every),
            resident_bytes=sum(each.process.resident_bytes for each in living),
            open_files=sum(each.process.open_files for each in living),
            most_files=sum(each.process.most_files for each in living),
        ),
    )


def add_seconds(values: Iterable[float]) -> float:
    """The sum of times, to a microsecond.

    Of floats it would depend on their order, and be less at times when one of several workers is gone; that a
    counter goes back by a trifle means to Prometheus that it began anew.
    """
    return sum(round(each * 1e6) for each in values) / 1e6


def _by_reason(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for each in counts:
        found.update(each)  # which keeps those that are 0
    return dict(found)


def _handler(living: Sequence[Snapshot], every: Sequence[Snapshot]) -> HandlerFigures | None:
    known = [each.handler for each in every if each.handler is not None]
    if not known:
        return None
    running = sum(each.handler.running for each in living if each.handler is not None)
    return HandlerFigures(
        sum(each.calls for each in known), add_seconds(each.seconds for each in known), running
    )


def _backplane(living: Sequence[Snapshot], every: Sequence[Snapshot]) -> BackplaneFigures | None:
    known = [each.backplane for each in every if each.backplane is not None]
    if not known:
        return None
    connected = all(each.backplane.connected for each in living if each.backplane is not None)
    return BackplaneFigures(
        connected,
        sum(each.published for each in known),
        sum(each.received for each in known),
        sum(each.dropped for each in known),
    )


def pack(figures: Snapshot) -> list[Any]:
    """A snapshot as values that JSON knows, without their names."""
    found: list[Any] = []
    for name in _NAMES:
        value = getattr(figures, name)
        if name in _PARTS and value is not None:
            value = [getattr(value, each.name) for each in fields(_PARTS[name])]
        found.append(value)
    return found


def unpack(values: Sequence[Any]) -> Snapshot:
    """What :func:`pack` was given."""
    given = dict(zip(_NAMES, values, strict=True))
    for name, kind in _PARTS.items():
        if given[name] is not None:
            given[name] = kind(*given[name])
    for name in ("lag_bounds", "lag_counts"):
        given[name] = tuple(given[name])
    return Snapshot(**given)


def to_bytes(values: Any) -> bytes:
    """Values as JSON, as short as it can be."""
    return json.dumps(values, separators=(",", ":")).encode()
