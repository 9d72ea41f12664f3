"""What is sent and what must come back: rings of ready-made messages, and templates.

Unless a template is given, a process makes :data:`RING` different messages of the wanted size once,
with the bytes to send and the bytes that must come back. Users walk the ring from different places,
so neighbours send different messages at any time, a reply that went to the wrong user is noticed, and
the hot path formats nothing: a reply is right if it equals the expected bytes.
"""

from __future__ import annotations

import random
import string
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from chat_gevent.confirm import CONFIRMED
from loadtest.framing import ReplyFraming, one_message

RING: Final = 1024
"""Messages of a process's ring."""

RING_BYTES: Final = 64 * 2**20

_CONFIRMED: Final = CONFIRMED.encode()
_FILL: Final = (string.ascii_letters + string.digits).encode()

Exchange = tuple[bytes, bytes]
"""Bytes to send, and bytes that must come back."""


def confirm_exchange(framing: ReplyFraming, message: bytes) -> Exchange:
    """The exchange of one message. Raises ValueError or OverflowError where the framing can't carry it."""
    wire = framing.encode(message)
    one_message(framing, wire)
    return wire, framing.encode(_CONFIRMED + message)


def ring_messages(size: int) -> Iterator[bytes]:
    """:data:`RING` messages of ``size`` bytes: different ones, unless ``size`` is tiny.

    Large messages are fewer, so that a ring takes :data:`RING_BYTES` at most, or 8 messages.
    """
    filler = _FILL * (size // len(_FILL) + 1)
    for number in range(max(8, min(RING, RING_BYTES // (2 * size + 1)))):
        yield (b"%04d " % number + filler)[:size] if size > 4 else (b"%04d" % number)[4 - size :]


def make_ring(framing: ReplyFraming, size: int) -> list[Exchange]:
    """The exchanges of :func:`ring_messages`, in random order."""
    ring = [confirm_exchange(framing, message) for message in ring_messages(size)]
    random.Random(0).shuffle(ring)
    return ring


def check_messages(framing: ReplyFraming, size: int, template: Template | None) -> None:
    """Try messages as users will send them, as many as a ring has, and their confirmations.

    Raises ValueError with a sentence for a person: the framing can't carry one of them.
    """
    messages = ring_messages(size) if template is None else (template.message(n, n) for n in range(RING))
    for message in messages:
        what = f"{message[:40]!r} ({len(message)} bytes)"
        try:
            _, expected = confirm_exchange(framing, message)
        except OverflowError:
            raise ValueError(f"framing {framing.name}: {what} or its confirmation is too long") from None
        except ValueError as error:
            raise ValueError(f"framing {framing.name}: {what} can't be sent: {error}") from None
        try:
            one_message(framing, expected)
        except ValueError:
            said = f"framing {framing.name}: the confirmation of {what} contains the delimiter"
            raise ValueError(said) from None


_STRIDE: Final = 389
"""How far apart neighbouring users start in a ring: a prime, so that all places are used."""


class Rings:
    """A process's rings, one for each framing and size: users go round them, each from its own place."""

    def __init__(self) -> None:
        self._rings: dict[tuple[ReplyFraming, int], list[Exchange]] = {}

    def clear(self) -> None:
        """Drop them: the next test may want others."""
        self._rings.clear()

    def exchanges(self, framing: ReplyFraming, size: int, user: int) -> Iterator[Exchange]:
        """The messages of one user, without end."""
        key = framing, size
        if key not in self._rings:
            self._rings[key] = make_ring(framing, size)
        return self._walk(self._rings[key], user * _STRIDE)

    @staticmethod
    def _walk(ring: list[Exchange], start: int) -> Iterator[Exchange]:
        yield from islice(ring, start % len(ring), None)
        while True:
            yield from ring


_FIELDS: Final[dict[str, Callable[[int, int, str], str]]] = {
    "user": lambda user, number, spec: str(user),
    "n": lambda user, number, spec: str(number),
    "time": lambda user, number, spec: f"{time.time():.6f}",
    "uuid": lambda user, number, spec: str(uuid.uuid4()),
    "random": lambda user, number, spec: "".join(random.choices(string.ascii_letters, k=int(spec or 8))),
}


class Template:
    """``hello {user}, message {n} at {time} {uuid} {random:16}``; doubled braces are braces."""

    def __init__(self, text: str) -> None:
        """Raises ValueError with a sentence for a person."""
        self.parts: list[tuple[str, Callable[[int, int, str], str] | None, str]] = []
        for literal, name, spec, conversion in string.Formatter().parse(text):
            if name is not None and name not in _FIELDS:
                raise ValueError(f"unknown field {{{name}}}: use {', '.join(_FIELDS)}")
            if (
                conversion
                or (name != "random" and spec)
                or (name == "random" and spec and not spec.isdigit())
            ):
                raise ValueError(f"field {{{name}}}: only {{random:LENGTH}} takes an argument, a number")
            self.parts.append((literal, _FIELDS[name] if name is not None else None, spec or ""))
        if "\n" in text:
            raise ValueError("a message template may not contain a line break")

    def message(self, user: int, number: int) -> bytes:
        """The message ``number`` of ``user``."""
        return "".join(
            literal + (field(user, number, spec) if field else "") for literal, field, spec in self.parts
        ).encode()

    def exchanges(self, framing: ReplyFraming, user: int) -> Iterator[Exchange]:
        """The exchanges of one user, without end. Raises ValueError where the framing can't carry one."""
        number = 0
        while True:
            yield confirm_exchange(framing, self.message(user, number))
            number += 1
