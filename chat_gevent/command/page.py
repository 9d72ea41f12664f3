"""The page at ``/`` of the admin port: the state of the server, to be looked at.

``status_page/`` has the skeleton, the style sheet and a script. Here the figures of
:mod:`chat_gevent.command.status` are written into the skeleton, so that a browser without JavaScript shows
them too. Each place for a value says which value it is (``data-key``) and how it is written (``data-form``),
so the script, which asks for ``/status.json`` each second, needs to know nothing of the layout. What both do
is in :mod:`chat_gevent.command.page_values`.

Nothing is loaded from anywhere else: style and script stand in the page, and :data:`POLICY` lets a browser
run exactly these, by their hashes. Text of clients is escaped here and is text content for the script.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Any, Final

from chat_gevent.command.page_values import clock, found, headline, listed, view, written

_FILES = files("chat_gevent.command") / "status_page"
_SKELETON: Final = Template((_FILES / "status.html").read_text("utf-8"))
_STYLE: Final = (_FILES / "status.css").read_text("utf-8")
_SCRIPT: Final = (_FILES / "status.js").read_text("utf-8")


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_hash(_STYLE)}",
        f"script-src {_hash(_SCRIPT)}",
        "connect-src 'self'",
        "img-src data:",  # the empty icon, so that none is asked for
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""The Content-Security-Policy header to send with the page."""


@dataclass(frozen=True, slots=True)
class Place:
    """A value: its title, where it is in a row or in what ``view`` makes, and how it is written."""

    title: str
    key: str
    form: str = "count"
    beside: tuple[str, str, str, str] = ("", "", "", "")
    """Below the value of a tile: words, key and form of another value, words."""


_TILES: Final = (
    Place(
        "Connections", "totals.connections", beside=("of at most ", "totals.connections_limit", "count", "")
    ),
    Place(
        "Messages a second",
        "summary.messages_per_second.now",
        "rate",
        ("", "totals.messages", "count", " in all"),
    ),
    Place(
        "Lag of the loop, p99",
        "summary.loop_lag_p99_seconds.now",
        "seconds",
        ("highest ", "summary.loop_lag_p99_seconds.highest", "seconds", ""),
    ),
    Place(
        "Queued pushes",
        "totals.queued_bytes",
        "bytes",
        ("", "totals.pushes_dropped", "count", " dropped in all"),
    ),
    Place("Draining", "drain_left", "text", beside=("", "drain_time", "text", "")),
)
_PLOTS: Final = (
    # title, form, least end of the axis, (series, its name)
    ("Connections", "count", 2, (("connections", "open"),)),
    (
        "Messages a second",
        "rate",
        2,
        (("messages_per_second", "received"), ("pushes_per_second", "pushed")),
    ),
    (
        "Lag of the event loop",
        "seconds",
        0.001,
        (("loop_lag_p50_seconds", "median"), ("loop_lag_p99_seconds", "p99")),
    ),
    (
        "Refused and closed a second",
        "rate",
        2,
        (("closed_per_second", "closed"), ("refused_per_second", "refused")),
    ),
)
_MINUTES: Final = (
    Place("minutes ago", "ago", "text"),
    Place("most connections", "connections"),
    Place("messages a second", "messages_per_second", "rate"),
    Place("pushes a second", "pushes_per_second", "rate"),
    Place("highest lag p99", "loop_lag_p99_seconds", "seconds"),
    Place("most queued", "queued_bytes", "bytes"),
    Place("closed a second", "closed_per_second", "rate"),
    Place("refused a second", "refused_per_second", "rate"),
)
_WORKERS: Final = (
    Place("worker", "worker"),
    Place("process", "pid", "text"),
    Place("connections", "connections"),
    Place("limit", "connections_limit"),
    Place("messages a second", "messages_per_second", "rate"),
    Place("messages", "messages"),
    Place("loop lag p99", "loop_lag_p99_seconds", "seconds"),
    Place("queued pushes", "queued_bytes", "bytes"),
    Place("CPU time", "cpu_seconds", "duration"),
    Place("memory", "resident_bytes", "bytes"),
    Place("draining", "draining", "flag"),
    Place("figures' age", "age_seconds", "seconds"),
)
_BUSIEST: Final = (
    Place("address", "address", "text"),
    Place("messages a second", "messages_per_second", "rate"),
    Place("messages", "messages"),
    Place("received", "received", "bytes"),
    Place("sent", "sent", "bytes"),
    Place("not taken", "due_bytes", "bytes"),
    Place("idle", "idle_seconds", "duration"),
    Place("state", "state", "text"),
    Place("since (UTC)", "since", "moment"),
)
_SLOWEST: Final = (_BUSIEST[0], _BUSIEST[5], *_BUSIEST[1:5], *_BUSIEST[6:])
_REASON: Final = (Place("reason", "reason", "text"), Place("connections", "count"))
_CODE: Final = (Place("code", "reason", "text"), Place("replies", "count"))
_FACTS: Final = (
    Place("accepted", "totals.accepted"),
    Place("messages", "totals.messages"),
    Place("received", "totals.received_bytes", "bytes"),
    Place("sent", "totals.sent_bytes", "bytes"),
    Place("pushes", "totals.pushes"),
    Place("pushes dropped", "totals.pushes_dropped"),
    Place("broadcasts", "totals.broadcasts"),
    Place("time in large broadcasts", "totals.broadcast_seconds", "seconds"),
    Place("greenlets busy", "totals.greenlets_busy"),
    Place("greenlets free", "totals.greenlets_free"),
    Place("log lines dropped", "totals.log_lines_dropped"),
    Place("handler calls", "handler.calls"),
    Place("handler calls under way", "handler.running"),
    Place("mean time of a call", "handler_mean_seconds", "seconds"),
    Place("published to the backplane", "backplane.published"),
    Place("received from the backplane", "backplane.received"),
    Place("dropped by the backplane", "backplane.dropped"),
)


def render(told: Mapping[str, Any]) -> str:
    """The page for what ``/status.json`` tells (all of it, not only what is later than some time)."""
    shown = view(told)
    mood, line = headline(told)
    many = _WORKERS[:1] if len(told["workers"]) > 1 else ()
    nobody = "No client has sent anything since."
    return _SKELETON.substitute(
        style=_STYLE,
        script=_SCRIPT,
        headline=escape(line),
        mood=mood,
        version=escape(told["version"]),
        uptime=_span(shown, "uptime_seconds", "duration"),
        time=clock(told["time"]),
        tiles="".join(_tile(shown, place) for place in _TILES),
        plots="".join(_plot(shown, *each) for each in _PLOTS),
        minutes=_table(shown, "minutes", _MINUTES, "Nothing yet."),
        workers=_table(shown, "workers", _WORKERS, "No worker is running."),
        reasons="".join(
            f"<div>\n<h2>{title}</h2>\n{_table(shown, rows, columns, 'None so far.', 'plain')}</div>\n"
            for title, rows, columns in (
                ("Refused", "refused", _REASON),
                ("Closed", "closed", _REASON),
                ("Error replies", "errors", _CODE),
            )
        ),
        busiest=_table(shown, "busiest", (_BUSIEST[0], *many, *_BUSIEST[1:]), nobody),
        slowest=_table(shown, "slowest", (_SLOWEST[0], *many, *_SLOWEST[1:]), "All have taken everything."),
        facts="".join(
            f"<div><dt>{place.title}</dt><dd>{_span(shown, place.key, place.form)}</dd></div>\n"
            for place in _FACTS
            if found(shown, place.key.split(".")[0]) is not None  # no handler, no backplane
        ),
    )


def _span(shown: Mapping[str, Any], key: str, form: str) -> str:
    text = escape(written(found(shown, key), form))
    return f'<span data-key="{key}" data-form="{form}">{text}</span>'


def _tile(shown: Mapping[str, Any], place: Place) -> str:
    before, key, form, after = place.beside
    beside = f"{before}{_span(shown, key, form)}{after}"
    value = _span(shown, place.key, place.form)
    return f'<div><dt>{place.title}</dt><dd>{value}<span class="beside">{beside}</span></dd></div>\n'


def _plot(
    shown: Mapping[str, Any], title: str, form: str, least: float, lines: Sequence[tuple[str, str]]
) -> str:
    rows = "".join(
        f'<tr><th scope="row" class="s{number}-key">{name}</th>'
        + "".join(
            f'<td class="number">{_span(shown, f"summary.{series}.{which}", form)}</td>'
            for which in ("now", "mean", "highest")
        )
        + "</tr>\n"
        for number, (series, name) in enumerate(lines, 1)
    )
    names = " ".join(series for series, _ in lines)
    return (
        f'<figure data-series="{names}" data-form="{form}" data-least="{least}">\n<h3>{title}</h3>\n'
        '<div class="plot"></div>\n<table><thead><tr><td></td><th scope="col" class="number">now</th>'
        '<th scope="col" class="number">mean</th><th scope="col" class="number">highest</th></tr></thead>\n'
        f"<tbody>{rows}</tbody></table>\n</figure>\n"
    )


def _table(
    shown: Mapping[str, Any], key: str, columns: Sequence[Place], empty: str, kind: str = "cards"
) -> str:
    heads = "".join(
        f'<th scope="col" class="{_side(place)}" data-key="{place.key}" data-form="{place.form}">'
        f"{place.title}</th>"
        for place in columns
    )
    rows = "".join(f"<tr>{''.join(_cells(row, columns))}</tr>\n" for row in listed(found(shown, key)))
    if not rows:
        rows = f'<tr class="none"><td colspan="{len(columns)}">{empty}</td></tr>\n'
    return (
        f'<table class="{kind}" data-rows="{key}" data-empty="{empty}">\n<thead><tr>{heads}</tr></thead>\n'
        f"<tbody>{rows}</tbody>\n</table>\n"
    )


def _cells(row: Mapping[str, Any], columns: Sequence[Place]) -> Iterable[str]:
    for number, place in enumerate(columns):
        text = escape(written(found(row, place.key), place.form))
        if number:
            yield f'<td class="{_side(place)}" data-label="{place.title}">{text}</td>'
        else:
            yield f'<th scope="row" class="{_side(place)}" data-label="{place.title}">{text}</th>'


def _side(place: Place) -> str:
    if place.form == "moment":
        return "moment"
    return "text" if place.form in ("text", "flag") or place.key == "worker" else "number"
