"""The lines of a telnet client, without the negotiation that it begins with. Pure.

Some telnet clients send commands (RFC 854: the byte 255, a verb, an option) before or between the text that
is typed. Commands are not text: they are taken out, and each option that the client offers or asks for is
refused, as the RFC wants of a peer that knows none of them. The server takes a connection for telnet's when
its first byte begins such a command, under ``auto`` framing.

The beginning of a command that is not complete is kept behind the unfinished line. Of a subnegotiation
(``IAC SB ... IAC SE``, RFC 855) only that it has begun is kept, however long it is: nothing in it is needed.
"""

from __future__ import annotations

import re
from typing import Final

from chat_gevent.framing import MAX_MESSAGE_BYTES, Kept, Line, grow

IAC: Final = 0xFF
"""The byte that begins a command of telnet (RFC 854); it is no part of any UTF-8 text."""

_WILL, _WONT, _DO, _DONT = 251, 252, 253, 254

_COMMAND: Final = re.compile(
    rb"\xff(?:"
    rb"\xfa(?:[^\xff]|\xff[^\xf0])*+(?:\xff\xf0|(?P<open>\xff?)\Z)"  # SB ... IAC SE
    rb"|[\xfb-\xfe]."  # WILL, WONT, DO, DONT and an option
    rb"|[^\xfa-\xfe]"  # all others have two bytes
    rb"|(?P<begun>[\xfb-\xfe]?)\Z"
    rb")",
    re.DOTALL,
)


class Telnet(Line):
    """Lines with telnet's commands between their bytes."""

    __slots__ = ()

    def split(self, kept: Kept, data: Kept, limit: int = MAX_MESSAGE_BYTES) -> tuple[list[bytes], Kept]:
        """As :meth:`Line.split`, without telnet's commands. Raises MessageTooLong."""
        line, begun = _apart(kept)
        text, begun = _apart(_COMMAND.sub(_as_text, begun + data))
        lines, line = super().split(line, text, limit)
        return lines, grow(line, begun) if begun else line

    def finish(self, kept: Kept, limit: int = MAX_MESSAGE_BYTES) -> list[bytes]:
        """As :meth:`Line.finish`. A command that was cut off is dropped."""
        return super().finish(_apart(kept)[0], limit)

    def answer(self, kept: Kept, data: Kept) -> bytes:
        """The refusals due for the commands that ``data`` completes; to be asked before ``split``."""
        answer = bytearray()
        for match in _COMMAND.finditer(_apart(kept)[1] + data):
            command = match[0]
            if len(command) == 3 and command[1] in (_WILL, _DO):
                answer += bytes((IAC, _DONT if command[1] == _WILL else _WONT, command[2]))
        return bytes(answer)


def _apart(kept: Kept) -> tuple[Kept, bytes]:
    """Text, and the command that has begun behind it."""
    place = kept.find(IAC)
    return (kept, b"") if place < 0 else (kept[:place], bytes(kept[place:]))


def _as_text(command: re.Match[bytes]) -> bytes:
    """What is left of a command in the text: nothing, or what has to be kept of one that is not complete."""
    if command["open"] is not None:
        return b"\xff\xfa" + command["open"]
    if command["begun"] is not None:
        return command[0]
    # ``IAC IAC`` is a data byte of 255. 254 stands for it: it is as little UTF-8, and begins no command.
    return b"\xfe" if command[0] == b"\xff\xff" else b""


TELNET: Final = Telnet()
