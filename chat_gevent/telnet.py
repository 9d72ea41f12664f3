"""The lines of a telnet client, without the negotiation that it begins with. Pure.

Some telnet clients send commands (RFC 854: the byte 255, a verb, an option) before or between the text that is
typed. Commands are no text: they are taken out, and each option that the client offers or asks for is
refused, as the RFC wants of a peer that knows none of them. The server takes a connection for telnet's when its first
byte is such a command, under ``auto`` framing.
"""

from __future__ import annotations

from typing import Final

from chat_gevent.framing import MAX_MESSAGE_BYTES, Kept, Line

IAC: Final = 0xFF
"""The byte that begins a command of telnet (RFC 854); it is no part of any UTF-8 text."""

_SB, _WILL, _WONT, _DO, _DONT, _SE = 250, 251, 252, 253, 254, 240


class Telnet(Line):
    """Lines with telnet's commands between their bytes. A command that is not complete is kept behind its line."""

    __slots__ = ()

    def split(self, kept: Kept, data: Kept, limit: int = MAX_MESSAGE_BYTES) -> tuple[list[bytes], Kept]:
        """As :meth:`Line.split`, without telnet's commands. Raises MessageTooLong."""
        command = kept.find(IAC)
        if command < 0:
            return super().split(kept, self._text(data), limit)
        return super().split(bytes(kept[:command]), self._text(kept[command:] + data), limit)

    def answer(self, kept: Kept, data: Kept) -> bytes:
        """The refusals that are due for the commands that ``data`` completes; to be asked before ``split``."""
        command = kept.find(IAC)
        data = data if command < 0 else kept[command:] + data
        answer = bytearray()
        place = 0
        while (place := data.find(IAC, place)) >= 0 and place + 2 < len(data):
            verb = data[place + 1]
            if verb in (_WILL, _DO):
                answer += bytes((IAC, _DONT if verb == _WILL else _WONT, data[place + 2]))
            place += _command_length(data, place) or len(data)
        return bytes(answer)

    @staticmethod
    def _text(data: Kept) -> bytes:
        text = bytearray()
        start = 0
        while (place := data.find(IAC, start)) >= 0:
            text += data[start:place]
            length = _command_length(data, place)
            if not length:
                return bytes(text + data[place:])  # it waits for its end
            if data[place + 1] == IAC:
                text.append(0xFE)  # a data byte of 255, which is as little UTF-8, and begins no command
            start = place + length
        return bytes(text + data[start:])


def _command_length(data: Kept, place: int) -> int:
    """How many bytes the telnet command at ``place`` has; 0 where it is not complete."""
    rest = len(data) - place
    if rest < 2:
        return 0
    verb = data[place + 1]
    if verb == _SB:
        end = data.find(bytes((IAC, _SE)), place + 2)
        return end + 2 - place if end >= 0 else 0
    length = 3 if _WILL <= verb <= _DONT else 2
    return length if rest >= length else 0


TELNET: Final = Telnet()
