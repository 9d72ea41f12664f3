"""What the admin pages and the metrics read, and nothing about where it comes from.

The process that serves takes a :class:`Snapshot` of its figures when it is asked. The pages know this module
only, so they do not depend on the process, nor on how the library keeps its figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from chat_gevent.command.metrics import LoopLag


@dataclass(frozen=True, slots=True)
class HandlerFigures:
    """What a handler of the user's has done so far."""

    calls: int
    seconds: float
    """Time spent in it, waiting included."""
    running: int
    """Calls under way."""


@dataclass(frozen=True, slots=True)
class BackplaneFigures:
    """What the backplane has done so far."""

    connected: bool
    published: int
    received: int
    dropped: int


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    """What the system says of a process. Of several it is the sum; memory that they share counts for each."""

    cpu_seconds: float
    resident_bytes: int
    open_files: int
    most_files: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The figures of one serving process at one moment; counts are since the start unless said otherwise.

    :mod:`chat_gevent.command.total` adds up those of several, and knows which of them are counts.
    """

    connections: int
    """Clients that are connected now."""
    connections_limit: int
    accepted: int
    refused: Mapping[str, int]
    """By error code."""
    closed: Mapping[str, int]
    """By reason."""
    messages: int
    received_bytes: int
    sent_bytes: int
    errors: Mapping[str, int]
    """Error replies by code."""
    pushes: int
    """Messages that were sent unasked, once for each client."""
    pushes_dropped: int
    """Those that were not sent, because too much was due to a client that did not take it."""
    queued_bytes: int
    """Bytes of pushes that wait for their clients now."""
    broadcasts: int
    broadcast_seconds: float
    """Time spent on putting messages into outboxes and sending them, in slices."""
    workers_busy: int
    """Greenlets that serve a client now."""
    workers_free: int
    lag_bounds: Sequence[float]
    """Upper bounds of the classes that the loop's lag is counted in, in seconds."""
    lag_counts: Sequence[int]
    """One for each bound, and one for what is above the last."""
    lag_seconds: float
    """Sum of all lags."""
    lag_p50: float
    """The lag's median in the last second, in seconds."""
    lag_p99: float
    handler: HandlerFigures | None
    """None where the built-in confirmation answers."""
    backplane: BackplaneFigures | None
    """None where there is none."""
    draining: bool
    log_lines_dropped: int
    process: ProcessFigures


class Watched(Protocol):
    """What the admin pages ask the process that serves."""

    @property
    def lag(self) -> LoopLag:
        """How late its event loop is."""

    @property
    def draining(self) -> bool:
        """Whether it takes no more clients and waits for the last ones to leave."""

    @property
    def backplane_lost(self) -> bool:
        """Whether broadcasts stay in this process, although there is a backplane."""

    def snapshot(self) -> Snapshot:
        """Its figures of now. Looks at every connection: 0.1 s for a million clients."""

    def clients(self, after: int, limit: int) -> dict[str, Any]:
        """A page of at most ``limit`` clients whose id is above ``after``, ready for JSON."""
