"""One block of a closed-loop scenario, its servers measured in turn, a short slice at a time.

All servers of the block run at once, each with its own load generator and its connections open; only one is
under load at any time. Rounds of slices go forward and backward through them, so that a machine whose
speed changes from second to second slows them all alike. Each server is still a fresh process with one
value a block: what its slices used in all over what was confirmed in all.

``python -m benchmarks experiment verdict-quality noise`` measures what that buys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from typing import Any, Final

from benchmarks.measure.compiler import BuildFailed
from benchmarks.measure.generator import GeneratorFailed
from benchmarks.measure.scenarios.base import Bench, Load, Window
from benchmarks.measure.scenarios.confirm import Confirm
from benchmarks.measure.servers import Server
from benchmarks.measure.servers.process import ServerFailed, ServerProcess
from benchmarks.reports.report import Trial

SETTLE: Final = 0.05
"""Seconds under load before a slice counts: caches have been another server's until then."""

_SUMMED: Final = frozenset({"voluntary_switches", "involuntary_switches"})
_GREATEST: Final = frozenset({"threads", "steal"})


def block(
    bench: Bench,
    scenario: Confirm,
    sequence: Sequence[Server],
    parameters: dict[str, Any],
    trials: list[Trial],
) -> None:
    """Measure every server of ``sequence`` once, ``parameters["slices"]`` slices each.

    Adds a trial a server to ``trials``; the caller fills in block and order. A server that fails is left
    out with the warning ``trial-failed``. Where Ctrl-C ends it early, the rounds that all servers have
    finished are kept.
    """
    slices = int(parameters["slices"])
    loads: dict[str, Load] = {}
    windows: dict[str, list[Window]] = {}
    try:
        with ExitStack() as stack:
            for server in sequence:
                bench.progress(f"opening {parameters['connections']:,} connections to {server.name}")
                with _dropped_if_it_fails(bench, loads, server):
                    loads[server.name] = _open(stack, bench, scenario, server, parameters)
            for turn in range(slices):
                bench.progress(f"slice {turn + 1} of {slices}")
                for server in sequence if turn % 2 == 0 else sequence[::-1]:
                    if server.name in loads:
                        with _dropped_if_it_fails(bench, loads, server):
                            window = loads[server.name].measure(SETTLE, parameters["seconds"] / slices)
                            windows.setdefault(server.name, []).append(window)
    finally:
        rounds = min((len(windows.get(name, ())) for name in loads), default=0)
        for server in sequence if rounds else ():
            if server.name not in loads:
                continue
            window = _sum(windows[server.name][:rounds])
            trials.append(scenario.result(bench, server, window))


@contextmanager
def _dropped_if_it_fails(bench: Bench, loads: dict[str, Load], server: Server) -> Iterator[None]:
    """Where the server or its generator fails inside, take it out of ``loads`` and warn."""
    try:
        yield
    except (ServerFailed, GeneratorFailed, BuildFailed) as error:
        loads.pop(server.name, None)
        bench.warn("trial-failed", str(error), server.name)


def _open(
    stack: ExitStack, bench: Bench, scenario: Confirm, server: Server, parameters: dict[str, Any]
) -> Load:
    """A fresh process of ``server``, all its connections open and confirmed, and warm."""
    process = stack.enter_context(ServerProcess(server, bench.server_cores))
    load = stack.enter_context(scenario.load(bench, process, parameters))
    load.grow()
    load.measure(parameters["warmup"], 0.01)
    return load


def _sum(windows: Sequence[Window]) -> Window:
    """The slices of one server as one window."""
    seconds = sum(window.seconds for window in windows)
    cpu: dict[str, float] = {}
    for name in windows[0].cpu:
        values = [window.cpu[name] for window in windows]
        if name in _SUMMED:
            cpu[name] = sum(values)
        elif name in _GREATEST:
            cpu[name] = max(values)
        else:  # shares of a core
            cpu[name] = sum(window.cpu[name] * window.seconds for window in windows) / seconds
    histograms: dict[str, Counter[int]] = {}
    for window in windows:
        for name, counts in window.histograms.items():
            for value, count in counts:
                histograms.setdefault(name, Counter())[value] += count
    return Window(
        seconds=seconds,
        messages=sum(window.messages for window in windows),
        server_cpu=sum(window.server_cpu for window in windows),
        generator_cpu=sum(window.generator_cpu for window in windows),
        cpu=cpu,
        errors=windows[-1].errors,  # the generator counts them over its whole life
        histograms={name: sorted(counts.items()) for name, counts in histograms.items()},
        series={"confirmed": _rates(windows)},
        sessions=sum(window.sessions for window in windows),
        unsent=sum(window.unsent for window in windows),
        server_cores=max(window.server_cores for window in windows),
        generator_cores=windows[0].generator_cores,
    )


def _rates(windows: Sequence[Window]) -> list[tuple[float, float]]:
    """Confirmations a second, a point a slice, over the seconds that the server was under load."""
    ends = accumulate(window.seconds for window in windows)
    return [(end, window.messages / window.seconds) for end, window in zip(ends, windows, strict=True)]
