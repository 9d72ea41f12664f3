"""Commands that are programs of their own: ``bench``, ``compare`` and ``loadtest``.

They are reached by name, and replace this process. ``-P`` keeps the current folder off the path, so a folder
of the user's that is named ``benchmarks`` or ``loadtest`` does not hide them.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from typing import Final, NoReturn

from chat_gevent.command.standard import complain, finish


@dataclass(frozen=True, slots=True)
class Program:
    """A module to run, what its command line begins with, and the extra that brings what it imports."""

    help: str
    module: str
    first: tuple[str, ...]
    extra: str
    needs: tuple[str, ...]


_REPORTS: Final = ("hdrh", "jinja2", "jsonschema", "matplotlib", "psutil")
_BENCH: Final = (*_REPORTS, "rich", "scipy")

PROGRAMS: Final = {
    "bench": Program("measure servers: list, run, show, ...", "benchmarks", (), "bench", _BENCH),
    "compare": Program("compare two reports of bench", "benchmarks", ("compare",), "bench", _BENCH),
    "loadtest": Program(
        "load a TCP server with Locust", "loadtest", (), "loadtest", ("locust", "gevent", *_REPORTS)
    ),
}


def start(name: str, arguments: list[str]) -> int:
    """Replace this process by the program; returns 1 where something that it needs is not installed."""
    program = PROGRAMS[name]
    for module in (*program.needs, program.module):
        if importlib.util.find_spec(module) is None:
            remedy = f"{module} is not installed: pip install 'chat-gevent[{program.extra}]'"
            return complain(f"chat-gevent {name}: error: {remedy}", 1)
    if status := finish():
        return status
    return _replace([sys.executable, "-P", "-m", program.module, *program.first, *arguments])


def _replace(command: list[str]) -> NoReturn:
    os.execv(command[0], command)
