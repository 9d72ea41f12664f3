"""What others wrote, without what would command the terminal that it is shown on. Pure."""

from __future__ import annotations

import unicodedata
from typing import Any


def plain(value: Any) -> Any:
    """``value`` with each control character of its texts written out.

    A report may come from anybody: what it says must not command the terminal it is shown on, end the line of
    a log or of Markdown, or be no XML.
    """
    if isinstance(value, str):
        return value if value.isprintable() else "".join(map(_character, value))
    if isinstance(value, dict):
        return {plain(key): plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def _character(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return ascii(character)[1:-1]
