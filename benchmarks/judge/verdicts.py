"""From figures to verdicts: each ratio is estimated, p is corrected over its family, and a word is said.

A family is what a reader looks at at once: the candidates by one metric, against one report's baseline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.judge import caveats, noise
from benchmarks.judge.caveats import Side
from benchmarks.judge.scatter import prior
from benchmarks.judge.statistics import (
    ALPHA,
    LEAST,
    MOST_BLOCKS,
    Estimate,
    Verdict,
    blocks_needed,
    decide,
    holm,
    paired,
    unpaired,
)
from benchmarks.reports.figures import Figure, by_block
from benchmarks.reports.report import Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One metric of a candidate against the baseline.

    ``values`` are the two figures shown. ``p`` is corrected; it and ``verdict`` are None for a metric that
    takes no part in verdicts; ``p`` alone where nothing but *unclear* was possible. ``reason`` says why a
    verdict is not a plainer one; it may be empty.
    """

    name: str
    metric: Metric
    baseline: str
    candidate: str
    values: tuple[float, float]
    estimate: Estimate
    floor: float
    p: float | None = None
    verdict: Verdict | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One metric of one pair, before anything is estimated; ``caveat`` forbids a verdict but *unclear*."""

    one: Side
    two: Side
    figure: Figure
    other: Figure
    metric: Metric
    caveat: str = ""

    @property
    def judged(self) -> bool:
        """Whether it takes part in the correction of p values."""
        return self.metric.primary and not self.caveat


def judge(jobs: Sequence[Job], margin: float) -> list[Comparison]:
    """Estimate every ratio, correct the p values of each family together, and say the verdicts.

    :param margin: a difference of less than this fraction is *the same*.
    """
    families: dict[tuple[str, int], list[int]] = {}
    for index, job in enumerate(jobs):
        families.setdefault((job.figure.name, id(job.two.report)), []).append(index)
    found: dict[int, Comparison] = {}
    for members in families.values():
        judged = [index for index in members if jobs[index].judged]
        together = max(1, len(judged))
        scatters = {index: _scatter(jobs[index]) for index in members}
        estimates = {
            index: _estimate(jobs[index], together, [s for i, s in scatters.items() if i != index])
            for index in members
        }
        corrected = dict(zip(judged, holm([estimates[index].p for index in judged]), strict=True))
        for index in members:
            found[index] = _verdict(jobs[index], estimates[index], corrected.get(index), margin, together)
    return [found[index] for index in range(len(jobs))]


def _blocks(job: Job) -> tuple[list[float], list[float]]:
    """The figures of both servers of one run in the blocks that both were measured in."""
    first = by_block(job.figure.samples[job.one.server.name])
    second = by_block(job.other.samples[job.two.server.name])
    blocks = sorted(first.keys() & second.keys())
    return [first[b] for b in blocks], [second[b] for b in blocks]


def _scatter(job: Job) -> tuple[int, float]:
    """In how many blocks a pair of one run was measured, and the scatter of its ratio."""
    if job.one.report is not job.two.report:
        return 0, 0.0
    estimate = paired(*_blocks(job))
    return estimate.n, estimate.scatter


def _estimate(job: Job, together: int, others: Sequence[tuple[int, float]]) -> Estimate:
    if job.one.report is not job.two.report:
        first = by_block(job.figure.samples[job.one.server.name])
        second = by_block(job.other.samples[job.two.server.name])
        return unpaired(list(first.values()), list(second.values()))
    one, two = _blocks(job)
    alike = [scatter for n, scatter in others if n == len(one) >= LEAST]
    return paired(one, two, together, prior(alike, len(one) - 1))


def _floor(job: Job) -> float:
    if job.one.report is job.two.report:
        return noise.within(job.one.report, job.figure, job.one.server.name, job.two.server.name)
    return max(noise.between(job.figure, job.one.server.name), noise.between(job.other, job.two.server.name))


def _verdict(job: Job, estimate: Estimate, p: float | None, margin: float, together: int) -> Comparison:
    one, two = job.one, job.two
    floor = _floor(job)
    verdict: Verdict | None = None
    reason = ""
    few = caveats.too_few_runs(one, two, together)
    if p is not None:
        verdict = decide(estimate, p, margin, floor, job.metric.better == "lower")
        if verdict in (Verdict.FASTER, Verdict.SAME) and (reason := caveats.more_failures(one, two)):
            verdict = Verdict.UNCLEAR
        elif verdict is Verdict.UNCLEAR:
            reason = few or _why_unclear(job, estimate, floor, p, margin, together)
    elif job.metric.primary:
        verdict, reason = Verdict.UNCLEAR, "; ".join(filter(None, (job.caveat, few)))
    return Comparison(
        name=job.figure.name,
        metric=job.metric,
        baseline=one.label,
        candidate=two.label,
        values=(job.figure.shown[one.server.name], job.other.shown[two.server.name]),
        estimate=estimate,
        floor=floor,
        p=p,
        verdict=verdict,
        reason=reason,
    )


def _why_unclear(job: Job, estimate: Estimate, floor: float, p: float, margin: float, together: int) -> str:
    one_run = job.one.report is job.two.report
    if estimate.method == "none":
        what = "block" if one_run else "trial"
        return f"{estimate.n} {what}{'' if estimate.n == 1 else 's'} to go by; a verdict takes {LEAST}"
    if (
        p < ALPHA
        and estimate.ratio > 0
        and abs(math.log(estimate.ratio)) <= math.log1p(floor) > math.log1p(margin)
    ):
        return f"within the noise floor of {floor:.1%}"
    holds_one = estimate.low <= 1 <= estimate.high
    if p < ALPHA:
        why = "differs, but by how much compared with the margin is open"
    elif holds_one:
        why = "the interval holds both 1 and more than the margin"
    else:
        many = f" after correction for {together} comparisons" if together > 1 else ""
        why = f"p is {p:.2g}{many}, and has to be below {ALPHA:g}"
    if not one_run:
        return why
    blocks = blocks_needed(estimate, together, margin)
    take = f"over {MOST_BLOCKS:,}" if blocks is None else f"about {max(blocks, estimate.n + 1)}"
    return f"{why}; as noisy as this, a verdict takes {take} blocks, not {estimate.n}"
