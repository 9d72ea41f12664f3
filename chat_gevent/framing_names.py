r"""Framings as people write them: on a command line, in the environment, in a settings file. Pure.

``line``, ``chunk``, ``auto``, ``delimiter:TEXT`` and ``length:BYTES``, the last with ``le`` behind it where
the least significant byte comes first. In ``TEXT`` a backslash begins ``\0``, ``\n``, ``\r``, ``\t``, ``\\``,
or ``\xHH`` for any byte; all other text is UTF-8, and bytes that are not, as the system handed them over.
"""

from __future__ import annotations

import re
from typing import Final

from chat_gevent.framing import BY_NAME, Delimiter, Framing, LengthPrefix

FORMS: Final = r"line, chunk, auto, delimiter:TEXT (with \0, \n, \r, \t, \\, \xHH) or length:BYTES[le]"
"""What can be written, for a help text and for whoever wrote something else."""

_LENGTH: Final = re.compile(r"([1248])(le)?")
_ESCAPE: Final = re.compile(rb"\\(?:([0nrt\\])|x([0-9A-Fa-f]{2}))")
_MEANING: Final = {b"0": b"\0", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"\\": b"\\"}
_WRITTEN: Final = {value[0]: f"\\{key.decode()}" for key, value in _MEANING.items()}


def parse(text: str) -> Framing:
    r"""The framing that ``text`` names. Raises ValueError, saying what it must be.

    >>> parse(r"delimiter:\r\n").encode(b"hello")
    b'hello\r\n'
    """
    name, given, parameter = text.partition(":")
    if name in BY_NAME and not given:
        return BY_NAME[name]
    if name == "delimiter" and parameter:
        return Delimiter(_ESCAPE.sub(_meant, parameter.encode(errors="surrogateescape")))
    if name == "length" and (found := _LENGTH.fullmatch(parameter)):
        return LengthPrefix(int(found[1]), "little" if found[2] else "big")
    raise ValueError(f"must be {FORMS}; BYTES is 1, 2, 4 or 8")


def written(framing: Framing) -> str:
    r"""What :func:`parse` reads as ``framing``; for one that can't be written, its name.

    >>> written(Delimiter(b"\r\n"))
    'delimiter:\\r\\n'
    """
    if isinstance(framing, Delimiter):
        return f"{framing.name}:" + "".join(map(_as_written, framing.end))
    if isinstance(framing, LengthPrefix) and not framing.inclusive:
        return f"{framing.name}:{framing.size}{'le' if framing.order == 'little' else ''}"
    return framing.name


def _meant(found: re.Match[bytes]) -> bytes:
    return bytes.fromhex(found[2].decode()) if found[2] else _MEANING[found[1]]


def _as_written(byte: int) -> str:
    return _WRITTEN.get(byte) or (chr(byte) if 32 < byte < 127 else f"\\x{byte:02x}")
