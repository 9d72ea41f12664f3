"""What is asked of Tsung, and what is read from its log."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks.experiments.tsung import mean_us, plan, received_segments, requests
from tests.benchmarks.measure.test_scenarios import window

LOG = """# stats: dump at 1795449827
stats: request 100 2.0 0.8 20.7 0.03 0 0
# stats: dump at 1795449837
stats: request 400 1.0 0.8 20.7 0.03 2.0 100
stats: connect 5 7.7 6.5 20.6 3.4 0 0
# stats: dump at 1795449847
stats: request 500 1.0 0.8 20.7 0.03 1.2 500
stats: match 1000 1000
"""


def test_plan_is_well_formed() -> None:
    """The configuration is XML with the port, the loop and, where asked for, the pauses."""
    root = ElementTree.fromstring(plan(4321, 77, 0.1))
    assert root.find("servers/server").attrib["port"] == "4321"  # type: ignore[union-attr]
    loop = root.find("sessions/session/for")
    assert loop is not None
    assert loop.attrib["to"] == "77"
    assert loop.find("thinktime").attrib == {"value": "0.1", "random": "true"}  # type: ignore[union-attr]
    assert loop.find("request/raw").attrib["data"] == "m" * 32 + "\n"  # type: ignore[union-attr]
    assert ElementTree.fromstring(plan(1, 2)).find("sessions/session/for/thinktime") is None


def test_log_gives_counts_and_mean() -> None:
    """All requests, the mean weighted by count, and the counts of the full intervals only."""
    count, mean, full = requests(LOG)
    assert (count, full) == (1000, [400])
    assert mean == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("log", "complaint"),
    [("", "no requests"), (LOG + "stats: nomatch 3 3\n", "not what Tsung expected")],
)
def test_log_without_results_is_an_error(log: str, complaint: str) -> None:
    """No requests, or wrong replies: no opinion."""
    with pytest.raises(ValueError, match=complaint):
        requests(log)


def test_mean_and_segments() -> None:
    """A histogram's mean weighs values by count; the kernel counts segments."""
    shown = window()
    shown.histograms["latency"] = [(10, 3), (50, 1)]
    assert mean_us(shown, "latency") == 20
    assert received_segments() > 0
