"""What abusive clients cost: the ratio is called what it is. A whole run is in tests/end_to_end."""

from __future__ import annotations

import statistics

import pytest

from benchmarks.experiments.abuse import ratio_of, show


def test_the_ratio_is_hodges_and_lehmanns(capsys: pytest.CaptureFixture[str]) -> None:
    """Not the median of the pairs' ratios but of the means of two of them, and so it is called."""
    alone, abused = [1.0] * 7, [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    ratio = ratio_of(alone, abused)
    assert statistics.median(abused) == 1.0
    assert ratio["hodges_lehmann"] == pytest.approx(2**0.5)
    turns = {"p50_ms": 1.0, "p99_pooled_ms": 1.0, "p99_ms": alone}
    memory = [{"server": 1, "tcp_buffers": 1}] * 3
    counts = {"bytes_of_never_readers": 0, "came_back": 0, "bytes_of_slow_loris": 1, "abused_seconds": 1}
    show({"alone": turns, "abused": turns, "p99_ratio": ratio, "memory_mib": memory, **counts})
    assert "p99 with abuse is 1.41 of that without (Hodges-Lehmann estimate, 95%" in capsys.readouterr().out
