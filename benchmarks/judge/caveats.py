"""Why a pair of servers gets no verdict, or none but *unclear*, in words for a person.

What failed is no figure: a server that did not start leaves no trial that could be slower. So whoever
compares asks here what is missing before saying that nothing is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from benchmarks.judge.statistics import ALPHA, LEAST, more_often
from benchmarks.reports.figures import failures, saturated
from benchmarks.reports.report import Fired, Report, Server

_GENERATOR: Final = ("generator-busy", "generator-late")
RATE: Final = "messages_per_second"
"""The metric of a Locust run that is the server's only where the server was the bottleneck."""


@dataclass(frozen=True, slots=True)
class Side:
    """One server of one report, and what it is called in the result.

    ``made`` has the times at which its runs were made, where a sample is a run.
    """

    label: str
    report: Report
    server: Server
    made: tuple[str, ...] = ()

    @property
    def runs(self) -> int:
        """How many runs there are; 0 where a sample is a trial."""
        return len(self.made)


def not_the_servers(side: Side, name: str) -> str:
    """Why a figure of a Locust run may not be the server's; empty where nothing speaks against it."""
    report = side.report
    if report.kind != "locust":
        return ""
    fired = [check for check in _GENERATOR if any(warning.check == check for warning in report.warnings)]
    if fired:
        return f"in {side.label} the load generator was at its limit ({fired[0]})"
    if name == RATE and not saturated(report, side.server.name):
        return (
            f"in the closed loop of {side.label} clients wait for their replies, and whether the server or "
            "they set the rate was not measured"
        )
    return ""


def too_few_runs(one: Side, two: Side, together: int) -> str:
    """Why so few runs cannot differ; empty where they can, or where a sample is no run."""
    runs = min(one.runs, two.runs)
    if not runs or (runs >= LEAST and _reachable(one.runs, two.runs, together)):
        return ""
    if runs == 1:
        return "one run a side: how much two runs of the same server differ is not known"
    return f"{runs} runs a side: slower or faster takes {runs_needed(together)}"


def one_after_the_other(one: Side, two: Side) -> str:
    """That all runs of a side were made before the other's first; empty where they were not.

    A machine that was slower meanwhile then looks like a server that is, and no number of runs tells.
    """
    if max(one.runs, two.runs) < 2:
        return ""
    for first, last in ((one, two), (two, one)):
        if max(first.made) < min(last.made):
            return (
                f"all runs of {first.label} were made before those of {last.label}, so that a change of the "
                "machine would look like one of the server; make them in turn"
            )
    return ""


def runs_needed(comparisons: int) -> int:
    """The least number of runs a side with which Mann and Whitney's p can be small enough, after Holm."""
    runs = LEAST
    while not _reachable(runs, runs, comparisons):
        runs += 1
    return runs


def _reachable(one: int, two: int, comparisons: int) -> bool:
    return 2 / math.comb(one + two, one) * comparisons <= ALPHA


def more_failures(one: Side, two: Side) -> str:
    """Of which requests more failed in ``two`` than chance explains, or in which blocks; else empty."""
    if more_failed_blocks(one, two):
        return failed(two)
    (before, of), (after, among) = (failures(side.report, side.server.name) for side in (one, two))
    if not after or more_often(before, of, after, among) >= ALPHA:
        return ""
    return f"{after:,} of {among:,} requests to {two.label} failed, {before:,} of {of:,} to {one.label}"


def more_failed_blocks(one: Side, two: Side) -> bool:
    """Whether ``two`` failed, as a whole, more often than ``one``."""
    return len(_failed_blocks(two)) > len(_failed_blocks(one))


def failed(side: Side) -> str:
    """In how many of its blocks a server failed, and its last message; empty where in none."""
    if not (blocks := _failed_blocks(side)):
        return ""
    every = {trial.block for trial in side.report.trials} | {
        fired.block for fired in side.report.warnings if fired.check == "trial-failed"
    }
    said = [fired.message for fired in _failures(side)]
    what = "runs" if side.runs else "blocks"
    return f"{side.label} failed in {len(blocks)} of {len(every)} {what} ({said[-1]})"


def _failed_blocks(side: Side) -> set[int | None]:
    return {fired.block for fired in _failures(side)}


def _failures(side: Side) -> list[Fired]:
    name = side.server.name
    return [fired for fired in side.report.warnings if fired.check == "trial-failed" and fired.server == name]


def why_nothing(one: Side, two: Side) -> str:
    """Why a pair shares no metric that takes part in verdicts."""
    for side in (two, one):
        trials = side.report.trials_of(side.server.name)
        if not trials:
            return failed(side) or f"{side.label} was not measured"
        if not any(trial.messages for trial in trials):
            return f"nothing was confirmed by {side.label}"
    return f"{two.label} shares no figure with {one.label} that takes part in a verdict"
