"""Conditions that fail a run: ``p99>50ms``, ``errors>0.1%``, ``rate<900``.

A percentile is that of the response time where there is a schedule, else of the service time;
``service.p99`` and ``response.p99`` name one. A figure that was not measured can't clear a run: a
percentile without samples fails it, and so does one that is not shown because it has too few.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Protocol, Self

_UNITS: Final = {"us": 1.0, "µs": 1.0, "ms": 1e3, "s": 1e6}
_FORM: Final = re.compile(
    r"\s*(?P<figure>(?:(?:service|response|connect|first_byte)\.)?p\d{1,2}(?:\.\d+)?|errors|rate|aborted|connections)"
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
    """Figures by the names that conditions have for them (:class:`loadtest.show.tables.Figures`)."""

    def __getitem__(self, name: str, /) -> float | None:
        """The figure, or None."""

    def missing(self, name: str) -> str:
        """Why there is none."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """One condition; ``limit`` is in microseconds, a fraction, or a count, as the figure is."""

    text: str
    figure: str
    sign: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a condition as people write it. Raises ValueError with a sentence for a person."""
        match = _FORM.fullmatch(text)
        if not match:
            raise ValueError(f"--fail-if {text!r}: write p99>50ms, errors>0.1% or rate<900")
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
        return cls(text.strip(), figure, match["sign"], number)

    def broken(self, figures: Measured) -> str | None:
        """Why the run failed by this condition, or None."""
        value = figures[self.figure]
        if value is None:
            name = "errors" if self.figure == "error_share" else self.figure
            return f"{self.text}: {name} {figures.missing(self.figure)}"
        holds = {
            ">": value > self.limit,
            "<": value < self.limit,
            ">=": value >= self.limit,
            "<=": value <= self.limit,
        }[self.sign]
        return f"{self.text}: {self.figure} was {self.show(value)}" if holds else None

    def show(self, value: float) -> str:
        """``value`` in the unit that its figure is compared in."""
        if re.search(r"p\d", self.figure):
            return f"{value / 1e3:.3f} ms"
        return f"{value:.3%}" if self.figure == "error_share" else f"{value:.1f}"
