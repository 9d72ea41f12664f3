"""The server's figures in Prometheus's form; made anew for each scrape, from a snapshot."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence

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
from chat_gevent.command.overview import Overview
from chat_gevent.command.snapshot import BackplaneFigures, ProcessFigures, Snapshot
from chat_gevent.command.total import WorkerFigures


class ServerCollector(Collector):
    """Reads the process that serves, or all of them."""

    def __init__(self, overview: Overview) -> None:
        self._overview = overview

    def collect(self) -> Iterator[Metric]:
        """Yield each metric with its value of now."""
        now = self._overview.snapshot()
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
        yield from _process(now.process, self._overview.started)
        if self._overview.many:
            yield from _workers(self._overview.workers())


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


def _process(now: ProcessFigures, started: float) -> Iterator[Metric]:
    """What any Prometheus client library says of its process, under the same names."""
    yield CounterMetricFamily("process_cpu_seconds", "CPU time.", now.cpu_seconds)
    yield GaugeMetricFamily("process_resident_memory_bytes", "Memory in RAM.", now.resident_bytes)
    yield GaugeMetricFamily("process_open_fds", "Open files.", now.open_files)
    yield GaugeMetricFamily("process_max_fds", "Most open files.", now.most_files)
    yield GaugeMetricFamily("process_start_time_seconds", "Start, as a Unix time.", started)


def _workers(workers: Sequence[WorkerFigures]) -> Iterator[Metric]:
    """Each worker's own, for the few that matter; the number is handed on when a worker is replaced."""
    serving = sum(each.ready for each in workers)
    state = GaugeMetricFamily("chat_gevent_workers", "Worker processes.", labels=["state"])
    state.add_metric(["serving"], serving)
    state.add_metric(["leaving"], len(workers) - serving)
    yield state
    gauges: tuple[tuple[str, str, Callable[[WorkerFigures], float]], ...] = (
        ("connections", "Clients connected now.", lambda each: each.figures.connections),
        ("greenlets_leased", "Greenlets that serve a client.", lambda each: each.figures.workers_busy),
        ("loop_lag_p50_seconds", "Loop lag, median of the last second.", lambda each: each.figures.lag_p50),
        ("loop_lag_p99_seconds", "Loop lag, p99 of the last second.", lambda each: each.figures.lag_p99),
        ("resident_memory_bytes", "Memory in RAM.", lambda each: each.figures.process.resident_bytes),
        ("figures_age_seconds", "Age of these figures.", lambda each: each.age),
    )
    for name, help, value in gauges:
        gauge = GaugeMetricFamily(f"chat_gevent_worker_{name}", help, labels=["worker"])
        for each in workers:
            gauge.add_metric([str(each.worker)], value(each))
        yield gauge
    counters: tuple[tuple[str, str, Callable[[WorkerFigures], float]], ...] = (
        ("messages", "Messages answered, by earlier workers of this number too.", lambda each: each.messages),
        ("cpu_seconds", "CPU time, of earlier workers of this number too.", lambda each: each.cpu_seconds),
    )
    for name, help, value in counters:
        counter = CounterMetricFamily(f"chat_gevent_worker_{name}", help, labels=["worker"])
        for each in workers:
            counter.add_metric([str(each.worker)], value(each))
        yield counter


def _gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(f"chat_gevent_{name}", help, value)


def _counter(name: str, help: str, value: float) -> Metric:
    return CounterMetricFamily(f"chat_gevent_{name}", help, value)


def _counters(name: str, help: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"chat_gevent_{name}", help, labels=[label])
    for key in sorted(values):
        family.add_metric([str(key)], values[key])
    return family


def registry(overview: Overview) -> CollectorRegistry:
    """A registry that holds these metrics and no others."""
    made = CollectorRegistry(auto_describe=False)
    made.register(ServerCollector(overview))
    return made


def expose(of: CollectorRegistry, accept: str) -> tuple[str, bytes]:
    """The content type and body for a scraper that takes ``accept``, of whatever may stand there."""
    try:
        encode, content_type = choose_encoder(accept)
        return content_type, encode(of)
    except (TypeError, ValueError):  # a version that is no version; what fails otherwise does so once more
        encode, content_type = choose_encoder("")
        return content_type, encode(of)
