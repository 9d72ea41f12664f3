"""The bytes of a fuzzer as choices first, and the rest as what is read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

Value = TypeVar("Value")


class Choices:
    """Takes choices from the front of ``data``, a byte each; beyond its end each is the first one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        """The next byte, 0 where there is none."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def of(self, values: Sequence[Value]) -> Value:
        """One of ``values``."""
        return values[self.byte() % len(values)]

    def rest(self) -> bytes:
        """All that no choice has taken."""
        return self._data[self._at :]

    def pieces(self, most: int = 8) -> list[bytes]:
        """The rest of the data in at most ``most`` pieces, none of them empty, cut where choices say."""
        cuts = [self.byte() for _ in range(self.byte() % most)]
        stream = self.rest()
        places = sorted(
            {0, len(stream), *(cut * len(stream) // 256 if len(stream) > 255 else cut for cut in cuts)}
        )
        return [stream[a:b] for a, b in pairwise(places) if stream[a:b]]
