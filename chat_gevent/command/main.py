"""The ``chat-gevent`` command: ``serve``, ``client``, ``limits``.

Each command is a module with ``add_arguments(parser)`` and ``run(arguments) -> exit status``, imported
only when it is the one that was asked for.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import signal
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from chat_gevent import __version__

COMMANDS: Final = {
    "serve": ("chat_gevent.command.serve", "serve the confirm protocol, or a handler of your own"),
    "client": ("chat_gevent.command.prompt", "send messages and print the replies, or prompt for them"),
    "limits": ("chat_gevent.command.limits", "how many clients this machine can carry, and how to raise it"),
}


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

    def unknown(self, words: Sequence[str]) -> NoReturn:
        """Exit with status 2, naming the options that may have been meant."""
        options = [option for action in self._actions for option in action.option_strings]
        close = difflib.get_close_matches(words[0].partition("=")[0], options, 1)
        meant = f"; did you mean {close[0]}?" if close else ""
        self.error(f"unrecognized arguments: {' '.join(words)}{meant}")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = Parser(prog="chat-gevent", description="A server that confirms messages, and its client.")
    parser.add_argument("--version", action="version", version=f"chat-gevent {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name, (module_name, help) in COMMANDS.items():
        command = commands.add_parser(
            name, help=help, description=f"{help[0].upper()}{help[1:]}.", allow_abbrev=False
        )
        if name in argv[:1]:
            module = importlib.import_module(module_name)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
            command.set_defaults(command=command)
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        getattr(arguments, "command", parser).unknown(unknown)
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # whoever read the output has had enough
        sys.stderr.close()
        return 128 + signal.SIGPIPE
