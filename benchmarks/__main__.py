"""``python -m benchmarks``."""
# PYTHON_ARGCOMPLETE_OK: argcomplete looks for this line.

import sys

from benchmarks.cli import main

if __name__ == "__main__":
    try:
        status = main()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "benchmarks", "chat_gevent", *sys.stdlib_module_names):
            raise  # no extra has it: a mistake in this program
        print(f"benchmarks: {package} is not installed: pip install 'chat-gevent[bench]'", file=sys.stderr)
        status = 2
    sys.exit(status)
