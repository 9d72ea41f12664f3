"""Whatever a recorded client and server say, a locustfile is written; what they say never becomes code in it.

The file compiles, imports what a recorded file may import, and calls nothing but what the recorder writes.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import Final

from loadtest.errors import NothingWritten
from loadtest.record.command import write_locustfile
from loadtest.record.tape import Side, Tape
from tests.faults.fuzz.choices import Choices

PAUSES: Final = (0.0, 0.01, 0.2, 1.5, 12.0)
IMPORTS: Final = {"locust", "loadtest", "os", "uuid", "re", "itertools"}


def check(data: bytes) -> None:
    """Raise AssertionError where the file is not what the recorder may write."""
    chosen = Choices(data)
    flags = chosen.byte()
    count = chosen.byte() % 8
    plan = [(chosen.byte(), chosen.byte()) for _ in range(count)]
    stream = chosen.rest()
    tapes = [Tape(limit=4096)]
    now, at = 0.0, 0
    for how, length in plan:
        side: Side = "client" if how & 1 else "server"
        now += PAUSES[(how >> 1) % len(PAUSES)]
        if how & 64:
            tapes[-1].end(side)
            tapes.append(Tape(limit=4096))
        tapes[-1].add(side, stream[at : at + length], now)
        at += length
    tapes[-1].add("client", stream[at:], now)
    mask = [r"PASS (\S+)"] if flags & 1 else []
    unique = [r"NICK (\S+)"] if flags & 2 else []
    recorded = [each for each in tapes if each.stream("client")]
    if recorded:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an escape that Python does not know is one
            try:
                text = write_locustfile(recorded, ("127.0.0.1", 1), mask, unique)
            except NothingWritten as reason:  # all that the clients said was cut; nothing masked is ever left
                assert "--keep" in str(reason), reason
                return
            look_at(text)


def look_at(text: str) -> None:
    """Raise AssertionError where ``text`` has code that no recorder wrote."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            assert all(each.name.split(".")[0] in IMPORTS for each in node.names), text
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] in IMPORTS, text
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name in CALLS or ALLOWED.fullmatch(name), f"{name} is called:\n{text}"


ALLOWED: Final = re.compile(
    r"self\.client\.\w+|message\.(startswith|removeprefix)|(SECRET_|self\.unique_)\d+\.encode"
)
CALLS: Final = {
    *("Line", "Lines", "Delimiter", "LengthPrefix", "Counted", "Varint", "Dot", "Resp", "TextLength"),
    *("UntilClose", "Raw", "Several", "Wire", "task", "between", "constant", "Resp.command"),
    *("re.compile", "super", "super().on_start", "b''.join"),
}
