"""The commands of ``chat-gevent``, and how they are told apart.

Each command is a module with ``add_arguments(parser)`` and ``run(arguments) -> exit status``, imported
only when it is the one that was asked for. Those of
:mod:`chat_gevent.command.programs` are programs of their own.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from chat_gevent import __version__
from chat_gevent.command.programs import PROGRAMS, start
from chat_gevent.command.standard import complain, printable, say

COMMANDS: Final = {
    "serve": ("chat_gevent.command.serve", "serve the confirm protocol, or a handler of your own"),
    "client": ("chat_gevent.command.prompt", "send messages and print the replies, or prompt for them"),
    "limits": ("chat_gevent.command.limits", "how many clients this machine can carry, and how to raise it"),
}


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"{self.prog}: error: {printable(message)} (see {self.prog} --help)\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print help to standard output, the rest to standard error. Raises StreamError."""
        if file is sys.stdout:
            say(message.removesuffix("\n"))
        else:
            complain(message.removesuffix("\n"), 0)

    def unknown(self, words: Sequence[str]) -> NoReturn:
        """Exit with status 2, naming the options that may have been meant."""
        options = [option for action in self._actions for option in action.option_strings]
        close = difflib.get_close_matches(words[0].partition("=")[0], options, 1)
        meant = f"; did you mean {close[0]}?" if close else ""
        self.error(f"unrecognized arguments: {' '.join(words)}{meant}")


FIRST_STEPS: Final = """\
chat-gevent serve            confirms messages on 127.0.0.1:12345; Ctrl-C stops it
chat-gevent client hello     sends it one, from another terminal, and prints the reply
chat-gevent limits           says how many clients this machine can carry
chat-gevent --help           lists all commands"""
"""What is said to somebody who gives no command: what to try first."""


def parse(argv: list[str]) -> Callable[[], int]:
    """What the arguments ask for: call it for the exit status. Exits with status 2 where they are wrong."""
    if not argv:
        raise SystemExit(complain(FIRST_STEPS, 2))
    if argv[0] in PROGRAMS:  # which read their options themselves
        return lambda: start(argv[0], argv[1:])
    parser = Parser(prog="chat-gevent", description="A server that confirms messages, and its client.")
    parser.add_argument("--version", action="version", version=f"chat-gevent {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name, program in PROGRAMS.items():
        commands.add_parser(name, help=program.help, add_help=False)
    for name, (module_name, help) in COMMANDS.items():
        command = commands.add_parser(
            name, help=help, description=f"{help[0].upper()}{help[1:]}.", allow_abbrev=False
        )
        if name == argv[0]:
            module = importlib.import_module(module_name)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
            command.set_defaults(command=command)
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        getattr(arguments, "command", parser).unknown(unknown)
    return lambda: int(arguments.run(arguments))
