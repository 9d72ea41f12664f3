"""Change the code in small ways, one at a time, and see whether its tests notice: ``make mutation``.

    python -m tests.mutation.run [GROUP]

mutmut makes the mutants and runs them. A group is a few modules and the test files that must notice; each
is worked at in a copy of its own, ``build/mutation/GROUP``, where ``mutmut show NAME`` prints a mutant and
``mutmut run NAME`` tests it again. README.md beside this file has the results, and explains each survivor.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "mutation"


@dataclass(frozen=True)
class Group:
    """Modules, the test files that have to notice a change in them, and which of the mutants are run."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    sample: tuple[str, ...] = ()
    """Endings of a mutant's number within its function; all mutants if empty."""
    without: tuple[str, ...] = ()
    """Tests that are left out, because they take ten seconds or need another process."""


GROUPS = {
    "conversation": Group(
        ("chat_gevent/conversation.py",),
        ("tests/chat_gevent/test_conversation.py",),
    ),
    "framing": Group(
        ("chat_gevent/framing.py",),
        ("tests/chat_gevent/test_framing.py",),
    ),
    "registry": Group(
        ("chat_gevent/registry.py", "chat_gevent/places.py"),
        ("tests/chat_gevent/test_registry.py", "tests/chat_gevent/test_places.py"),
    ),
    "connection": Group(
        ("chat_gevent/connection.py",),
        ("tests/chat_gevent/test_connection.py",),
        ("1", "6"),
    ),
    "judge": Group(
        (
            "benchmarks/judge/statistics.py",
            "benchmarks/judge/scatter.py",
            "benchmarks/judge/verdicts.py",
            "benchmarks/judge/compare.py",
        ),
        ("tests/benchmarks/judge/test_statistics.py", "tests/benchmarks/judge/test_compare.py"),
        ("1", "6"),
        (
            "tests/benchmarks/judge/test_statistics.py::test_swapping_sides_inverts_the_ratio",
            "tests/benchmarks/judge/test_statistics.py::test_units_do_not_matter",
            "tests/benchmarks/judge/test_compare.py::test_the_command_itself",
        ),
    ),
}


PRELOAD = ("numpy", "gevent", "chat_gevent")
"""What is imported once, before the processes of mutants are forked. pytest imports its plugins itself."""

VERDICTS = {0: "survived", 1: "killed", 3: "killed", 33: "untested", -24: "timed out", 255: "broken off"}
"""What the exit code of a mutant's tests says. README.md explains 255, which mutmut takes for a time-out."""

LEFT_OUT = shutil.ignore_patterns("results", "__pycache__")


def prepare(group: Group, folder: Path) -> None:
    """Make a new working copy of a group, with mutmut's configuration."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("chat_gevent", "benchmarks", "loadtest", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=LEFT_OUT)
    mutmut = {
        "source_paths": ["chat_gevent", "benchmarks", "loadtest"],
        "only_mutate": group.modules,
        "pytest_add_cli_args_test_selection": group.tests,
        "pytest_add_cli_args": [
            *("-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov", "--timeout=60"),
            *(f"--deselect={test}" for test in group.without),
        ],
        # The process that forks must not have used gevent; nor may it have collected the tests, because
        # pytest gives some of them other names the second time.
        "process_isolation": "forkserver",
        "forkserver_warmup": "import",
        "preload_modules_file": "preload.txt",
        "timeout_multiplier": 5.0,
        "use_git_change_detection": False,
    }
    preload = [*PRELOAD, *(module.removesuffix(".py").replace("/", ".") for module in group.modules)]
    (folder / "preload.txt").write_text("\n".join(preload))
    table = "".join(f"{key} = {json.dumps(value)}\n" for key, value in mutmut.items())
    text = (ROOT / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(f"{text}\n[tool.mutmut]\n{table}")


def run(name: str) -> Counter[str]:
    """Run a group's mutants one after the other; returns how many had each verdict."""
    group, folder = GROUPS[name], WORK / name
    prepare(group, folder)
    chosen = [f"*__mutmut_*{ending}" for ending in group.sample]
    environment = {**os.environ, "CI": "true", "HYPOTHESIS_PROFILE": "short"}  # the same examples each time
    mutmut = str(Path(sys.executable).with_name("mutmut"))
    subprocess.run([mutmut, "run", "--max-children", "1", *chosen], cwd=folder, env=environment, check=True)
    found: Counter[str] = Counter()
    for module in group.modules:
        codes = json.loads((folder / "mutants" / f"{module}.meta").read_text())["exit_code_by_key"]
        for mutant, code in codes.items():
            if code is not None:
                verdict = VERDICTS.get(code, f"failed with {code}")
                found[verdict] += 1
                if verdict != "killed":
                    print(f"{verdict}: {mutant}")
    return found


def main() -> int:
    """Run the group that is named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation.run", description=__doc__)
    parser.add_argument("group", nargs="?", choices=GROUPS, help="all unless given")
    group = parser.parse_args().group
    for name in [group] if group else GROUPS:
        found = run(name)
        print(f"{name}: {found.total()} mutants: {', '.join(f'{n} {what}' for what, n in found.items())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
