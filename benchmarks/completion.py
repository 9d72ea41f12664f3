"""What a shell may complete a line of ``python -m benchmarks``, or of ``chat-gevent bench``, to.

argcomplete, which the extra ``completion`` brings, answers by the parser: commands, scenarios, experiments
and options are in it. Here is what the parser does not say: names of servers with commas between them, and
which values are files.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any, Final

FILES: Final = ("DIR", "DOCUMENT", "FILE", "REPORT")
"""What the help shows where an argument is a file or folder."""


def arguments_before() -> list[str]:
    """The arguments in front of the word that is being typed."""
    line, point = os.environ["COMP_LINE"], int(os.environ["COMP_POINT"])
    words = line[:point].split()
    return words[int(os.environ["_ARGCOMPLETE"]) : None if line[:point].endswith(" ") else -1]


def complete(parser: argparse.ArgumentParser) -> int:
    """Tell the shell what may come next, and end the process; returns 1 where argcomplete is missing."""
    try:
        import argcomplete
        from argcomplete.completers import FilesCompleter, SuppressCompleter
    except ModuleNotFoundError:
        return 1
    for action in _all_actions(parser):
        if action.dest == "servers":
            action.completer = _servers  # type: ignore[attr-defined]
        elif action.metavar in FILES:
            action.completer = FilesCompleter()  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser, default_completer=SuppressCompleter())
    return 1


def _all_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _all_actions(each)


def _servers(prefix: str, **given: Any) -> list[str]:
    """Names of servers behind those that are there."""
    from benchmarks.measure.servers import SERVERS

    chosen, comma, _ = prefix.rpartition(",")
    return [f"{chosen}{comma}{name}" for name in SERVERS if name not in chosen.split(",")]
