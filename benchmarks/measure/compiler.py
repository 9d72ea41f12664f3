"""Programs in C and Go, compiled on first use into the user's cache under the hash of their source."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure.launch import cache


class BuildFailed(RuntimeError):
    """A compiler is here but refused the source; the text is its output."""


def compiled(source: Path, command: Callable[[Path, Path], list[str]]) -> Path:
    """Return the program made from ``source`` and the headers beside it, compiling it if that was not done.

    ``command`` gives the compiler's command line for source and target. Raises BuildFailed.
    """
    digest = hashlib.sha256(repr(command(Path(), Path())).encode())
    for part in [source, *sorted(source.parent.glob("*.h"))]:
        digest.update(part.read_bytes())
    target = cache("build") / f"{source.stem}-{digest.hexdigest()[:16]}"
    if not target.exists():
        partial = target.with_suffix(f".{os.getpid()}")
        done = subprocess.run(command(source, partial), capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildFailed(f"cannot compile {source.name}: {done.stderr.strip()}")
        partial.replace(target)
    return target


def cc() -> str | None:
    """The C compiler, if there is one."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
