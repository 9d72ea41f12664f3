"""Histograms of reports, and the one rule for quantiles."""

from __future__ import annotations

import base64
import math
import statistics

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.reports.document import ReportError
from benchmarks.reports.histograms import (
    HIGHEST_US,
    add_rounded,
    added,
    decode,
    encode,
    encode_counts,
    histogram,
    quantile,
    quantile_of,
    samples_needed,
    sure_quantile,
)

VALUES = st.lists(st.integers(1, 10_000), min_size=1, max_size=200)


def test_quantile_is_the_value_at_which_so_many_are_reached() -> None:
    """The nearest rank of counts; none without any value."""
    counts = {900: 1, 10: 98, 20: 1}
    assert quantile(counts, 0.5) == 10
    assert quantile(counts, 0.99) == 20
    assert quantile(counts, 1) == 900
    with pytest.raises(ValueError, match="no values"):
        quantile({}, 0.5)
    with pytest.raises(ValueError, match="no values"):
        quantile_of([], 0.5)


@given(VALUES, st.sampled_from([0.0, 0.25, 0.5, 0.9, 0.99, 1.0]))
def test_quantile_is_a_measured_value_with_a_share_at_or_below_it(values: list[int], q: float) -> None:
    """At least the share q lies at or below it, and less than q strictly below: the nearest rank."""
    found = quantile_of(values, q)
    assert found in values
    assert sum(value <= found for value in values) >= q * len(values) - 1e-6
    assert found == min(values) or sum(value < found for value in values) < q * len(values)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=99).filter(lambda values: len(values) % 2 == 1))
def test_the_middle_one_is_the_median(values: list[float]) -> None:
    """The median of an odd number of values, as the standard library has it."""
    assert quantile_of(values, 0.5) == statistics.median(values)


@given(VALUES)
def test_a_histogram_of_a_report_comes_back_as_it_was(values: list[int]) -> None:
    """Encoded and decoded, it has the counts that it was made of."""
    counts = {value: values.count(value) for value in values}
    decoded = decode(encode_counts(counts), "here")
    assert decoded.get_total_count() == len(values)
    for value in counts:
        assert decoded.get_count_at_value(value) == histogram(counts).get_count_at_value(value) > 0


def test_values_outside_count_at_the_ends() -> None:
    """0 counts as 1 µs, more than an hour as an hour: nothing is lost."""
    found = histogram({0: 2, HIGHEST_US * 2: 3})
    assert found.get_count_at_value(1) == 2
    assert found.get_count_at_value(HIGHEST_US) == 3


def test_it_is_the_portable_encoding() -> None:
    """Base64 of the V2 compressed encoding, which HDR libraries in other languages read."""
    assert base64.b64decode(encode_counts({7: 1}))[:4] == b"\x1c\x84\x93\x14"


def test_histograms_add() -> None:
    """The sum has the counts of both; the sum of none is none."""
    total = added([histogram({5: 1}), histogram({5: 2, 9: 1})])
    assert total is not None
    assert [total.get_count_at_value(value) for value in (5, 9)] == [3, 1]
    assert isinstance(HdrHistogram.decode(encode(total)), HdrHistogram)
    assert added([]) is None


@pytest.mark.parametrize("damaged", ["", "no base64 !", "HISTF", base64.b64encode(b"x" * 40).decode()])
def test_a_damaged_histogram_is_named(damaged: str) -> None:
    """Whatever is wrong with it, the error names the place."""
    with pytest.raises(ReportError, match="trial 3: a histogram is damaged"):
        decode(damaged, "trial 3")


@pytest.mark.parametrize(("q", "needed"), [(0.5, 20), (0.9, 100), (0.99, 1000), (0.999, 10_000)])
def test_a_sure_quantile_has_ten_values_above_it(q: float, needed: int) -> None:
    """With one value less there is none."""
    assert samples_needed(q) == needed
    assert sure_quantile(histogram({5: needed - 1}), q) is None
    assert sure_quantile(histogram({5: needed}), q) == 5
    assert math.isclose(needed * (1 - q), 10)


@given(st.dictionaries(st.integers(1, HIGHEST_US), st.integers(1, 9), min_size=1, max_size=50))
def test_rounded_counts_make_the_same_histogram(counts: dict[int, int]) -> None:
    """Each value becomes the lowest of its bucket, and what is added up makes the same histogram."""
    rounded: dict[int, int] = {}
    add_rounded(counts, rounded)
    found = histogram(counts)
    assert sum(rounded.values()) == sum(counts.values())
    assert all(found.get_lowest_equivalent_value(value) == value for value in rounded)
    assert encode_counts(rounded) == encode_counts(counts)
