"""Conditions that fail a run: ``p99>50ms``, ``errors>0.1%``, ``rate<900``.

A percentile is that of the response time where there is a schedule, else of the service time;
``service.p99`` and ``response.p99`` name one. An entry's name before a figure makes it that entry's:
``GET.p99``, ``connect.errors``, ``transaction checkout.response.p99``. A figure that was not measured can't
clear a run: a percentile without samples fails it, and so does one that is not shown because it has too
few.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Protocol, Self

_UNITS: Final = {"us": 1.0, "µs": 1.0, "ms": 1e3, "s": 1e6}
_FORM: Final = re.compile(
    r"\s*(?:(?P<entry>\S|\S.*?\S)\.)??"
    r"(?P<figure>(?:(?:service|response|first_byte)\.)?p\d{1,2}(?:\.\d+)?"
    r"|errors|rate|aborted|connections|workers)"
    r"\s*(?P<sign>>=|<=|>|<)\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>us|µs|ms|s|%|/s)?\s*"
)


def parse_time_us(text: str) -> float:
    """``50ms``, ``0.2s`` or ``800us`` in microseconds. Raises ValueError with a sentence for a person."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(us|µs|ms|s)\s*", text)
    if not match:
        raise ValueError(f"{text!r} is no time: write 50ms, 0.2s or 800us")
    return float(match[1]) * _UNITS[match[2]]


def parse_share(text: str) -> float:
    """``0.1%`` as 0.001. Raises ValueError with a sentence for a person."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", text)
    if not match:
        raise ValueError(f"{text!r} is no share: write 0.1%")
    return float(match[1]) / 100


class Measured(Protocol):
    """Figures by the names that conditions have for them (:class:`loadtest.count.results.Results`)."""

    def of(self, entry: str, figure: str, /) -> float | None:
        """The figure of an entry, or of all messages where that is empty; None if there is none."""

    def missing(self, entry: str, figure: str, /) -> str:
        """Why there is none."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """One condition; ``limit`` is in microseconds, a fraction, or a count, as the figure is."""

    text: str
    figure: str
    sign: str
    limit: float
    entry: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a condition as people write it. Raises ValueError with a sentence for a person."""
        match = _FORM.fullmatch(text)
        if not match:
            raise ValueError(f"--fail-if {text!r}: write p99>50ms, errors>0.1%, rate<900 or GET.p99>50ms")
        if match["entry"] and match["figure"] in ("connections", "workers"):
            raise ValueError(f"--fail-if {text!r}: {match['figure']} are those of the whole run")
        figure, unit, number = match["figure"], match["unit"], float(match["number"])
        if re.search(r"p\d", figure):
            if unit not in _UNITS:
                raise ValueError(f"--fail-if {text!r}: a percentile is compared with a time (50ms)")
            number *= _UNITS[unit]
        elif figure == "errors":
            if unit not in ("%", None):
                raise ValueError(f"--fail-if {text!r}: errors are compared with a share (0.1%) or a number")
            figure = "error_share" if unit == "%" else "errors"
            number = number / 100 if unit == "%" else number
        elif unit not in (None, "/s") or (unit == "/s" and figure != "rate"):
            raise ValueError(f"--fail-if {text!r}: {figure} has no unit {unit}")
        return cls(text.strip(), figure, match["sign"], number, match["entry"] or "")

    def broken(self, figures: Measured) -> str | None:
        """Why the run failed by this condition, or None."""
        value = figures.of(self.entry, self.figure)
        prefix = f"{self.entry}." if self.entry else ""
        if value is None:
            name = "errors" if self.figure == "error_share" else self.figure
            return f"{self.text}: {prefix}{name} {figures.missing(self.entry, self.figure)}"
        holds = {
            ">": value > self.limit,
            "<": value < self.limit,
            ">=": value >= self.limit,
            "<=": value <= self.limit,
        }[self.sign]
        return f"{self.text}: {prefix}{self.figure} was {self.show(value)}" if holds else None

    def show(self, value: float) -> str:
        """``value`` in the unit that its figure is compared in."""
        if re.search(r"p\d", self.figure):
            return f"{value / 1e3:.3f} ms"
        return f"{value:.3%}" if self.figure == "error_share" else f"{value:.1f}"
