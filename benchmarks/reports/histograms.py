"""Latencies as counts and as HDR histograms, and the one rule for quantiles of both.

A quantile q of n values is the smallest of them that at least a share q of all does not exceed (the nearest
rank): a value that was measured, never one between two. It rests on the n(1-q) values above it, so that
:func:`sure_quantile` gives none where these are fewer than 10.

In reports, histograms are HDR V2, compressed, base64, from 1 µs to 1 h with 3 significant digits.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

from benchmarks.reports.document import ReportError

LOWEST_US: Final = 1
HIGHEST_US: Final = 3_600_000_000
DIGITS: Final = 3
_KEPT_BITS: Final = 11
"""What 3 significant digits come to: 2,048 buckets of one, then 1,024 for each doubling."""
MIN_ABOVE: Final = 10
"""How many recorded values must lie above a quantile for it to be shown."""

Number = TypeVar("Number", int, float)


def histogram(counts: Mapping[int, int]) -> Any:
    """The ``HdrHistogram`` of counts by whole microseconds; what is outside its range counts at its ends."""
    from hdrh.histogram import HdrHistogram

    result = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)
    for value, count in counts.items():
        result.record_value(min(max(value, LOWEST_US), HIGHEST_US), count)
    return result


def add_rounded(counts: Mapping[int, int], into: dict[int, int]) -> None:
    """Add counts by whole microseconds to ``into``, each value rounded down as a histogram would do it.

    There are far fewer of them then, and a histogram made of them is the same.
    """
    get = into.get
    for value, count in counts.items():
        if value >= 1 << _KEPT_BITS:
            shift = value.bit_length() - _KEPT_BITS
            value = (value >> shift) << shift
        into[value] = get(value, 0) + count


def encode(histogram: Any) -> str:
    """An ``HdrHistogram`` as it stands in a report."""
    encoded: bytes = histogram.encode()
    return encoded.decode("ascii")


def encode_counts(counts: Mapping[int, int]) -> str:
    """Counts by whole microseconds as a histogram of a report."""
    return encode(histogram(counts))


def decode(encoded: str, where: str) -> Any:
    """The ``HdrHistogram`` in ``encoded``; ``ReportError`` that names ``where`` for a damaged one."""
    from hdrh.codec import HdrCookieException, HdrHistogramSettingsException, HdrLengthException
    from hdrh.histogram import HdrHistogram

    failures = (HdrCookieException, HdrHistogramSettingsException, HdrLengthException)
    try:
        decoded = HdrHistogram.decode(encoded)
    except (ValueError, TypeError, IndexError, zlib.error, *failures) as error:
        raise ReportError(f"{where}: a histogram is damaged ({type(error).__name__})") from None
    if decoded is None:
        raise ReportError(f"{where}: a histogram is damaged")
    return decoded


def added(histograms: Iterable[Any]) -> Any | None:
    """The sum of histograms, which is made in the first; None where there are none."""
    total: Any | None = None
    for each in histograms:
        if total is None:
            total = each
        else:
            total.add(each)
    return total


def quantile(counts: Mapping[Number, int], q: float) -> Number:
    """The value at quantile ``q`` (0 to 1) of values with their counts; ``ValueError`` without any."""
    need = max(1, math.ceil(q * sum(counts.values()) - 1e-9))
    seen = 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= need:
            return value
    raise ValueError("there is no quantile of no values")


def quantile_of(values: Iterable[float], q: float) -> float:
    """The value at quantile ``q`` (0 to 1) of values one by one; ``ValueError`` without any."""
    return quantile(Counter(values), q)


def sure_quantile(histogram: Any, q: float) -> float | None:
    """The value at quantile ``q`` (0 to 1) of an ``HdrHistogram``; None where fewer than 10 lie above it."""
    if histogram.get_total_count() < samples_needed(q):
        return None
    return float(histogram.get_value_at_percentile(q * 100))


def samples_needed(q: float) -> int:
    """From how many values on quantile ``q`` (0 to 1, less than 1) has 10 above it."""
    return math.ceil(round(MIN_ABOVE / (1 - q), 6))
