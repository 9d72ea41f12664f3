"""``python -m loadtest``: Locust with our locustfile unless another is given.

``--help`` shows the usual options, ``--help-all`` all of them, ours and Locust's.
``python -m loadtest record`` is the recorder (:mod:`loadtest.record`).

``locust --help`` prints its text before it reads a locustfile, so it can't know a locustfile's options.
"""

# PYTHON_ARGCOMPLETE_OK: argcomplete looks for this line.
from __future__ import annotations

import os
import sys
from pathlib import Path

if "_ARGCOMPLETE" in os.environ:  # a shell asks what may come next in a line that is being typed
    from loadtest.completion import complete

    sys.exit(complete())

try:
    from locust.main import main as locust_main

    import loadtest.tcp_user  # noqa: F401 - adds the options
    from loadtest.usual import HELP
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] in ("", "loadtest", "chat_gevent", "benchmarks"):
        raise  # no extra has it: a mistake in this program
    print(f"loadtest: {error.name} is not installed: pip install 'chat-gevent[loadtest]'", file=sys.stderr)
    sys.exit(1)


def main() -> None:
    """Run Locust, or the recorder."""
    if sys.argv[1:2] == ["record"]:
        from loadtest.record.command import main as record  # only here: workers have no use for it

        sys.exit(record(sys.argv[2:]))
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(HELP, end="")
        return
    sys.argv[1:] = ["--help" if word == "--help-all" else word for word in sys.argv[1:]]
    if not any(word.startswith(("-f", "--locustfile")) for word in sys.argv[1:]):
        sys.argv[1:1] = ["-f", str(Path(__file__).with_name("locustfile.py"))]
    locust_main()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
