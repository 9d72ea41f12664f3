"""``--help`` that fits on a screen: the options that most people want, in groups. ``--help-all`` has all.

A command says which options these are with :class:`Usual`. Its texts are shorter than those of
``--help-all``; its defaults come from the same place, so that neither can say something else than the program
does. Tests hold it to 40 lines of 80 columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_LEFT: Final = 28
"""Columns of the options' names."""


@dataclass(frozen=True, slots=True)
class Usual:
    """The short help of a command.

    ``groups`` is title -> option, as it is to be shown -> what it does. ``examples`` are command lines.
    """

    usage: str
    about: str
    groups: Mapping[str, Mapping[str, str]]
    examples: tuple[str, ...]
    more: str

    def text(self) -> str:
        """All of it, as it is printed."""
        lines = [f"usage: {self.usage}", self.about]
        for title, options in self.groups.items():
            lines += ["", f"{title}:"]
            lines += [f"  {option:<{_LEFT - 2}}{what}" for option, what in options.items()]
        lines += ["", "examples:" if len(self.examples) > 1 else "example:"]
        lines += [f"  {example}" for example in self.examples]
        lines += ["", self.more]
        return "\n".join(lines) + "\n"
