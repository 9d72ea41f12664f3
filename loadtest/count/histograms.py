"""Latencies as plain counts by microsecond, and as HDR histograms.

To record a value in an HDR histogram takes about 0.7 µs in Python. So the hot path counts each latency in a
plain dictionary keyed by whole microseconds, :func:`rounded` rounds the keys as an HDR histogram of 3
significant digits would (values below 2,048 stay, above they keep 11 bits), and the counts become HDR
histograms when a report is made. Counts of workers are added, never averaged, so the percentiles of a
distributed run are those of all its samples together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

from hdrh.histogram import HdrHistogram

LOWEST_US: Final = 1
HIGHEST_US: Final = 3_600_000_000
DIGITS: Final = 3
KEPT_BITS: Final = 11
"""What 3 significant digits come to in an HDR histogram: 2,048 sub-buckets."""

Counts = dict[int, int]
"""How often each latency was measured, by microseconds."""


def merge_counts(into: Counts, others: Iterable[Mapping[int, int]]) -> None:
    """Add counts to counts."""
    get = into.get
    for counts in others:
        for value, count in counts.items():
            into[value] = get(value, 0) + count


def rounded(counts: Mapping[int, int], into: Counts) -> None:
    """Add ``counts`` with keys rounded down as the histogram does."""
    get = into.get
    for value, count in counts.items():
        if value >= 2048:
            shift = value.bit_length() - KEPT_BITS
            value = (value >> shift) << shift
        into[value] = get(value, 0) + count


def histogram(counts: Mapping[int, int]) -> HdrHistogram:
    """The HDR histogram of counts, from 1 µs to 1 h; what is outside is counted at its ends."""
    result = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)
    for value, count in counts.items():
        result.record_value(min(max(value, LOWEST_US), HIGHEST_US), count)
    return result


def encode(counts: Mapping[int, int]) -> str:
    """HDR V2, compressed, base64."""
    return histogram(counts).encode().decode("ascii")  # type: ignore[no-any-return]


def percentile(counts: Mapping[int, int], percent: float) -> int:
    """The microseconds that ``percent`` of the samples did not exceed; 0 without samples."""
    need = max(1, -int(-sum(counts.values()) * percent // 100))
    seen = 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= need:
            return value
    return 0


def samples_needed(percent: float) -> int:
    """Samples from which on a percentile says something: 10 of them lie beyond it."""
    return math.ceil(round(1000 / (100 - percent), 6))
