r"""What ``--mask`` and ``--unique`` find in a recording, and the Python that stands for it in the locustfile.

A regular expression is searched in all that a side sent on one connection, so that it finds what came in
several reads. Commands of Redis are searched also as people write them: ``AUTH (\S+)`` finds the password in
``*2 $4 AUTH $7 hunter2``. If the expression has a group, the group is what is meant, else the whole match.
Its value is then replaced wherever it occurs, in requests, replies and comments:

* a masked value by a variable of the locustfile, which takes it from the environment;
* a unique value by the value with the user's number behind it, so that no two users have the same name.

A value is cut out before anything else is done with the bytes around it: what is taken for a word, a status,
a line's beginning or a name could otherwise hold a part of it.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final, Literal

from loadtest.record.tape import SIDES, Side, Tape
from loadtest.record.turns import turns_of

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


@dataclass(frozen=True, slots=True)
class _Stream:
    """What one side sent on one connection."""

    data: bytes
    ends: list[int]
    """Where it paused or the other side spoke: a message may end there."""
    inline: bytes
    """With each command of Redis as people write it, ``AUTH hunter2``; empty where there is none."""

    def span(self, start: int, end: int) -> tuple[int, int]:
        """A match without the line ends around it: ``.`` matches a CR, which is no part of a message."""
        value = self.data[start:end]
        start += len(value) - len(value.lstrip(b"\r\n"))
        return start, start + len(value.strip(b"\r\n"))

    def pieces(self, start: int, end: int) -> list[bytes]:
        """A value, and its parts where a message or a line may end within it."""
        cuts = [start, *self.ends[bisect_right(self.ends, start) : bisect_left(self.ends, end)], end]
        parts = [self.data[low:high] for low, high in pairwise(cuts)]
        return [
            self.data[start:end],
            *(line for part in parts for line in re.split(rb"[\r\n\0]+", part) if line),
        ]


def find_values(tapes: Iterable[Tape], mask: Sequence[str], unique: Sequence[str]) -> list[Value]:
    """What the expressions find, each value once, the longest first. Raises re.error.

    A masked value that lies across two messages is also masked in its parts, and one that overlaps another
    value also together with it.
    """
    if not mask and not unique:
        return []
    streams = [_stream(tape, side) for tape in tapes for side in SIDES]
    spans: list[dict[tuple[int, int], Kind]] = [{} for _ in streams]
    found: dict[bytes, Kind] = {}
    for pattern, kind in [(each, MASK) for each in mask] + [(each, UNIQUE) for each in unique]:
        compiled = re.compile(pattern.encode())
        group = 1 if compiled.groups else 0
        for stream, seen in zip(streams, spans, strict=True):
            for match in compiled.finditer(stream.data):
                start, end = stream.span(*match.span(group))
                if start < end:
                    seen.setdefault((start, end), kind)
                    found.setdefault(stream.data[start:end], kind)
            for match in compiled.finditer(stream.inline):
                value = (match[group] or b"").strip(b"\r\n")
                for each in [value] if value in stream.data else value.split():
                    if each:
                        found.setdefault(each, kind)
    for stream, seen in zip(streams, spans, strict=True):
        for start, end in _masked(seen):
            found.update(dict.fromkeys(stream.pieces(start, end), MASK))
    counts = {MASK: 0, UNIQUE: 0}
    values = []
    for data, kind in found.items():
        counts[kind] += 1
        prefix = "SECRET" if kind == MASK else "self.unique"
        values.append(Value(kind, data, f"{prefix}_{counts[kind]}"))
    return sorted(values, key=lambda value: -len(value.data))


def _stream(tape: Tape, side: Side) -> _Stream:
    data = tape.stream(side)
    ends = list(
        accumulate(len(part.data) for turn in turns_of(tape) if turn.side == side for part in turn.parts)
    )
    inline = b""
    if b"\r\n$" in data:
        inline = re.sub(rb"(?:^|\r\n)\*\d+\r\n\$\d+\r\n", b"\n", data)
        inline = re.sub(rb"\r\n\$\d+\r\n", b" ", inline)
    return _Stream(data, ends, inline)


def _masked(seen: Mapping[tuple[int, int], Kind]) -> list[tuple[int, int]]:
    """Where masked values are, and each of those together with what overlaps it and is not within it."""
    groups: list[list[tuple[int, int]]] = []
    limit = -1
    for start, end in sorted(seen):
        if start >= limit:
            groups.append([])
        groups[-1].append((start, end))
        limit = max(limit, end)
    unions = [(group[0][0], max(end for _, end in group)) for group in groups]
    joined = [
        union
        for union, group in zip(unions, groups, strict=True)
        if union not in seen and any(seen[span] == MASK for span in group)
    ]
    return [span for span, kind in seen.items() if kind == MASK] + joined


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
