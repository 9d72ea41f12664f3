"""The console that everything is printed on."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from rich import console

CLOSED_PIPE = 141
"""Exit status where nobody read what was printed: as a shell gives it for SIGPIPE. It is no verdict."""


class Console(console.Console):
    """rich's, without colouring of numbers. Where its pipe was closed the program ends with 141, not 1."""

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(highlight=False, stderr=stderr)

    def on_broken_pipe(self) -> NoReturn:
        """End quietly."""
        end_quietly()


def end_quietly() -> NoReturn:
    """End with 141; what is still to be written goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(CLOSED_PIPE)
