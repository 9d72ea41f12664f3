"""The commands of ``chat-gevent``, and how they are told apart.

Each command is a module with ``add_arguments(parser)`` and ``run(arguments) -> exit status``, imported
only when it is the one that was asked for. One with more options than a screen holds has ``usual()`` as well,
which is what its ``--help`` shows. Those of
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
from chat_gevent.command.usual import Usual

COMMANDS: Final = {
    "serve": ("chat_gevent.command.serve", "serve the confirm protocol, or a handler of your own"),
    "client": ("chat_gevent.command.prompt", "send messages and print the replies, or prompt for them"),
    "limits": ("chat_gevent.command.limits", "how many clients this machine can carry, and how to raise it"),
    "deploy": ("chat_gevent.command.deploy", "list the files to deploy with, or print one of them"),
}


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    usual: Usual | None = None
    """What ``--help`` shows, where that is not all."""

    def shorten(self, usual: Usual) -> None:
        """Have ``--help`` show ``usual``, and ``--help-all`` what it showed before."""
        self.usual = usual
        self.add_argument("--help-all", action=_HelpAll, nargs=0, help="show all options and exit")

    def format_help(self) -> str:
        """The text of ``--help``."""
        return self.usual.text() if self.usual else super().format_help()

    def format_all(self) -> str:
        """The text of ``--help-all``."""
        return super().format_help()

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


class _HelpAll(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        assert isinstance(parser, Parser)
        parser._print_message(parser.format_all(), sys.stdout)
        parser.exit()


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
    parser = make(argv[0])
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        getattr(arguments, "command", parser).unknown(unknown)
    return lambda: int(arguments.run(arguments))


def make(chosen: str = "") -> Parser:
    """The parser; of the commands only the one that is ``chosen`` has its options."""
    parser = Parser(prog="chat-gevent", description="A server that confirms messages, and its client.")
    parser.add_argument("--version", action="version", version=f"chat-gevent {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name, program in PROGRAMS.items():
        commands.add_parser(name, help=program.help, add_help=False)
    for name, (module_name, help) in COMMANDS.items():
        command = commands.add_parser(
            name, help=help, description=f"{help[0].upper()}{help[1:]}.", allow_abbrev=False
        )
        if name == chosen:
            module = importlib.import_module(module_name)
            module.add_arguments(command)
            if hasattr(module, "usual"):
                command.shorten(module.usual())
            command.set_defaults(run=module.run)
            command.set_defaults(command=command)
    return parser
