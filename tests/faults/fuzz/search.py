"""The search itself, as a process: atheris ends it where it is done, without a return to Python."""

from __future__ import annotations

import sys

import atheris

from tests.faults.fuzz import TARGETS, load


def main() -> None:
    """Instrument what the target named first says, and hand all other arguments to libFuzzer."""
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=list(TARGETS[name]), enable_loader_override=False):
        check = load(name).check
    atheris.Setup([sys.argv[0], *options], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
