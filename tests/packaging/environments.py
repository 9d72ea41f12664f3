"""Bare environments with the built wheel and one of its extras, made in seconds and without a network.

An environment has the files of the distributions that the extra asks for, and of those that they ask for, as
symbolic links to the ones installed beside this interpreter. Nothing else can be imported there, so a
requirement that the extra forgot is missing. With ``PACKAGING_TEST_PIP=1``, as ``make matrix`` has it, pip
installs all of it from the index instead, in the versions that it chooses, for the Python that
``PACKAGING_TEST_PYTHON`` names.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

NAME = "chat-gevent"
EXTRAS = ("", "admin", "workers", "redis", "loadtest", "bench", "completion")


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment, and a folder of a user's to work in, which has folders named as our packages."""

    path: Path
    folder: Path

    def python(self, *arguments: str) -> list[str]:
        """Its interpreter with ``arguments``."""
        return [str(self.path / "bin" / "python"), *arguments]

    def command(self, *arguments: str) -> list[str]:
        """Its ``chat-gevent`` with ``arguments``."""
        return [str(self.path / "bin" / "chat-gevent"), *arguments]

    def run(self, command: list[str], timeout: float = 150) -> subprocess.CompletedProcess[str]:
        """Run a command in the user's folder to its end."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=clean(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


def clean() -> dict[str, str]:
    """The environment without what would lead an interpreter to other packages."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def required(extra: str) -> set[str]:
    """The distributions that the core and ``extra`` need, by what the installed ones say of themselves."""
    found: set[str] = set()
    waiting = [(NAME, extra)]
    seen = set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        for text in metadata.requires(name) or ():
            each = Requirement(text)
            if each.marker is None or each.marker.evaluate({"extra": wanted}):
                found.add(each.name)
                waiting += [(each.name, ""), *((each.name, other) for other in each.extras)]
    return found


def make(folder: Path, wheel: Path, extra: str) -> Environment:
    """An environment in ``folder`` with ``wheel`` and one extra, or with none. Raises CalledProcessError."""
    path, work = folder / "environment", folder / "work"
    python = os.environ.get("PACKAGING_TEST_PYTHON", sys.executable)
    subprocess.run([python, "-m", "venv", "--without-pip", str(path)], check=True, timeout=150)
    by_pip = bool(os.environ.get("PACKAGING_TEST_PIP"))
    if not by_pip:
        (site,) = (path / "lib").glob("python*/site-packages")
        for name in required(extra):
            _link(metadata.distribution(name), site)
    what = f"{wheel}[{extra}]" if extra else str(wheel)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(path),
        "--disable-pip-version-check",
        "install",
        "--quiet",
    ]
    offline = [] if by_pip else ["--no-deps", "--no-index"]
    subprocess.run([*pip, *offline, what], check=True, capture_output=True, timeout=600)
    for ours in ("loadtest", "benchmarks", "chat_gevent"):
        (work / ours).mkdir(parents=True)
        (work / ours / "__init__.py").write_text("raise RuntimeError('this is the folder of the user')\n")
    return Environment(path, work)


def _link(distribution: metadata.Distribution, site: Path) -> None:
    """Link the files of an installed distribution into ``site``; its commands stay where they are."""
    for file in distribution.files or ():
        if file.parts[0] != "..":
            link = site / file
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(Path(str(distribution.locate_file(file))))
