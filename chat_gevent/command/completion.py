"""What a shell may complete a line of ``chat-gevent`` to.

A shell that was told to (``eval "$(register-python-argcomplete chat-gevent)"``) starts the command with the
line in its environment, and argcomplete, which the extra ``completion`` brings, answers by the command's own
parser. Commands that are programs of their own (``bench``, ``compare``, ``loadtest``) answer for themselves,
in the same way. Somebody waits for each answer with a key pressed: nothing here imports gevent.
"""

from __future__ import annotations

import argparse
import os
from typing import Final

from chat_gevent.command.config import FIELDS
from chat_gevent.command.parser import COMMANDS, make
from chat_gevent.command.programs import PROGRAMS, start

FILES: Final = ("FILE", "PATH")
"""What the help shows where an option takes a file."""

WORDS: Final = {"client": {"framing": FIELDS["framing"].metadata["words"]}}
"""Values of options that have no setting, by command."""


def complete() -> int:
    """Tell the shell what may come next, and end the process; returns 1 where argcomplete is missing."""
    try:
        import argcomplete.lexers
        from argcomplete.completers import ChoicesCompleter, FilesCompleter, SuppressCompleter
    except ModuleNotFoundError:
        return 1
    begin = int(os.environ["_ARGCOMPLETE"])  # at which word of the line its arguments begin
    line, point = os.environ["COMP_LINE"], int(os.environ["COMP_POINT"])
    before = argcomplete.lexers.split_line(line, point)[3][begin:]
    command = before[0] if before else ""
    if command in PROGRAMS:
        if not PROGRAMS[command].first:  # it finds its arguments behind its name
            os.environ["_ARGCOMPLETE"] = str(begin + 1)
        return start(command, [])
    parser = make(command)
    for action in _actions(parser, command):
        words = WORDS.get(command, {}).get(action.dest, ())
        if command == "serve" and action.dest in FIELDS:
            words = FIELDS[action.dest].metadata["words"]
        if words:
            action.completer = ChoicesCompleter(dict.fromkeys(words, ""))  # type: ignore[attr-defined]
        elif action.metavar in FILES:
            action.completer = FilesCompleter()  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser, default_completer=SuppressCompleter())
    return 1


def _actions(parser: argparse.ArgumentParser, command: str) -> list[argparse.Action]:
    if command not in COMMANDS:
        return []
    [commands] = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    chosen: argparse.ArgumentParser = commands.choices[command]
    return chosen._actions
