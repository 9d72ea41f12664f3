"""What ``--mask`` and ``--unique`` find in a recording, and the Python that stands for it in the locustfile.

A regular expression is searched in all that a side sent on one connection, so that it finds what came in
several reads. If it has a group, the group is what is meant, else the whole match. Its value is then
replaced wherever it occurs, in requests, replies and comments:

* a masked value by a variable of the locustfile, which takes it from the environment;
* a unique value by the value with the user's number behind it, so that no two users have the same name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from loadtest.record.tape import SIDES, Tape

Kind = Literal["mask", "unique"]
MASK: Final[Kind] = "mask"
UNIQUE: Final[Kind] = "unique"
MARK: Final = b"***"
"""What stands for a masked value where it can't be a variable."""


@dataclass(frozen=True, slots=True)
class Value:
    """Something that is not written as it was recorded."""

    kind: Kind
    data: bytes
    name: str
    """The Python name that stands for it: ``SECRET_1``, or ``self.unique_1``."""


def find_values(tapes: Iterable[Tape], mask: Sequence[str], unique: Sequence[str]) -> list[Value]:
    """What the expressions find, each value once, the longest first. Raises re.error."""
    streams = [tape.stream(side) for tape in tapes for side in SIDES]
    found: dict[bytes, Kind] = {}
    for pattern, kind in [(each, MASK) for each in mask] + [(each, UNIQUE) for each in unique]:
        compiled = re.compile(pattern.encode())
        for stream in streams:
            for match in compiled.finditer(stream):
                value = match[1] if compiled.groups else match[0]
                if value:
                    found.setdefault(value, kind)
    counts = {MASK: 0, UNIQUE: 0}
    values = []
    for data, kind in found.items():
        counts[kind] += 1
        prefix = "SECRET" if kind == MASK else "self.unique"
        values.append(Value(kind, data, f"{prefix}_{counts[kind]}"))
    return sorted(values, key=lambda value: -len(value.data))


def parts_of(data: bytes, values: Sequence[Value]) -> list[bytes | Value]:
    """``data`` cut where a value stands: ``[b"AUTH ", SECRET_1]``."""
    if not values:
        return [data]
    by_data = {value.data: value for value in values}
    pattern = b"|".join(re.escape(value.data) for value in values)
    return [by_data.get(part, part) for part in re.split(b"(" + pattern + b")", data) if part]


def hidden(data: bytes, values: Sequence[Value]) -> bytes:
    """``data`` with :data:`MARK` for what is masked."""
    pieces = parts_of(data, [value for value in values if value.kind == MASK])
    return b"".join(MARK if isinstance(piece, Value) else piece for piece in pieces)
