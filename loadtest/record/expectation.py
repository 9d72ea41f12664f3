"""What is constant in a reply, as a literal or a regular expression.

A reply that was seen once already tells what is likely to change: numbers, times, identifiers made of digits
and letters. One that was seen several times tells more: a word that differed stands as ``\\S+``, and a
comment has two of its values. A number of three digits that is the first or second word stays, because it
is a status (``250``). Of a long reply or one of many lines only the first line is looked at: its rest
depends on what others have stored meanwhile, most of the time. What ``--mask`` and ``--unique`` found is cut
out before all of that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from loadtest.record.secrets import Value, Word, bytes_of, hidden, parts_of, words_of

WHOLE_BYTES: Final = 200
"""Longest reply that is expected as a whole."""
WHOLE_LINES: Final = 2
"""Most lines of a reply that is expected as a whole."""

_DAYS: Final = b"Mon|Tue|Wed|Thu|Fri|Sat|Sun"
_MONTHS: Final = b"Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_DATES: Final = b"(?<![A-Za-z])(?:" + _DAYS + b"|" + _MONTHS + b")(?![A-Za-z])"
_MIXED: Final = rb"(?=[A-Za-z-]*\d)(?=[0-9-]*[A-Za-z])[0-9A-Za-z-]{8,}"
_CHANGING: Final = re.compile(b"(?P<date>" + _DATES + b")|(?P<mixed>" + _MIXED + rb")|(?P<number>\d+)")
_STATUS: Final = re.compile(rb"\d{3}(-|$)")


_NAMED: Final = {13: rb"\r", 10: rb"\n", 9: rb"\t"}
_ESCAPES: Final = [
    (b"\\" + bytes([byte]) if chr(byte) in ".^$*+?{}[]\\|()" else bytes([byte]))
    if 32 <= byte < 127 and byte != 34
    else _NAMED.get(byte, rb"\x%02x" % byte)
    for byte in range(256)
]
"""Each byte as a part of an expression; a quotation mark too, so that the text stays plain."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a reply has to be."""

    literal: bytes | None
    """The whole reply, where nothing in it is likely to change."""
    pattern: bytes
    """What the reply begins with, as a regular expression; all of it, where ``whole``."""
    whole: bool
    comment: str = ""
    """Which part differed, and two of its values."""


def expectation_of(replies: Sequence[bytes], values: Sequence[Value]) -> Expectation:
    """What all of ``replies``, which one request got at different times, have in common."""
    heads = [_head(reply, values) for reply in replies]
    whole = all(whole for _, whole in heads)
    rows = [words_of(head) for head, _ in heads]
    length = min(len(row) for row in rows)
    whole = whole and all(len(row) == length for row in rows)
    pattern, differing = b"", ""
    for index in range(length):
        words = list({row[index]: None for row in rows})
        if len(words) == 1:
            pattern += general(words[0], index // 2)
        else:
            forms = {general(word, index // 2) for word in words}
            first, second = (
                hidden(bytes_of(word), values).decode("utf-8", "backslashreplace") for word in words[:2]
            )
            differing = differing or f"differed: {first!r}, {second!r}"
            pattern += forms.pop() if len(forms) == 1 else _any_of([bytes_of(word) for word in words])
    literal = replies[0] if whole and pattern == escape(replies[0]) else None
    return Expectation(literal, pattern, whole, differing)


def escape(data: bytes) -> bytes:
    """An expression in printable ASCII that matches ``data`` and nothing else."""
    return b"".join(_ESCAPES[byte] for byte in data)


def general(word: Word, position: int) -> bytes:
    """``word``, at ``position`` in its line, as a regular expression without what is likely to change."""
    first = word[0] if word else b""
    status = _STATUS.match(first) if position < 2 and isinstance(first, bytes) else None
    if status and not status[1] and len(word) > 1:  # three digits, and a value that begins at once: no status
        status = None
    pattern = b""
    for part in word:
        if isinstance(part, Value):
            pattern += _any_of([part.data])
            continue
        if status:
            pattern += escape(part)
            continue
        end = 0
        for match in _CHANGING.finditer(part):
            pattern += escape(part[end : match.start()])
            pattern += {"date": rb"\w{3}", "mixed": rb"[\w-]+", "number": rb"\d+"}[str(match.lastgroup)]
            end = match.end()
        pattern += escape(part[end:])
    return pattern


def last_line_pattern(lines: Sequence[bytes], values: Sequence[Value], words: int = 1) -> bytes | None:
    """An expression for the beginning of the last of ``lines`` that none of the others matches.

    It takes as few words as possible, but at least ``words`` where there are as many. None where a line
    before is the same in all that is constant.
    """
    *others, last = lines
    tokens = words_of(parts_of(last, values))
    pattern = b""
    for index, token in enumerate(tokens):
        pattern += general(token, index // 2)
        if index % 2 or (index // 2 + 1 < words and index < len(tokens) - 1):
            continue
        ended = pattern + rb"(?:\s|$)"
        if token and not any(re.match(ended, line) for line in others):
            return ended
    return None


def _any_of(seen: Sequence[bytes]) -> bytes:
    """An expression for anything of the kind of ``seen``: one word, unless one of them has white space."""
    if all(each.isspace() for each in seen):
        return rb"\s+"
    if any(re.search(rb"\s", each) for each in seen):
        return rb"(?s:.+)" if all(seen) else rb"(?s:.*)"
    return rb"\S+" if all(seen) else rb"\S*"


def _head(reply: bytes, values: Sequence[Value]) -> tuple[list[bytes | Value], bool]:
    """The part of ``reply`` to look at, cut where a value stands, and whether that is all of it."""
    pieces = parts_of(reply, values)
    if len(reply) <= WHOLE_BYTES and len(reply.splitlines()) <= WHOLE_LINES:
        return pieces, True
    head: list[bytes | Value] = []
    room = WHOLE_BYTES
    for piece in pieces:
        if room <= 0:
            break
        if isinstance(piece, Value):
            head.append(piece)
            room -= len(piece.data)
            continue
        text = re.split(rb"[\r\n]", piece[:room], maxsplit=1)
        head.append(text[0])
        if len(text) > 1:
            break
        room -= len(piece)
    return head, False
