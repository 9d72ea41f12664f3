"""What a shell may complete a line of ``python -m loadtest``, or of ``chat-gevent loadtest``, to.

Locust's parser can't be had without importing Locust, which patches the standard library for gevent and takes
most of a second: too long for somebody who waits with a key pressed. So the options are read from the source
files that declare them, Locust's and our own, without running these: each call of ``add_argument`` (or of
``add``, as our files name it) with its names, its choices, and whether a value follows. argcomplete, which
the extra ``completion`` brings, does the rest.
"""

from __future__ import annotations

import argparse
import ast
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
FILES: Final = ("FILE", "PATH", "<filename>")
"""What the help shows where an option takes a file."""
NO_VALUE: Final = ("store_true", "store_false", "store_const", "count", "help", "version")


def sources(record: bool) -> list[Path]:
    """The files that declare the options of the recorder, or of a load test."""
    if record:
        return [HERE / "record" / "command.py"]
    locust = find_spec("locust")  # which imports nothing
    theirs = [Path(locust.origin).with_name("argument_parser.py")] if locust and locust.origin else []
    return [*(each for each in theirs if each.is_file()), HERE / "run" / "options.py"]


def declared(source: str) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Of each option that ``source`` declares: its names, and what else stands there as a literal."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        names = [each.value for each in node.args if isinstance(each, ast.Constant)]
        if called in ("add", "add_argument") and names and all(str(each).startswith("-") for each in names):
            how = {}
            for each in node.keywords:
                try:
                    how[str(each.arg)] = ast.literal_eval(each.value)
                except ValueError:  # it is computed
                    continue
            yield [str(each) for each in names], how


def make_parser(record: bool) -> argparse.ArgumentParser:
    """A parser that knows the options well enough to complete them."""
    from argcomplete.completers import FilesCompleter

    parser = argparse.ArgumentParser(add_help=False, conflict_handler="resolve")
    for file in sources(record):
        for names, how in declared(file.read_text(encoding="utf-8")):
            if how.get("action") in NO_VALUE or how.get("nargs") == 0:
                parser.add_argument(*names, action="store_true", help=how.get("help"))
                continue
            wanted = {name: how[name] for name in ("choices", "help", "nargs") if name in how}
            action = parser.add_argument(*names, **wanted)
            if how.get("metavar") in FILES or "--locustfile" in names:
                action.completer = FilesCompleter()  # type: ignore[attr-defined]
    if not record:
        parser.add_argument("user_classes", nargs="*")
    return parser


def complete() -> int:
    """Tell the shell what may come next, and end the process; returns 1 where argcomplete is missing."""
    try:
        import argcomplete
        from argcomplete.completers import SuppressCompleter
    except ModuleNotFoundError:
        return 1
    begin = int(os.environ["_ARGCOMPLETE"])  # at which word of the line the arguments begin
    before = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])].split(" ")[:-1]
    record = before[begin : begin + 1] == ["record"]
    if record:
        os.environ["_ARGCOMPLETE"] = str(begin + 1)
    argcomplete.autocomplete(make_parser(record), default_completer=SuppressCompleter())
    return 1
