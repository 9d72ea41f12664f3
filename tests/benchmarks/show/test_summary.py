"""The table at the end of a run: it answers the scenario's question, and nothing in it is cut."""

from __future__ import annotations

import io
import random

import pytest
from rich.console import Console

from benchmarks.measure.scenarios import SCENARIOS
from benchmarks.measure.servers import SERVERS
from benchmarks.reports.report import Fired, Report, Trial
from benchmarks.show.progress import summary
from benchmarks.show.summary import COLUMNS, SHORT
from tests.benchmarks.made_reports import encoded, make

FIRST = {
    "confirm": "CPU/msg", "pipelined": "CPU/msg", "handler": "CPU/msg", "paced": "p50",
    "connections": "CPU/conn",
    "memory": "server", "churn": "CPU/sess", "idle": "CPU ratio", "tls": "CPU/msg", "push": "CPU/deliv",
    "rooms": "CPU/deliv", "stuck": "p50",
}  # fmt: skip
"""What answers each scenario's question."""


def made(name: str, blocks: int = 3) -> Report:
    """A report of a scenario with all servers, in figures with as many digits as any has."""
    scenario, source = SCENARIOS[name], random.Random(name)
    names = [*SERVERS, *(["chat_gevent +stuck"] if name == "stuck" else [])]
    report = make(
        dict.fromkeys(names, 1.0), blocks=0, scenario=name, metrics=scenario.metrics,
        histograms=scenario.histograms, series={},
    )  # fmt: skip
    for block in range(blocks):
        for server in names:
            latencies = [round(source.lognormvariate(12, 1)) for _ in range(1200)]
            report.trials.append(
                Trial(
                    server=server, block=block, order=len(report.trials), seconds=1, messages=1000,
                    values={n: source.uniform(1000, 900_000) for n in scenario.metrics},
                    cpu={"server": 1.0, "generator": 1.0}, saturated=source.random() < 0.5,
                    histograms={h: encoded(latencies) for h in scenario.histograms},
                )
            )  # fmt: skip
    return report


def lines_of(report: Report, width: int, verbose: bool = False) -> list[str]:
    """What a run of it says at its end, on a terminal of that width."""
    out = io.StringIO()
    summary(report, Console(file=out, width=width, force_terminal=True, color_system=None), verbose)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_no_cell_is_cut(name: str, width: int) -> None:
    """With all servers and figures of six digits every name, heading and cell is whole, and the line fits."""
    lines = lines_of(made(name), width)
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    heading = next(line for line in lines if "ratio of" in line)
    assert FIRST[name] in heading.replace("  ", " ")
    rows = [line for line in lines if line.split("  ")[0] in SERVERS]
    assert len(rows) == len(SERVERS)
    assert all(row.count("–") >= 1 for row in rows)  # the range of the ratio
    rest = len(lines) - lines.index(heading)
    assert rest < len(SERVERS) + 20


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_every_heading_is_short_and_explained(name: str) -> None:
    """A metric's heading has at most 10 letters and its title stands in the legend."""
    scenario = SCENARIOS[name]
    assert set(scenario.metrics) <= set(SHORT)
    assert all(len(SHORT[metric]) <= 10 for metric in scenario.metrics)
    legend = " ".join(" ".join(lines_of(made(name), 140)).split())
    wanted = COLUMNS.get(name, ())[:2]
    assert all(scenario.metrics[metric].title in legend for metric in wanted if metric in scenario.metrics)


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_rows_are_in_the_order_of_the_figure(better: str) -> None:
    """The best comes first; a server without a figure is the last, with the reason below."""
    report = make({"b": 20, "a": 10, "none": 1, "c": 30}, noise=0.001, drift=0)
    if better == "higher":
        report.metrics = {"rate": report.metrics["rate"]}
    report.trials = [trial for trial in report.trials if trial.server != "none"]
    report.warnings.append(Fired(check="trial-failed", message="none is not ready: no luck", server="none"))
    lines = lines_of(report, 80)
    names = [
        line.split()[0] for line in lines if line.split()[:1] and line.split()[0] in ("a", "b", "c", "none")
    ]
    assert names[:4] == ["a", "b", "c", "none"]
    assert any(line.startswith("–: ") and line.endswith("no luck") for line in lines)


def test_a_rate_that_was_not_sought_has_its_reason() -> None:
    """Without a bound ``paced`` has no highest rate: the column is left out, and why is said."""
    report = made("paced")
    for trial in report.trials:
        del trial.values["highest_rate"]
    text = " ".join(lines_of(report, 80))
    assert "not shown: no highest rate was sought (--bound-ms 0)" in text
    assert "max rate" not in text


def test_a_server_that_was_not_saturated_may_do_more() -> None:
    """Its rate is a bound, with a sign that is explained."""
    text = " ".join(lines_of(make({"a": 10.0, "b": 12.0}, saturated=False), 140))
    assert text.count("≥") == 3
    assert "≥: the server was not saturated in every trial" in text


def test_at_most_ten_lines_of_warnings() -> None:
    """Warnings are grouped by kind; beyond ten kinds the rest is counted, and shown with -v."""
    fired = [
        Fired(check=f"check-{kind}", message=f"something happened to {server}", server=server, block=block)
        for kind in range(13)
        for server in "abcdef"
        for block in range(5)
    ]
    report = make({"a": 10, "b": 12}, warnings=fired)
    shown = [line for line in lines_of(report, 200) if line.startswith("warning: ")]
    assert len(shown) == 10
    assert shown[0] == (
        "warning: check-0: a, b, c, d and 2 more: something happened to f (30 times; the last is shown)"
    )
    assert shown[-1] == "warning: 4 more kinds of warnings: -v shows them all"
    assert len([line for line in lines_of(report, 200, True) if line.startswith("warning: ")]) == 13 * 6
