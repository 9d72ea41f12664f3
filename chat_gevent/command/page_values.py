"""What the status page makes of ``/status.json``, and how it writes values.

The script of the page (``status_page/status.js``) has the same functions for each later second; a test
compares what the two write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _three(value: float) -> str:
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def _rate(value: float) -> str:
    return f"{value:.1f}" if 0 < value < 9.95 else _count(value)


def _seconds(value: float) -> str:
    if value < 1e-3:
        return _three(value * 1e6) + " µs" if value else "0"
    return _three(value * 1e3) + " ms" if value < 1 else _three(value) + " s"


def _bytes(value: float) -> str:
    unit = 0
    while value >= 1024 and unit < 4:
        value, unit = value / 1024, unit + 1
    return (_three(value) if unit else _count(value)) + (" B", " KiB", " MiB", " GiB", " TiB")[unit]


def _duration(value: float) -> str:
    minutes, seconds = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


FORMS: Final[Mapping[str, Callable[[Any], str]]] = {
    "text": str,
    "count": _count,
    "rate": _rate,
    "flag": lambda value: "yes" if value else "no",
    "moment": lambda value: value[:19].replace("T", " "),
    "seconds": _seconds,
    "bytes": _bytes,
    "duration": _duration,
}
"""How values are written; the script has the same."""


def written(value: Any, form: str) -> str:
    """A value in the form of that name; a dash where there is none."""
    return "–" if value is None else FORMS[form](value)


def clock(time: float) -> str:
    """The time of day of a Unix time."""
    return datetime.fromtimestamp(int(time), UTC).strftime("%H:%M:%S UTC")


def found(view: Mapping[str, Any], key: str) -> Any:
    """The value at a key like ``totals.messages``; None where a part of it is not there."""
    value: Any = view
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def listed(rows: Any) -> list[Mapping[str, Any]]:
    """A list as it is; of counts by reason a list, the highest first, without those that are 0."""
    if isinstance(rows, Mapping):
        order = sorted(rows.items(), key=lambda item: (-item[1], item[0]))
        return [{"reason": str(reason), "count": count} for reason, count in order if count]
    return list(rows)


def headline(told: Mapping[str, Any]) -> tuple[str, str]:
    """How the server is, as a class of the style sheet and as a line."""
    drain, backplane = told["drain"], told["backplane"]
    if drain:
        left = drain["clients_left"]
        are = "client is" if left == 1 else "clients are"
        return "warning", f"Draining for {_duration(drain['seconds'])}: {_count(left)} {are} left"
    if not told["ready"]:
        return "warning", "Not ready: new clients are not welcome"
    if backplane and not backplane["connected"]:
        return "warning", "The backplane is lost: broadcasts reach the clients of one process only"
    return "ready", "Ready: new clients are welcome"


def view(told: Mapping[str, Any]) -> dict[str, Any]:
    """What ``/status.json`` tells, and what the page shows besides that is made of it.

    In ``minutes`` (the latest first) rates are means, and the other series their highest values.
    """
    series: Mapping[str, Sequence[float | None]] = told["history"]["series"]
    length = len(series["connections"])
    minutes = []
    for minute in range(-(-length // 60)):
        part = slice(max(0, length - 60 * minute - 60), length - 60 * minute)
        row: dict[str, Any] = {"ago": f"{minute} to {minute + 1}"}
        for name, values in series.items():
            row[name] = (_mean if name.endswith("_per_second") else _highest)(values[part])
        minutes.append(row)
    handler, drain = told["handler"], told["drain"]
    return {
        **told,
        "summary": {
            name: {"now": values[-1] if values else None, "mean": _mean(values), "highest": _highest(values)}
            for name, values in series.items()
        },
        "minutes": minutes,
        "drain_left": f"{_count(drain['clients_left'])} left" if drain else "no",
        "drain_time": f"for {_duration(drain['seconds'])}" if drain else "",
        "uptime_seconds": told["time"] - told["started"],
        "handler_mean_seconds": handler["seconds"] / handler["calls"]
        if handler and handler["calls"]
        else None,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _highest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
