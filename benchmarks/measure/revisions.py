"""This project's server as it was, or is elsewhere: ``chat_gevent@SOURCE``, to be measured beside another.

SOURCE is a folder that holds a package ``chat_gevent``, a wheel, or a revision of the git repository that
these files are in. The package of a wheel or a revision is put into the user's cache
(``~/.cache/chat_gevent/revisions``, or under XDG_CACHE_HOME) once, under a name that says what it is. The
server is started from there with everything else of this environment: Python, gevent, libraries.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.measure.launch import PACKAGES, cache
from benchmarks.reports.environment import source_hash

PACKAGE: Final = "chat_gevent"


def locate(source: str, repository: Path = PACKAGES) -> tuple[Path, str]:
    """The folder that the package of ``source`` is in, and what it is, for a report. Raises ValueError."""
    path = Path(source)
    if path.is_dir():
        if not (path / PACKAGE / "__main__.py").exists():
            raise ValueError(f"{source}: the folder has no package {PACKAGE}")
        return path.absolute(), f"folder {path.absolute().name}"
    if path.is_file():
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{source}: neither a folder nor a wheel")
        return _cached(source_hash([path]), lambda into: _unzip(path, into)), path.name
    commit = _git(repository, "rev-parse", "--verify", "--quiet", f"{source}^{{commit}}").decode().strip()
    if not commit:
        raise ValueError(
            f"{source}: no folder, no wheel, and no revision of the repository {repository.name}"
        )
    return _cached(commit, lambda into: _extract(repository, commit, into)), f"revision {commit[:12]}"


def _git(repository: Path, *words: str) -> bytes:
    """What git says; nothing where it fails, or is not there."""
    try:
        done = subprocess.run(["git", "-C", repository, *words], capture_output=True, check=False)
    except FileNotFoundError:
        return b""
    return done.stdout if done.returncode == 0 else b""


def _extract(repository: Path, commit: str, into: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(_git(repository, "archive", commit, PACKAGE))) as archive:
        archive.extractall(into, filter="data")


def _unzip(wheel: Path, into: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(into, [name for name in archive.namelist() if name.startswith(f"{PACKAGE}/")])


def _cached(name: str, fill: Callable[[Path], None]) -> Path:
    """The folder ``name`` of the cache, whole: filled aside, then moved there in one step."""
    root = cache("revisions")
    folder = root / name
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=root) as aside:
            whole = Path(aside, "whole")
            fill(whole)
            if not (whole / PACKAGE / "__main__.py").exists():
                raise ValueError(f"{name}: there is no package {PACKAGE} in it")
            whole.replace(folder)
    return folder
