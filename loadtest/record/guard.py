"""A last look at a locustfile before it is written: does a masked value still stand in it?

The writer hides what is masked at each place that it knows of. This looks at the finished text as its reader
would, and so finds a place that was forgotten: it takes all strings and byte strings as Python reads them,
the names of requests, which are written in capitals, and the comments that quote replies. What the recorder
itself says (its docstrings, its own names, the framing) is no recorded text and not looked at.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Final

from loadtest.errors import NothingWritten
from loadtest.record.expectation import escape
from loadtest.record.locustfile import NAME, OWN_NAMES
from loadtest.record.secrets import MASK, Value

SHORTEST: Final = 4
"""Masked values of fewer bytes are not looked for: those stand in any text by chance."""

_BETWEEN: Final = b"\n\xff\n"
_COMMENT: Final = re.compile(r"^ +# differed: (.*)$", re.MULTILINE)


def check(text: str, values: Sequence[Value]) -> None:
    """Raise NothingWritten where a masked one of ``values`` stands in ``text``, a locustfile."""
    masked = [value for value in values if value.kind == MASK and len(value.data) >= SHORTEST]
    if not masked:
        return
    quoted = _Quoted()
    quoted.visit(ast.parse(text))
    recorded = _BETWEEN.join([*quoted.constants, *(each.encode() for each in _COMMENT.findall(text))])
    names = _BETWEEN.join(quoted.names)
    if found := [value.name for value in masked if _stands(value.data, recorded, names)]:
        raise NothingWritten(f"the file would have what was masked as {', '.join(sorted(found))} in clear")


def _stands(data: bytes, recorded: bytes, names: bytes) -> bool:
    commented = repr(data.decode("utf-8", "backslashreplace"))[1:-1].encode()
    if any(form in recorded for form in (data, escape(data), commented)):
        return True
    name = NAME.match(data)  # what would be the name of a request that begins with it
    return name is not None and len(name[0]) >= SHORTEST and name[0].upper() in names


class _Quoted(ast.NodeVisitor):
    """What a recorded file quotes of the recording."""

    def __init__(self) -> None:
        self.constants: list[bytes] = []
        self.names: list[bytes] = []
        """Names of requests that are not just what their message begins with."""

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bytes):
            self.constants.append(node.value)
        elif isinstance(node.value, str):
            self.constants.append(node.value.encode(errors="backslashreplace"))

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        target = node.targets[0]
        if not (isinstance(target, ast.Name) and (target.id == "framing" or target.id.startswith("SECRET_"))):
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        for child in (node.func, *node.args):
            self.visit(child)
        for keyword in node.keywords:
            if keyword.arg != "name":
                self.visit(keyword.value)
                continue
            name = _beginning(keyword.value) or b""
            message = _beginning(node.args[0]) if node.args else b""
            said = message is None or message.upper().startswith(name)
            if not said and name.decode() not in OWN_NAMES:
                self.names.append(name)


def _beginning(node: ast.expr) -> bytes | None:
    """What ``node`` begins with; empty where that is a masked value, None where it is a unique one."""
    while True:
        match node:
            case ast.Constant(value=str(text)):
                return text.encode(errors="backslashreplace")
            case ast.Constant(value=bytes(data)):
                return data
            case ast.Attribute():
                return None
            case ast.JoinedStr(values=[first, *_]) | ast.Call(args=[first, *_]):
                node = first
            case ast.BinOp(left=first) | ast.FormattedValue(value=first):
                node = first
            case _:
                return b""
