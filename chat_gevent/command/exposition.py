"""The server's figures in Prometheus's form; made anew for each scrape, from a snapshot."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Iterator, Mapping

import gevent
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from chat_gevent import __version__
from chat_gevent.command.snapshot import BackplaneFigures, Snapshot, Watched
from chat_gevent.files import open_files


class ServerCollector(Collector):
    """Reads a process that serves."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    def collect(self) -> Iterator[Metric]:
        """Yield each metric with its value of now."""
        now = self._watched.snapshot()
        yield _gauge("connections", "Clients connected now.", now.connections)
        yield _gauge("connections_limit", "Most clients at once.", now.connections_limit)
        yield _counter("accepted", "Connections accepted, refused ones included.", now.accepted)
        yield _counters("refused", "Connections refused when they came.", "reason", now.refused)
        yield _counters("closed", "Connections closed.", "reason", now.closed)
        yield _counter(
            "messages", "Messages answered; those refused with an error are not counted.", now.messages
        )
        yield _counter("received_bytes", "Bytes received from clients, decrypted.", now.received_bytes)
        yield _counter("sent_bytes", "Bytes sent to clients, before encryption.", now.sent_bytes)
        yield _counters("errors", "Error replies sent.", "code", now.errors)
        yield _counter("pushes", "Messages sent unasked, one for each client.", now.pushes)
        yield _counter("pushes_dropped", "Pushes to clients that took too little.", now.pushes_dropped)
        yield _gauge("queued_bytes", "Bytes of pushes that wait for their clients.", now.queued_bytes)
        yield _counter("broadcasts", "Messages to many clients.", now.broadcasts)
        yield _counter("broadcast_seconds", "Time in slices of broadcasts.", now.broadcast_seconds)
        greenlets = GaugeMetricFamily(
            "chat_gevent_greenlets", "Greenlets that serve clients.", labels=["state"]
        )
        greenlets.add_metric(["leased"], now.workers_busy)
        greenlets.add_metric(["free"], now.workers_free)
        yield greenlets
        yield _loop_lag(now)
        if now.handler is not None:
            yield _counter("handler_calls", "Calls of the handler.", now.handler.calls)
            yield _counter("handler_seconds", "Time in the handler, waiting included.", now.handler.seconds)
            yield _gauge("handler_running", "Calls of the handler under way.", now.handler.running)
        if now.backplane is not None:
            yield from _backplane(now.backplane)
        yield _gauge("draining", "1 while the server asks its clients to leave.", now.draining)
        yield _gauge("log_lines_dropped", "Log lines nobody took in time.", now.log_lines_dropped)
        info = {"version": __version__, "python": platform.python_version(), "gevent": gevent.__version__}
        yield InfoMetricFamily("chat_gevent_build", "Versions.", info)
        yield from _process()


def _backplane(now: BackplaneFigures) -> Iterator[Metric]:
    yield _gauge("backplane_connected", "1 while broadcasts reach other processes.", now.connected)
    yield _counter("backplane_published", "Broadcasts that Redis took.", now.published)
    yield _counter("backplane_received", "Broadcasts of other processes, delivered here.", now.received)
    yield _counter(
        "backplane_dropped", "Broadcasts that Redis did not take, or did not confirm.", now.dropped
    )


def _loop_lag(now: Snapshot) -> Metric:
    below = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*now.lag_bounds, float("inf")), now.lag_counts, strict=True):
        below += count
        buckets.append(("+Inf" if bound == float("inf") else str(bound), below))
    family = HistogramMetricFamily(
        "chat_gevent_loop_lag_seconds", "How late the event loop wakes a greenlet, sampled."
    )
    family.add_metric([], buckets, now.lag_seconds)
    return family


def _process() -> Iterator[Metric]:
    """What any Prometheus client library says of its process, under the same names."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    yield CounterMetricFamily("process_cpu_seconds", "CPU time.", usage.ru_utime + usage.ru_stime)
    with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - procfs, read for each scrape
        pages = int(statm.read().split()[1])
    resident = pages * os.sysconf("SC_PAGE_SIZE")
    yield GaugeMetricFamily("process_resident_memory_bytes", "Memory in RAM.", resident)
    yield GaugeMetricFamily("process_open_fds", "Open files.", open_files())
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield GaugeMetricFamily("process_max_fds", "Most open files.", limit)
    yield GaugeMetricFamily("process_start_time_seconds", "Start, as a Unix time.", _STARTED)


_STARTED = time.time()


def _gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(f"chat_gevent_{name}", help, value)


def _counter(name: str, help: str, value: float) -> Metric:
    return CounterMetricFamily(f"chat_gevent_{name}", help, value)


def _counters(name: str, help: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"chat_gevent_{name}", help, labels=[label])
    for key in sorted(values):
        family.add_metric([str(key)], values[key])
    return family


def registry(watched: Watched) -> CollectorRegistry:
    """A registry that holds the metrics of that process and no others."""
    made = CollectorRegistry(auto_describe=False)
    made.register(ServerCollector(watched))
    return made


def expose(of: CollectorRegistry, accept: str) -> tuple[str, bytes]:
    """The content type and body for a scraper that takes ``accept``."""
    encode, content_type = choose_encoder(accept)
    return content_type, encode(of)
