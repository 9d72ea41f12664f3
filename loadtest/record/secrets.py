"""What ``--mask`` and ``--unique`` find in a recording, and the Python that stands for it in the locustfile.

A regular expression is searched in all that a side sent on one connection, so that it finds what came in
several reads. If it has a group, the group is what is meant, else the whole match. Its value is then
replaced wherever it occurs, in requests, replies and comments:

* a masked value by a variable of the locustfile, which takes it from the environment;
* a unique value by the value with the user's number behind it, so that no two users have the same name.

A value is cut out before anything else is done with the bytes around it: what is taken for a word, a status,
a line's beginning or a name could otherwise hold a part of it.
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


Word = tuple[bytes | Value, ...]
"""Bytes without white space, and values, which may have some, in order."""


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


def words_of(pieces: Sequence[bytes | Value]) -> list[Word]:
    """``pieces`` split at white space outside of values: words, and between them what separates them."""
    words: list[list[bytes | Value]] = [[]]
    for piece in pieces:
        if isinstance(piece, Value):
            words[-1].append(piece)
            continue
        first, *others = re.split(rb"(\s+)", piece)
        words[-1] += [first] if first else []
        words += [[other] if other else [] for other in others]
    return [tuple(word) for word in words]


def bytes_of(word: Word) -> bytes:
    """``word`` as it was recorded."""
    return b"".join(piece.data if isinstance(piece, Value) else piece for piece in word)


def last_word(data: bytes, values: Sequence[Value]) -> tuple[bytes, bytes]:
    """``data`` cut behind its last blank that is in no value. The first part is empty where there is none."""
    end = len(data)
    for piece in reversed(parts_of(data, values)):
        end -= len(bytes_of((piece,)))
        if isinstance(piece, bytes) and (blank := piece.rfind(b" ")) >= 0:
            return data[: end + blank + 1], data[end + blank + 1 :]
    return b"", data
