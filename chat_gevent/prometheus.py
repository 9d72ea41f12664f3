"""The server's counters in Prometheus's form; made anew for each scrape, from what the server keeps anyway.

A scrape walks all open connections, and no client is served meanwhile: so it is done when asked for only.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

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
from chat_gevent.confirm import ErrorCode
from chat_gevent.connection import REFUSALS
from chat_gevent.files import open_files
from chat_gevent.metrics import LAG_BUCKETS

if TYPE_CHECKING:
    from chat_gevent.serve import Service


class ServiceCollector(Collector):
    """Reads a running service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """Yield each metric with its value of now."""
        service, lot = self._service, self._service.lot
        live = [each for each in lot.connections if each is not None]
        yield _gauge("connections", "Clients connected now.", lot.live)
        yield _gauge("connections_limit", "Most clients at once.", service.max_connections)
        yield _counter("accepted", "Connections accepted, refused ones included.", lot.accepted)
        # Known labels are there from the start: a first event must be an increase, not a new series.
        refused: dict[str, int] = {**dict.fromkeys(REFUSALS, 0), **lot.refused}
        yield _counters("refused", "Connections refused at the door.", "reason", refused)
        yield _counters("closed", "Connections closed.", "reason", lot.closed)
        messages = lot.past_messages + sum(each.messages for each in live)
        yield _counter(
            "messages", "Messages answered; those refused with an error are not counted.", messages
        )
        received = lot.past_received + sum(each.received for each in live)
        yield _counter("received_bytes", "Bytes received from clients, decrypted.", received)
        sent = lot.past_sent + sum(each.sent for each in live)
        yield _counter("sent_bytes", "Bytes sent to clients, before encryption.", sent)
        errors: dict[str, int] = {**dict.fromkeys(ErrorCode, 0), **lot.errors}
        yield _counters("errors", "Error replies sent.", "code", errors)
        greenlets = GaugeMetricFamily(
            "chat_gevent_greenlets", "Greenlets that serve clients.", labels=["state"]
        )
        greenlets.add_metric(["leased"], lot.greenlets_leased)
        greenlets.add_metric(["free"], lot.greenlets_free)
        yield greenlets
        yield self._loop_lag()
        if service.timed_handler is not None:
            yield _counter("handler_calls", "Calls of the handler.", service.timed_handler.calls)
            yield _counter(
                "handler_seconds", "Time in the handler, waiting included.", service.timed_handler.seconds
            )
            yield _gauge("handler_running", "Calls of the handler under way.", service.timed_handler.running)
        yield _gauge("draining", "1 while the server dismisses its clients.", lot.draining.is_set())
        yield _gauge("log_lines_dropped", "Log lines nobody took in time.", service.log_lines_dropped())
        info = {"version": __version__, "python": platform.python_version(), "gevent": gevent.__version__}
        yield InfoMetricFamily("chat_gevent_build", "Versions.", info)
        yield from _process()

    def _loop_lag(self) -> Metric:
        lag, below = self._service.lag, 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*LAG_BUCKETS, float("inf")), lag.counts, strict=True):
            below += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), below))
        family = HistogramMetricFamily(
            "chat_gevent_loop_lag_seconds", "How late the event loop wakes a greenlet, sampled."
        )
        family.add_metric([], buckets, lag.seconds)
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


def registry(service: Service) -> CollectorRegistry:
    """A registry that holds the service's metrics and no others."""
    made = CollectorRegistry(auto_describe=False)
    made.register(ServiceCollector(service))
    return made


def expose(of: CollectorRegistry, accept: str) -> tuple[str, bytes]:
    """The content type and body for a scraper that takes ``accept``."""
    encode, content_type = choose_encoder(accept)
    return content_type, encode(of)
