"""``make matrix``: the wheel on each Python, with the lowest and the newest versions of what it needs.

Each row has an environment of its own, made by pip, with the wheel and not with the checkout; :data:`SUITE`
runs there, a part of the tests. ``make matrix-short``, which CI runs, is three rows with the smaller
:data:`SHORT_SUITE`. Rows run side by side (``--jobs``), as most tests wait for something. ``lowest`` are the
lowest gevent, Locust and gunicorn that pyproject.toml asks for, ``newest`` what pip takes without any bound,
``alone`` each extra by itself. A Python that is not installed is skipped and said to be. A test that fails is
not tried again. The exit status is 1 where a row failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PYTHONS: Final = ("3.11", "3.12", "3.13")

SUITE: Final = (
    "tests/chat_gevent/test_framing.py",
    "tests/chat_gevent/test_conversation.py",
    "tests/chat_gevent/test_handlers.py",
    "tests/chat_gevent/test_server.py",
    "tests/chat_gevent/test_service.py",
    "tests/chat_gevent/test_tls.py",
    "tests/chat_gevent/command/test_main.py",
    "tests/chat_gevent/command/test_metrics.py",
    "tests/chat_gevent/command/test_worker.py",
    "tests/end_to_end/test_clients.py",
    "tests/benchmarks/judge",
    "tests/benchmarks/test_cli.py",
    "tests/loadtest/client",
    "tests/loadtest/test_framing.py",
    "tests/loadtest/test_library.py",
    "tests/loadtest/test_readme.py",
)
"""What runs in each row: every package, over the network, with TLS, gunicorn and Locust."""

SHORT_SUITE: Final = (
    "tests/chat_gevent/test_framing.py",
    "tests/chat_gevent/test_conversation.py",
    "tests/chat_gevent/test_server.py",
    "tests/chat_gevent/test_tls.py",
    "tests/chat_gevent/command/test_main.py",
    "tests/chat_gevent/command/test_worker.py",
    "tests/loadtest/client",
    "tests/loadtest/test_library.py",
)
"""The same in about half a minute."""

SHORT_ROWS: Final = (("3.11", "lowest"), ("3.12", "newest"), ("3.13", "newest"))

EXTRAS: Final = "workers,admin,redis,loadtest,bench,completion"
SHORT_EXTRAS: Final = "workers,admin,loadtest"

LEFT_OUT: Final = "not without_the_extra and not experiment_prints"
"""Tests of :data:`SUITE` that look into the checkout, of which nothing is there."""

SHORT_LEFT_OUT: Final = " and not programs_are_found"
"""What needs the benchmarks, whose extra takes the longest to install."""

NEEDS: Final = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "packaging")
"""What the tests of :data:`SUITE` import beside the extras."""

VERSIONS: Final = ("lowest", "newest", "alone")


@dataclass(slots=True)
class Row:
    """One environment, and what became of it."""

    python: str
    versions: str
    outcome: str = ""
    detail: str = ""
    seconds: float = 0.0


def interpreter(version: str) -> str | None:
    """The path of a Python: of the PATH, where it is the one that it is named as, or of pyenv."""
    found = [shutil.which(f"python{version}"), sys.executable]
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found += [str(each) for each in sorted(home.glob(f"versions/{version}.*/bin/python"))]
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    for path in filter(None, found):
        done = subprocess.run([path, "-c", program], capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:  # a shim of pyenv is there also where its Python is not
            return path
    return None


def lowest() -> list[str]:
    """The lowest versions that are promised, as pip takes them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"]]
    for name in ("loadtest", "workers"):
        asked += project["optional-dependencies"][name]
    names = ("gevent>=", "locust>=", "gunicorn>=")
    return [each.replace(">=", "==") for each in asked if each.startswith(names)]


def run(command: list[str], log: Path, **options: str) -> bool:
    """Run a command, its output at the end of ``log``; whether it succeeded."""
    with log.open("ab") as file:
        environment = {**os.environ, **options}
        done = subprocess.run(command, cwd=log.parent, stdout=file, stderr=file, env=environment, check=False)
    return done.returncode == 0


def last_line(log: Path) -> str:
    """What the last command that wrote to ``log`` ended with."""
    return log.read_text().splitlines()[-1]


def try_row(row: Row, python: str, wheel: Path, work: Path, *, short: bool) -> None:
    """Make the environment of a row, and run its tests."""
    extras, suite = (SHORT_EXTRAS, SHORT_SUITE) if short else (EXTRAS, SUITE)
    folder = work / f"{row.python}-{row.versions}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = folder / "log.txt"
    own = folder / "environment"
    shutil.copytree(work / "tests", folder / "tests")
    for file in ("pyproject.toml", "constraints.txt", "README.md"):
        shutil.copy(ROOT / file, folder)
    for package in (
        "loadtest",
        "chat_gevent",
    ):  # pages that tests read; no modules
        (folder / package).mkdir()
        for page in (ROOT / package).glob("*.md"):
            shutil.copy(page, folder / package)
    install = [str(own / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    install += [f"{wheel}[{extras}]", *NEEDS]
    install += lowest() if row.versions == "lowest" else ["--upgrade", "--upgrade-strategy", "eager"]
    if not run([python, "-m", "venv", str(own)], log) or not run(install, log):
        row.outcome, row.detail = "failed", f"could not be installed: {log}"
        return
    left_out = LEFT_OUT + SHORT_LEFT_OUT if short else LEFT_OUT
    pytest = [str(own / "bin" / "python"), "-P", "-m", "pytest", "-q", "-n", "2", *suite, "-k", left_out]
    passed = run(pytest, log, PYTHONPATH=str(folder))
    row.outcome = "passed" if passed else "failed"
    row.detail = last_line(log) + ("" if passed else f"; {log}")


def try_alone(row: Row, python: str, work: Path) -> None:
    """Each extra alone, installed by pip as a user would, by the test that does so from links otherwise."""
    folder = work / f"{row.python}-alone"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    log.unlink(missing_ok=True)
    pytest = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(ROOT), "--timeout", "600"]
    passed = run(
        [*pytest, str(ROOT / "tests" / "packaging")],
        log,
        PACKAGING_TEST_PIP="1",
        PACKAGING_TEST_PYTHON=python,
    )
    row.outcome = "passed" if passed else "failed"
    row.detail = last_line(log) + ("" if passed else f"; {log}")


def main() -> int:
    """Try all rows and print them; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0] if __doc__ else "")
    parser.add_argument("--pythons", default=",".join(PYTHONS), help="default: %(default)s")
    parser.add_argument("--versions", default=",".join(VERSIONS), help="default: %(default)s")
    parser.add_argument("--short", action="store_true", help="three rows, fewer tests: what CI runs")
    parser.add_argument("--jobs", type=int, default=3, metavar="N", help="rows at a time (%(default)s)")
    arguments = parser.parse_args()
    work = ROOT / "build" / "matrix"
    shutil.rmtree(work / "dist", ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(work / "dist"), str(ROOT)]
    if not run(build, work / "build.txt"):
        print(f"the wheel could not be built: {work / 'build.txt'}", file=sys.stderr)
        return 1
    shutil.rmtree(work / "tests", ignore_errors=True)  # the tests of this wheel, whatever is edited meanwhile
    shutil.copytree(ROOT / "tests", work / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    (wheel,) = (work / "dist").glob("*.whl")
    rows = [Row(p, v) for p in arguments.pythons.split(",") for v in arguments.versions.split(",")]
    if arguments.short:
        rows = [Row(python, versions) for python, versions in SHORT_ROWS]

    def one(row: Row) -> None:
        begin = time.monotonic()
        python = interpreter(row.python)
        if python is None:
            row.outcome, row.detail = "skipped", "this Python is not installed"
        elif row.versions == "alone":
            try_alone(row, python, work)
        else:
            try_row(row, python, wheel, work, short=arguments.short)
        row.seconds = time.monotonic() - begin
        print(f"Python {row.python}, {row.versions}: {row.outcome}", file=sys.stderr)

    with ThreadPoolExecutor(arguments.jobs) as pool:
        for done in [pool.submit(one, row) for row in rows]:
            done.result()
    print(f"{'Python':<8} {'versions':<9} {'outcome':<8} {'seconds':>7}  detail")
    for row in rows:
        print(f"{row.python:<8} {row.versions:<9} {row.outcome:<8} {row.seconds:>7.0f}  {row.detail}")
    return any(row.outcome == "failed" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
