"""Counting without loss: rounding as HDR does, merging of workers, conditions, schedules, templates."""

from __future__ import annotations

import math
import random
from dataclasses import asdict
from itertools import islice
from time import perf_counter, time
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.reports.histograms import HIGHEST_US, encode_counts, histogram
from loadtest.count.counters import Counters, Entry, EntryTotals, total
from loadtest.count.health import Sample, Sampler, verdicts
from loadtest.count.results import Results, percentiles
from loadtest.count.run_record import WINDOWS, RunRecord, messages_in
from loadtest.count.thresholds import Threshold
from loadtest.framing import Line
from loadtest.messages import Template
from loadtest.schedule import Schedule, parse_rate

LATENCIES = st.lists(st.integers(1, 120_000_000), min_size=1, max_size=300)


def counted(values: list[int]) -> Entry:
    """An entry that was given these latencies in microseconds."""
    entry = Entry("CONFIRM")
    for value in values:
        entry.whole[value] += 1
    return entry


def sample(second: int, *, span: float = 1.0, cpu: float = 0.3, late: int = 100) -> Sample:
    """What a process says of one second."""
    return Sample(second, span, span, cpu, {late: 20}, 0, 0)


@given(LATENCIES)
def test_kept_counts_make_the_histogram_that_recording_each_value_makes(values: list[int]) -> None:
    """Rounding keys as HDR does loses nothing that an HDR histogram of 3 digits would keep."""
    each = HdrHistogram(1, HIGHEST_US, 3)
    for value in values:
        each.record_value(value)
    kept = histogram(EntryTotals.of(counted(values)).service)
    assert kept.get_total_count() == len(values)
    for percent in (0, 50, 90, 99, 99.9, 100):
        assert kept.get_value_at_percentile(percent) == each.get_value_at_percentile(percent)
    assert kept.encode() == each.encode()


def test_a_histogram_merged_from_four_workers_equals_that_of_all_samples_together() -> None:
    """Percentiles of a distributed run are those of all its samples; nothing is averaged on the way."""
    draw = random.Random(1)
    samples = [[int(draw.lognormvariate(6 + worker, 1)) + 1 for _ in range(5_000)] for worker in range(4)]
    master = RunRecord()
    for number, values in enumerate(samples):
        worker, counters = RunRecord(), Counters()
        for value in values:
            counters.entry("CONFIRM").whole[value] += 1
        worker.take(f"worker-{number}", counters, sample(100), 0)
        sent = msgpack.dumps({"loadtest": worker.to_message()})
        master.add(msgpack.loads(sent, strict_map_key=False)["loadtest"])
    together = [value for values in samples for value in values]
    expected = encode_counts(EntryTotals.of(counted(together)).service)
    assert encode_counts(master.messages().service) == expected
    assert encode_counts(messages_in(master.seconds.values()).service) == expected
    assert len(master.health) == 4
    assert master.messages().passed == 20_000


def test_seconds_go_into_windows_without_loss() -> None:
    """A long run is cut into a bounded number of parts that hold every sample."""
    record, counters = RunRecord(), Counters()
    for second in range(1, 200):
        counters.entry("CONFIRM").whole[second] += second
        counters.entry("CONFIRM").failures["ReadTimeout"] += 1
        record.take("one", counters, sample(second), 0)
        record.settle(second)
    assert len(record.windows) <= WINDOWS
    parts = [*record.windows.values(), *record.seconds.values()]
    assert messages_in(parts).passed == record.messages().passed == sum(range(200))
    assert messages_in(parts).failed == 199
    assert len(record.points()) == 199


def test_a_rate_is_what_was_answered_in_the_time_that_was_measured() -> None:
    """A second in which two processes counted for 1.02 s each has 2% more answers, and no higher rate."""
    record, counters = RunRecord(), Counters()
    for second in range(10):
        for process in ("one", "other"):
            counters.entry("CONFIRM").whole[100] += 255
            record.take(process, counters, sample(second, span=1.02), 0)
    assert Results(record)["rate"] == pytest.approx(500)
    assert [point.rate for _, point in record.points()] == [pytest.approx(500)] * 10
    record.spawned_at, record.stopping_at = 4.5, 7.5
    counters.entry("CONFIRM").whole[100] += 255  # in a sample of the same second that is late by 1.02 s
    record.take("one", counters, sample(5, span=1.02), 0)
    assert Results(record)["rate"] == pytest.approx((2 * 2 * 255 + 255) / (3 * 1.02))


def test_samples_meet_at_whole_seconds_and_leave_no_time_out() -> None:
    """What is counted in a second of the clock is of that second; spans add up to all the time there was."""
    sampler = Sampler(Counters())
    before = perf_counter()
    sampler.begin()
    begin, taken = perf_counter(), []
    for number in range(3):
        if number < 2:  # the last one at once, as when a worker reports
            sampler.wait()
        at = time()
        last = perf_counter()
        taken.append((at, sampler.sample(), time()))
    # Its clock was read within begin() first, and within the last call of sample() last.
    assert last - begin <= sum(one.span for _, one, _ in taken) <= perf_counter() - before
    for at, one, over in taken:
        assert at - one.span / 2 - 1 < one.second <= over - one.span / 2
    short = taken[-1][1]
    assert short.seconds == pytest.approx(short.span if short.span > 0.2 else 0.0)  # a stall may make it long
    assert short.seconds or not short.cpu


def test_a_report_that_comes_late_is_added_to_what_was_there() -> None:
    """A second that is settled keeps its messages and connections; totals, course and windows agree."""
    record, counters = RunRecord(), Counters()
    for process, answered, latency in (("early", 50, 100), ("late", 7, 900)):
        counters.entry("CONFIRM").whole[latency] += answered
        counters.entry("CONFIRM").failures["ReadTimeout"] += 1
        counters.open = answered
        record.take(process, counters, sample(100), 0)
        ((number, point),) = record.points()
        assert (number, point.messages) == (100, record.messages().passed)
        record.settle(200)
        assert record.points() == [(number, point)]
    assert (point.messages, point.failed, point.open, point.rate) == (57, 2, 57, 57)
    assert point.service == (100, 100, 900)
    assert messages_in(record.windows.values()).passed == record.messages().passed == 57


def test_the_connections_of_a_lost_process_are_open_no_more() -> None:
    """They were in the seconds in which it said so; if it comes back, they are what it says then."""
    record, counters = RunRecord(), Counters()
    for process, held in (("one", 5), ("other", 7)):
        counters.open = held
        record.take(process, counters, sample(100), 0)
    record.forget_open("other")
    record.forget_open("unknown")
    assert record.open == {"one": 5}
    assert [point.open for _, point in record.points()] == [12]
    record.take("other", counters, sample(101), 0)
    assert record.open == {"one": 5, "other": 7}


def test_a_tally_that_begins_anew_has_only_what_came_since() -> None:
    """As when a person resets the master's figures: workers' earlier counts don't come back."""
    worker, counters = Schedule(0.0, 0.01), Counters()

    def report(now: float, answered: int) -> dict[str, Any]:
        counters.intended += worker.newly_due(now)
        counters.entry("CONFIRM").whole[100] += answered
        record = RunRecord()
        record.take("one", counters, sample(int(now)), 0)
        return record.to_message()

    master = RunRecord()
    master.add(report(9.995, 1000))
    master.add(report(19.995, 900))
    assert (master.counts["intended"], master.messages().passed) == (2000, 1900)
    master = RunRecord()
    master.add(report(29.995, 1000))
    assert (master.counts["intended"], master.messages().passed) == (1000, 1000)


def test_the_first_byte_differs_from_the_reply_only_where_it_came_apart() -> None:
    """Replies in one read count once; the others count their two moments."""
    entry = counted([100, 200])
    entry.split_first[50] += 1
    entry.split_reply[300] += 1
    kept = EntryTotals.of(entry)
    assert kept.service == {100: 1, 200: 1, 300: 1}
    assert kept.first_byte == {50: 1, 100: 1, 200: 1}
    assert asdict(total([kept, EntryTotals()])) == asdict(kept)


def test_a_percentile_that_rests_on_too_few_samples_is_not_shown() -> None:
    """Fewer than 10 samples beyond it say nothing."""
    assert percentiles({100: 500}, (50, 99)) == [100.0, None]
    assert percentiles({100: 1000}, (50, 99, 99.9)) == [100.0, 100.0, None]


def tally_of(passed: dict[int, int], failed: int) -> RunRecord:
    """A record with these service times and failures."""
    record = RunRecord()
    record.entries["CONFIRM"] = EntryTotals(
        service=passed, failures={"ReadTimeout": failed} if failed else {}
    )
    return record


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("p99>50ms", True),
        ("p99 > 0.2s", False),
        ("p50>=1ms", True),
        ("service.p99.9<1ms", False),
        ("errors>0.1%", True),
        ("errors>1%", False),
        ("errors>50", False),
        ("errors>=50", True),
        ("response.p99>1s", True),
        ("aborted>0", False),
    ],
)
def test_conditions_say_whether_a_run_failed(text: str, broken: bool) -> None:
    """Percentiles with units, shares and counts; a figure that was not measured can't clear a run."""
    figures = Results(tally_of({1_000: 9_000, 100_000: 1_000}, 50))
    reason = Threshold.parse(text).broken(figures)
    assert (reason is not None) is broken
    assert reason is None or reason.startswith(text)


@pytest.mark.parametrize(("text", "needed"), [("p99>1s", "1,000"), ("service.p99.9>1s", "10,000")])
def test_a_percentile_that_is_not_shown_does_not_clear_a_run(text: str, needed: str) -> None:
    """One rule for both; the reason is that there are too few samples, and how many it takes."""
    figures = Results(tally_of({1_000: 999}, 0))
    reason = Threshold.parse(text).broken(figures)
    assert reason is not None
    assert f"can't be judged by 999 samples: it takes {needed}" in reason
    assert Threshold.parse("p98>1s").broken(figures) is None
    assert "was not measured" in str(Threshold.parse("connect.p50>1s").broken(figures))


@pytest.mark.parametrize(
    "text", ["p99", "p99>50", "errors>5ms", "p99>5%", "rate>5ms", "latency>1ms", "p99=>1ms", ""]
)
def test_a_condition_that_cannot_be_read_is_a_sentence(text: str) -> None:
    """It says how to write one."""
    with pytest.raises(ValueError, match="--fail-if"):
        Threshold.parse(text)


def test_a_schedule_skips_nothing_and_counts_what_was_due() -> None:
    """Intended starts do not move when a user is late."""
    schedule = Schedule(10.0, 0.5)
    assert [schedule.take() for _ in range(3)] == [10.0, 10.5, 11.0]
    assert [schedule.due(now) for now in (11.0, 11.49, 11.5, 20.0)] == [3, 3, 4, 21]
    assert Schedule(10.0, 0.5).due(9.9) == 0
    schedule.change(0.25)
    assert schedule.take() == pytest.approx(11.25)
    assert Schedule(0.0, 1.0, most=3).due(100.0) == 3
    with pytest.raises(ValueError, match="no schedule"):
        Schedule(0.0, math.inf)


def test_messages_that_are_sent_together_are_due_together() -> None:
    """Batches of 4, 4 and 2 of 10: the rate is that of messages, and no more are due than there are."""
    schedule = Schedule(0.0, 0.25, 4, 10)
    assert schedule.due(-0.1) == 0
    assert [schedule.due(now) for now in (0.0, 0.99, 1.0, 1.99, 2.0, 9.0)] == [4, 4, 8, 8, 10, 10]
    assert [schedule.take(size) for size in (4, 4, 2)] == [0.0, 1.0, 2.0]
    assert [schedule.due(now) for now in (1.99, 2.0, 9.0)] == [8, 10, 10]
    uneven = Schedule(0.0, 0.25, 4)
    assert [uneven.take(size) for size in (4, 1, 4)] == [0.0, 1.0, 1.25]
    uneven.change(0.5)
    assert uneven.take(4) == 1.25 + 4 * 0.5


def test_rates_are_read_as_people_write_them() -> None:
    """In all, or per user."""
    assert parse_rate("200") == (200.0, False)
    assert parse_rate("2.5/user") == (2.5, True)
    for text in ("0", "-1", "x", "5/s", "inf", "nan"):
        with pytest.raises(ValueError, match="messages a second"):
            parse_rate(text)


def test_templates_fill_in_their_fields_and_expect_what_they_send() -> None:
    """Every message is its own, and its confirmation is expected."""
    exchanges = list(islice(Template("{{u}}{user} n{n} {random:4}").exchanges(Line(), 3), 2))
    assert exchanges[0][0].startswith(b"{u}3 n0 ")
    assert exchanges[1][0].startswith(b"{u}3 n1 ")
    assert all(expected == b"Received: " + wire and len(wire) == 13 for wire, expected in exchanges)
    for text in ("{x}", "{user!r}", "{n:5}", "{random:x}", "a\nb"):
        with pytest.raises(ValueError, match=r"field|line break"):
            Template(text)


def test_a_generator_that_was_the_bottleneck_is_named() -> None:
    """Busy, late, out of files or out of ports: each has a sentence, and a healthy one has none."""
    record, counters = RunRecord(), Counters()
    for second in range(10):
        record.take("busy", counters, sample(second, cpu=0.97), 0)
        record.take("late", counters, sample(second, late=30_000), 0)
        record.take("well", counters, sample(second), 0)
    found = verdicts(record.health.items(), [], 28_000)
    assert [check for check, _ in found] == ["generator-busy", "generator-late"]
    assert "busy" in found[0][1]
    assert "late" in found[1][1]
    well = [("well", record.health["well"])]
    assert verdicts(well, [], 28_000) == []
    out_of = ["ConnectFailed(EMFILE)", "ConnectFailed(EADDRNOTAVAIL)"]
    assert [check for check, _ in verdicts(well, out_of, 28_000)] == ["generator-files", "generator-address"]
    record.health["well"].ports = 28_000  # it could connect at first, so its address was its own
    assert [check for check, _ in verdicts(well, out_of, 28_000)] == ["generator-files", "generator-ports"]
