"""Framings of servers that mark the end of a reply by its content; :mod:`loadtest.framing` exports them.

A reply consists of parts (a line, a value, a count and its bytes). For each part a framing says where it
ends and how many parts it adds to those that are still to come; :class:`InParts` does the rest: it takes
time in proportion to what comes, in however many pieces, and raises MessageTooLong for a reply of more than
``limit`` bytes, with its end marks. What it keeps of an unfinished reply is an :class:`Unfinished`, which
remembers how far it was looked at.
"""

from __future__ import annotations

import re
from typing import Any, Final

from chat_gevent.framing import Chunk, FramingError, MessageTooLong, grow

CRLF: Final = b"\r\n"
_MOST_DIGITS: Final = 20


class Unfinished(bytearray):
    """The beginning of a reply, and how far it has been looked at."""

    __slots__ = ("at", "left", "need", "seen")

    def __init__(self, data: bytes | bytearray = b"") -> None:
        super().__init__(data)
        self.at = 0  # where the part begins that is not whole yet
        self.seen = 0  # up to here no line end was found
        self.need = 0  # fewer bytes than these need not be looked at
        self.left = 1  # parts still to come


class InParts:
    """A framing that finds the end of a reply part by part; ``_part`` and ``_content`` are its own."""

    name = ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(repr(value) for value in vars(self).values())})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def _part(self, buffer: Unfinished, begin: int, at: int, seen: int) -> tuple[int, int] | None:
        """Where the part at ``at`` ends (perhaps beyond what has come), and how many it adds.

        None where its length can't be known yet. ``begin`` is where its reply begins, and no line ends
        between ``at`` and ``seen``. Raises FramingError.
        """
        raise NotImplementedError

    def _content(self, reply: bytes) -> bytes:
        """The message in the bytes of one reply: all but the line end, unless a framing has its own."""
        return reply[: -2 if reply.endswith(CRLF) else -1]

    def split(self, kept: Any, data: bytes, limit: int) -> tuple[list[bytes], Any]:
        """Cut at the end of each reply. Raises MessageTooLong, FramingError."""
        buffer = kept if isinstance(kept, Unfinished) else Unfinished(kept)
        buffer += data
        size = len(buffer)
        if size < buffer.need:
            return [], buffer
        begin, at, seen, left, need = 0, buffer.at, buffer.seen, buffer.left, 0
        messages: list[bytes] = []
        while at < size:
            try:
                part = self._part(buffer, begin, at, max(at, seen))
            except FramingError as error:
                error.complete = messages
                raise
            if part is None:
                seen = size
                break
            end, more = part
            if end - begin > limit:
                raise MessageTooLong(limit, messages)
            if end > size:
                need = end
                break
            at = end
            left += more - 1
            if not left:
                messages.append(self._content(bytes(buffer[begin:at])))
                begin, left = at, 1
        if size - begin > limit:
            raise MessageTooLong(limit, messages)
        if begin == size:
            return messages, b""
        rest = Unfinished(buffer[begin:]) if begin else buffer
        rest.at, rest.seen, rest.need, rest.left = (
            at - begin,
            max(0, seen - begin),
            max(0, need - begin),
            left,
        )
        return messages, rest

    def finish(self, kept: Any, limit: int) -> list[bytes]:
        """A reply that was cut off is none."""
        return []

    def encode(self, message: bytes) -> bytes:
        """``message`` and CR LF."""
        return message + CRLF


def _line_end(buffer: Unfinished, seen: int) -> int:
    """Just after the first LF from ``seen`` on; 0 where there is none."""
    return buffer.find(b"\n", seen) + 1


class Lines(InParts):
    r"""A reply is one or more lines, the last of which matches ``last``: ``rb"\d{3}( |$)"`` for SMTP and FTP.

    The message has its inner line ends. What is sent is a message and CR LF.
    """

    name = "lines"

    def __init__(self, last: bytes | re.Pattern[bytes] = b"") -> None:
        self.last = re.compile(last)

    def _part(self, buffer: Unfinished, begin: int, at: int, seen: int) -> tuple[int, int] | None:
        end = _line_end(buffer, seen)
        if not end:
            return None
        return end, 0 if self.last.match(bytes(buffer[at : end - 1]).removesuffix(b"\r")) else 1


class Dot(InParts):
    """A reply is lines up to one that is a dot; the message is without it, and its doubled dots are single.

    A first line that matches ``single`` is a whole reply: an error has no text after it. What is sent is
    lines too, with CR LF, doubled dots and the dot at the end; so it mostly serves as ``until`` of a
    request.
    """

    name = "dot"

    def __init__(self, single: bytes | re.Pattern[bytes] = rb"-ERR|[45]\d\d") -> None:
        self.single = re.compile(single)

    def _part(self, buffer: Unfinished, begin: int, at: int, seen: int) -> tuple[int, int] | None:
        end = _line_end(buffer, seen)
        if not end:
            return None
        line = bytes(buffer[at : end - 1]).removesuffix(b"\r")
        whole = line == b"." or (at == begin and self.single.match(line))
        return end, 0 if whole else 1

    def _content(self, reply: bytes) -> bytes:
        text = super()._content(reply)
        if text == b".":
            return b""
        for end in (b"\r\n.", b"\n."):
            if text.endswith(end):
                text = text[: -len(end)]
                break
        return re.sub(rb"(?m)^\.\.", b".", text)

    def encode(self, message: bytes) -> bytes:
        """``message`` with CR LF, dots at the beginning of a line doubled, and the line that ends it."""
        lines = [b"." + line if line.startswith(b".") else line for line in message.splitlines()]
        return CRLF.join([*lines, b".", b""])


class TextLength(InParts):
    r"""Lines; one that matches ``header`` says in its last group how many bytes follow, before a CR LF.

    :param more: whether a header's message goes on after its bytes, up to a line that is no header, as
        memcached's ``VALUE`` up to ``END``. (NATS and beanstalkd: not.)
    """

    name = "text-length"

    def __init__(self, header: bytes | re.Pattern[bytes], *, more: bool = False) -> None:
        self.header = re.compile(header)
        self.more = more
        if not self.header.groups:
            raise ValueError("the header's expression needs a group for the number of bytes")

    def _part(self, buffer: Unfinished, begin: int, at: int, seen: int) -> tuple[int, int] | None:
        end = _line_end(buffer, seen)
        if not end:
            return None
        found = self.header.match(bytes(buffer[at : end - 1]).removesuffix(b"\r"))
        if not found:
            return end, 0
        return end + _number(found[self.header.groups]) + 2, 1 if self.more else 0


class Resp(InParts):
    """Values of Redis, versions 2 and 3: the message is the value as it came, less its last CR LF.

    ``$4 CR LF blue`` is the string ``blue``, ``$-1`` is none, ``+OK`` and ``-ERR ...`` are what they are.
    What is sent is words with blanks between them, as an array of strings; :meth:`command` makes one of any
    words.
    """

    name = "resp"

    def _part(self, buffer: Unfinished, begin: int, at: int, seen: int) -> tuple[int, int] | None:
        end = _line_end(buffer, seen)
        if not end:
            return None
        kind, line = buffer[at : at + 1], bytes(buffer[at + 1 : end - 1]).removesuffix(b"\r")
        if kind in b"+-:_#,(":
            return end, 0
        number = _number(line)
        if kind in b"$=!":
            return (end + number + 2 if number >= 0 else end), 0
        if kind in b"*~>":
            return end, max(0, number)
        if kind in b"%|":
            return end, 2 * number + (kind == b"|")
        raise FramingError(f"no value of Redis begins with {bytes(kind)!r}", [])

    def encode(self, message: bytes) -> bytes:
        """An array of the words of ``message``; what :meth:`command` made is sent as it is."""
        return message if message.startswith(b"*") else self.command(*message.split())

    @staticmethod
    def command(*words: bytes | str | int) -> bytes:
        """A command of any words, which may have blanks and line ends in them."""
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


class Several:
    """Several messages of ``each``, the last of which matches ``last``; joined, they are the reply."""

    name = "several"

    def __init__(self, each: Any, last: bytes | re.Pattern[bytes]) -> None:
        self.each = each
        self.last = re.compile(last, re.DOTALL)

    def __repr__(self) -> str:
        return f"Several({self.each!r}, {self.last!r})"

    def split(self, kept: Any, data: bytes, limit: int) -> tuple[list[bytes], Any]:
        """Cut after each message that matches. Raises MessageTooLong, FramingError."""
        whole, size, rest = kept or ([], 0, b"")
        refused: FramingError | None = None
        try:
            found, rest = self.each.split(rest, data, limit)
        except FramingError as error:  # what was whole before it may complete a reply
            found, refused = error.complete, error
        messages: list[bytes] = []
        for message in found:
            whole.append(message)
            size += len(message)
            if size > limit:
                raise MessageTooLong(limit, messages)
            if self.last.match(message):
                messages.append(b"".join(whole))
                whole, size = [], 0
        if refused is not None:
            refused.complete = messages
            raise refused
        return messages, (whole, size, rest) if whole or rest else b""

    def finish(self, kept: Any, limit: int) -> list[bytes]:
        """A reply that was cut off is none."""
        return []

    def encode(self, message: bytes) -> bytes:
        """As ``each`` has it."""
        return self.each.encode(message)  # type: ignore[no-any-return]


class Raw(Chunk):
    """Nothing marks an end: a reply is what one read returned, or as many bytes as ``expect`` has."""

    __slots__ = ()
    name = "raw"

    def split(self, kept: Any, data: Any, limit: int = 2**30) -> tuple[list[bytes], Any]:
        """All that was read is one reply."""
        return ([bytes(kept) + bytes(data)] if kept or data else []), b""


class UntilClose:
    """A reply is everything until the end of the stream. What is sent is the message as it is."""

    name = "until-close"

    def __repr__(self) -> str:
        return "UntilClose()"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def split(self, kept: Any, data: bytes, limit: int) -> tuple[list[bytes], Any]:
        """Keep it. Raises MessageTooLong."""
        if len(kept) + len(data) > limit:
            raise MessageTooLong(limit, [])
        return [], grow(kept, data)

    def finish(self, kept: Any, limit: int) -> list[bytes]:
        """The reply."""
        return [bytes(kept)]

    def encode(self, message: bytes) -> bytes:
        """``message`` as it is."""
        return message


def _number(text: bytes) -> int:
    """A number in digits. Raises FramingError."""
    if len(text) > _MOST_DIGITS or not re.fullmatch(rb"-?\d+", text):
        raise FramingError(f"{text[:40]!r} is not a number of bytes", [])
    return int(text)
