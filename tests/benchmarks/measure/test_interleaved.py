"""Slices of a server add up to one trial."""

from __future__ import annotations

import pytest

from benchmarks.measure.scenarios.base import Window
from benchmarks.measure.scenarios.interleaved import _sum


def _window(seconds: float, messages: int, server: float) -> Window:
    return Window(
        seconds=seconds,
        messages=messages,
        server_cpu=server * seconds,
        generator_cpu=0.1 * seconds,
        cpu={"server": server, "involuntary_switches": 3, "steal": server / 100},
        errors={"reset": 1},
        histograms={"latency": [(10, messages - 1), (20, 1)]},
        series={},
        server_cores=2,
        generator_cores=3,
    )


def test_slices_add_up() -> None:
    """CPU and messages are summed, shares weighed by time, histograms added, errors those at the end."""
    whole = _sum([_window(1.0, 100, 0.5), _window(3.0, 200, 0.9)])
    assert (whole.seconds, whole.messages) == (4.0, 300)
    assert whole.server_cpu == pytest.approx(0.5 + 2.7)
    assert whole.cpu == pytest.approx({"server": 0.8, "involuntary_switches": 6, "steal": 0.009})
    assert whole.histograms == {"latency": [(10, 298), (20, 2)]}
    assert (whole.server_cores, whole.generator_cores) == (2, 3)
    assert whole.errors == {"reset": 1}
    assert whole.series == {"confirmed": [(1.0, 100.0), (4.0, pytest.approx(200 / 3))]}
