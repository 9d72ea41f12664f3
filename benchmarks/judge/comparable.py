"""Whether two reports were made under the same conditions, and every difference by its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Final

from benchmarks.reports.report import Report

_CONDITIONS: Final = ("kernel", "cpu", "cores", "pinning", "generator")
"""What must be equal of the environment: each can change a server's cost by more than its code does."""
_NO_CONDITIONS: Final = frozenset({"blocks", "seed", "order_seed", "servers", "during"})
"""What says how much was measured and in which order, not under which conditions."""


def differences(one: Report, two: Report) -> tuple[list[str], list[str]]:
    """How two reports differ: what forbids comparing them, and what a reader should know all the same.

    Reports of unlike kinds or scenarios share so little else that only these two are named.
    """
    forbid = _named(
        {"kind": one.kind, "scenario": one.scenario}, {"kind": two.kind, "scenario": two.scenario}
    )
    if forbid:
        return forbid, []
    inside = [{k: v for k, v in r.environment.items() if k in _CONDITIONS} for r in (one, two)]
    outside = [
        {k: v for k, v in r.environment.items() if k not in (*_CONDITIONS, *_NO_CONDITIONS)}
        for r in (one, two)
    ]
    parameters = [{k: v for k, v in r.parameters.items() if k not in _NO_CONDITIONS} for r in (one, two)]
    forbid += _named(*inside)
    forbid += [f"parameter {text}" for text in _named(*parameters)]
    others = ["the code that measured differs"] if one.harness != two.harness else []
    others += _named(dataclasses.asdict(one.revision), dataclasses.asdict(two.revision))
    others += _named(*outside)
    return forbid, others


def flatten(mapping: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """The leaves of nested mappings under dotted names; empty mappings are no leaves."""
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def said(value: object) -> str:
    """A value of a report for a person."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(said, value))
    return "none" if value is None or value == "" else str(value)


def _named(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[str]:
    sides = [dict(flatten(one)), dict(flatten(two))]
    found = []
    for name in sorted(sides[0].keys() | sides[1].keys()):
        first, second = ([side[name]] if name in side else [] for side in sides)
        if first != second:
            values = " and ".join(said(*value) if value else "absent" for value in (first, second))
            found.append(f"{name} differs ({values})")
    return found
