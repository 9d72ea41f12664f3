"""Locust's own page where it shows what is ours: the form's options in groups, the tab on a narrow screen.

Locust makes a field of each option, in alphabetical order, with a name made of the option ("Knee P9 9") and
all of its help behind it. ``static/locust.js`` puts them in the groups of ``--help-tcp``, with a name that
reads well and the help below; ``static/locust.css`` makes a card of each of the tab's rows where a table has
no room.
"""

from __future__ import annotations

import argparse
import json
import re
from importlib.resources import files
from typing import Any, Final

from loadtest.run.options import add_options

KINDS: Final = {"locust.js": "text/javascript", "locust.css": "text/css"}
"""What the page loads of this package, and what it is."""

_UPPER: Final = {"tls": "TLS", "ca": "CA"}


def static(name: str) -> str:
    """The text of one of :data:`KINDS`."""
    return files("loadtest.show").joinpath("static", name).read_text(encoding="utf-8")


def with_options(page: str) -> str:
    """Locust's page with the groups of our options, and the script and style that show them."""
    options = json.dumps(groups()).replace("<", "\\u003c")
    head = (
        '<link rel="stylesheet" href="./tcp/locust.css">'
        f'<script type="application/json" id="tcp-options">{options}</script>'
        '<script src="./tcp/locust.js" defer></script>'
    )
    return page.replace("</head>", f"{head}</head>", 1)


def groups() -> list[tuple[str, list[dict[str, str]]]]:
    """The options that the form shows, by group: each has a ``field``, a ``name`` and a ``help``."""
    parser = argparse.ArgumentParser(add_help=False)
    add_options(parser)
    found = []
    for group in parser._action_groups:  # argparse has no public way to them
        actions: list[Any] = list(group._group_actions)
        shown = [action for action in actions if action.include_in_web_ui]
        if shown:
            title = str(group.title).partition(": ")[2]
            found.append((title.capitalize(), [_field(each.dest, each.help) for each in shown]))
    return found


def _field(option: str, help: str) -> dict[str, str]:
    words = option.split("_")
    name = " ".join(_UPPER.get(word, word) for word in words)
    return {
        "field": re.sub(r"_(.)", lambda found: found[1].upper(), option),
        "name": name[0].upper() + name[1:],
        "help": help.replace("%%", "%"),
    }
