"""``python -m tests.faults.fuzz TARGET --runs N``: see the package."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.faults.fuzz import CORPUS, TARGETS, corpus, keep, replay


def main() -> int:
    """Fuzz, or run what is kept. Returns the exit status: 77 for a property that does not hold."""
    parser = argparse.ArgumentParser("python -m tests.faults.fuzz", description=__doc__)
    add = parser.add_argument
    add("target", choices=TARGETS)
    add("--runs", type=int, default=10_000, help="executions (default: %(default)s)")
    add("--seconds", type=int, default=0, help="end after so long; 0: only after the runs (default)")
    add("--seed", type=int, default=0, help="of the search; 0: another one each time (default)")
    add("--longest", type=int, default=512, help="bytes of an input (default: %(default)s)")
    add("--keep", action="store_true", help="add what reaches something new to the corpus in the repository")
    add("--artifacts", type=Path, default=Path(), help="folder for inputs that fail (default: this one)")
    add("--replay", type=Path, nargs="*", metavar="FILE", help="run these, or the corpus, without atheris")
    arguments = parser.parse_args()
    if arguments.replay is not None:
        inputs = [each.read_bytes() for each in arguments.replay] or corpus(arguments.target)
        replay(arguments.target, inputs)
        print(f"{arguments.target}: {len(inputs)} inputs hold")
        return 0
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: pip install 'chat-gevent[proof]'", file=sys.stderr)
        return 2
    return fuzz(arguments)


def fuzz(arguments: argparse.Namespace) -> int:
    """Search in a process of its own, which ends without Python's leave; returns its exit status."""
    with tempfile.TemporaryDirectory() as folder:
        for number, each in enumerate(corpus(arguments.target)):
            Path(folder, f"kept-{number}").write_bytes(each)
        options = [
            f"-runs={arguments.runs}",
            f"-max_len={arguments.longest}",
            "-timeout=60",
            "-rss_limit_mb=2048",
        ]
        if arguments.seed:
            options.append(f"-seed={arguments.seed}")
        if arguments.seconds:
            options.append(f"-max_total_time={arguments.seconds}")
        options += [f"-dict={CORPUS / arguments.target}.dict", f"-artifact_prefix={arguments.artifacts}/"]
        command = [sys.executable, "-m", "tests.faults.fuzz.search", arguments.target, *options, folder]
        status = subprocess.run(command, check=False).returncode
        if arguments.keep:
            keep(arguments.target, [each.read_bytes() for each in Path(folder).iterdir()])
    return status


if __name__ == "__main__":
    sys.exit(main())
