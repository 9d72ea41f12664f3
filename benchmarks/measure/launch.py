"""How this program starts Python: so that it finds these packages, not a folder of the user's.

``-P`` keeps the current folder off the path of the new process, so that a folder ``benchmarks`` or
``loadtest`` there is not taken for ours; the folder that holds our packages comes first on that path. A
process is pinned to cores by its parent, before it starts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PACKAGES: Final = Path(__file__).parents[2]
"""The folder that ``benchmarks``, ``chat_gevent`` and ``loadtest`` are in."""


def cache(name: str) -> Path:
    """This program's folder ``name`` in the user's cache (``~/.cache``, or XDG_CACHE_HOME), made if need be.

    Raises OSError: it cannot be made.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chat_gevent" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def python(*words: str) -> list[str]:
    """The command line of this interpreter with ``words``, such as ``"-m", "benchmarks"``."""
    return [sys.executable, "-P", *words]


def environment(variables: Mapping[str, str] | None = None, packages: Path = PACKAGES) -> dict[str, str]:
    """This process's environment with ``variables``, and with ``packages`` first on the path of modules.

    Ours come next: another revision of the server is started with the handlers of this one.
    """
    folders = dict.fromkeys((str(packages), str(PACKAGES), os.environ.get("PYTHONPATH")))
    path = os.pathsep.join(filter(None, folders))
    return {**os.environ, "PYTHONPATH": path, **(variables or {})}


@contextmanager
def pinned(cores: Iterable[int] | None) -> Iterator[None]:
    """Processes started inside inherit these cores; None changes nothing."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
