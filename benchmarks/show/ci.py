"""What a history says to continuous integration: sentences, a JUnit file, and annotations of GitHub."""

from __future__ import annotations

from xml.etree import ElementTree as Xml

from benchmarks.judge.change_points import LEAST, Change
from benchmarks.judge.trends import Member, Trend, Trends
from benchmarks.show.wording import percent, ratio


def _revision(member: Member) -> str:
    revision = member[1].revision
    return (revision.commit[:10] or member[0]) + ("+" if revision.dirty else "")


def title(trend: Trend) -> str:
    """What a series is of."""
    return f"{trend.scenario}: {trend.server}, {trend.metric.title}, ratio to {trend.reference}"


def sentence(trend: Trend, change: Change) -> str:
    """One change: how large, which way, and between which revisions and runs."""
    before, after = trend.between(change)
    size = percent(abs(change.ratio - 1))
    way = "better" if not trend.worse(change) else "worse"
    more = "more" if change.ratio > 1 else "less"
    return (
        f"{size} {more} ({way}) between {_revision(before)} ({before[1].created[:10]}) and "
        f"{_revision(after)} ({after[1].created[:10]}), in {len(trend.ratios) - change.at} runs since"
    )


def lines(trends: Trends) -> list[str]:
    """Every change, and how sure they are."""
    found = [f"{title(trend)}: {sentence(trend, c)}" for trend in trends.judged for c in trend.changes]
    if trends.judged:
        runs = max(len(trend.ratios) for trend in trends.judged)
        found = found or ["no change of level"]
        found.append(
            f"{len(trends.judged)} series judged; false alarms: {trends.alarms:.1%} of 1,000 histories of "
            f"{runs} runs without a change, simulated from this one's noise ({percent(trends.noise)} a run)"
        )
    if trends.short:
        found.append(f"{len(trends.short)} series not judged: {LEAST} runs under equal conditions are needed")
    if not trends.judged and not trends.short:
        found.append("nothing to judge: a run needs a second server, whose ratio to the first can be taken")
    return found


def junit(trends: Trends, margin: float) -> str:
    """A test case a series; one whose latest change is for the worse by more than ``margin`` has failed."""
    failures = [trend for trend in trends.judged if trend.regressed(margin)]
    suite = Xml.Element(
        "testsuite",
        name="benchmarks",
        tests=str(len(trends.judged) + len(trends.short)),
        failures=str(len(failures)),
        skipped=str(len(trends.short)),
    )
    for trend in (*trends.judged, *trends.short):
        case = Xml.SubElement(
            suite, "testcase", classname=trend.scenario, name=f"{trend.server}: {trend.metric.title}"
        )
        if change := trend.regressed(margin):
            Xml.SubElement(case, "failure", message=sentence(trend, change)).text = " ".join(
                map(ratio, trend.ratios)
            )
        elif trend in trends.short:
            Xml.SubElement(case, "skipped", message=f"{len(trend.ratios)} of {LEAST} runs")
    return Xml.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def github(trends: Trends, margin: float) -> list[str]:
    """Workflow commands: an error for each regression, a notice for every other change."""
    found = []
    for trend in trends.judged:
        for change in trend.changes:
            level = "error" if change is trend.regressed(margin) else "notice"
            found.append(f"::{level} title={_property(title(trend))}::{_data(sentence(trend, change))}")
    return found


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
