"""Programs in C and Go, compiled on first use into ``benchmarks/.build`` under the hash of their source."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

BUILD: Final = Path(__file__).parents[1] / ".build"


class BuildFailed(RuntimeError):
    """A compiler is here but refused the source; the text is its output."""


def compiled(source: Path, command: Callable[[Path, Path], list[str]]) -> Path:
    """Return the program made from ``source`` and the headers beside it, compiling it if that was not done.

    ``command`` gives the compiler's command line for source and target. Raises BuildFailed.
    """
    digest = hashlib.sha256(repr(command(Path(), Path())).encode())
    for part in [source, *sorted(source.parent.glob("*.h"))]:
        digest.update(part.read_bytes())
    target = BUILD / f"{source.stem}-{digest.hexdigest()[:16]}"
    if not target.exists():
        BUILD.mkdir(exist_ok=True)
        partial = target.with_suffix(".new")
        done = subprocess.run(command(source, partial), capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildFailed(f"cannot compile {source.name}: {done.stderr.strip()}")
        partial.replace(target)
    return target


def cc() -> str | None:
    """The C compiler, if there is one."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
