"""How many system calls a server makes that send: counted inside it by a small library that is preloaded.

A preloaded library costs something, so what counts is measured in a trial of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.measure.compiler import BuildFailed, cc, compiled

SOURCE: Final = Path(__file__).with_name("count_sends.c")


class Counter:
    """The counter in its file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_bytes(bytes(8))

    def read(self) -> int:
        """Calls up to now."""
        return int.from_bytes(self._path.read_bytes(), "little")

    def environment(self) -> dict[str, str]:
        """Variables that make a program count. Raises BuildFailed: there is no compiler, or it refused."""
        if not cc():
            raise BuildFailed("no C compiler, which counting system calls takes")
        library = compiled(SOURCE, partial(_command, cc() or "cc"))
        return {"LD_PRELOAD": str(library), "BENCHMARKS_SENDS": str(self._path)}


def _command(compiler: str, source: Path, target: Path) -> list[str]:
    return [compiler, "-O2", "-shared", "-fPIC", "-o", str(target), str(source), "-ldl"]


@contextmanager
def counter() -> Iterator[Counter]:
    """A counter at 0, whose file is there until the end of the block."""
    with tempfile.TemporaryDirectory() as directory:
        yield Counter(Path(directory) / "sends")
