"""Where a UTF-8 text that comes in pieces is cut within a character. Pure."""

from __future__ import annotations

from codecs import utf_8_decode


def unfinished_character(data: bytes | bytearray) -> int:
    """How many bytes at the end of ``data`` begin a UTF-8 character that more bytes could finish: 0 to 3."""
    for back in range(1, min(3, len(data)) + 1):
        if data[-back] & 0xC0 != 0x80:  # not a continuation byte: the last character starts here
            try:
                decoded = utf_8_decode(data[-back:], "strict", False)[1]
            except UnicodeDecodeError:
                return 0
            if data[-back:].startswith(b"\xed") and back > 1 and data[1 - back] >= 0xA0:
                return 0  # a surrogate, which no byte can finish; the codec finds out one byte later
            return 0 if decoded else back
    return 0
