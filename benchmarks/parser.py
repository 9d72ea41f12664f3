"""The parser of the command line: it proposes what may have been meant by a misspelt word."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """argparse's, with proposals for options and commands that are not there."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._words: Sequence[str] = ()

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; what is wrong ends the program with status 2."""
        self._words = list(args or ())
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and the words nearest to it."""
        meant: list[str] = []
        if unknown := re.match(r"unrecognized arguments: (--[\w-]+)", message):
            meant = difflib.get_close_matches(unknown[1], self._options(), n=1)
        elif choice := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            known = re.findall(r"[\w-]+", choice[2])
            meant = difflib.get_close_matches(choice[1], known, n=1)
        super().error(message + (f"; did you mean {meant[0]}?" if meant else ""))

    def _options(self) -> list[str]:
        """The options of the command that the words name."""
        parser: argparse.ArgumentParser = self
        for word in self._words:
            for action in parser._actions:
                if isinstance(action, argparse._SubParsersAction) and word in action.choices:
                    parser = action.choices[word]
                    break
        return [option for action in parser._actions for option in action.option_strings]
