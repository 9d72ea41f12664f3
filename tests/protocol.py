"""The protocol as it is written down, in a few lines: what a client's bytes must mean.

It is the model that the server's own code is held to, and shares nothing with that code. It is simple because
it has all bytes of a client before it at once, and may copy and search them as often as it likes.
"""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from collections.abc import Generator, Iterator
from dataclasses import dataclass

IAC = b"\xff"


@dataclass(frozen=True)
class Refused:
    """A message that is not UTF-8, and why."""

    explanation: str


Expected = tuple[list[str | bytes | Refused], str | None]
"""What a client has said, in order, and what ended it: ``exit``, ``message-too-long``, or None."""


def expect(
    framing: str | bytes | int,
    reads: list[bytes | None],
    limit: int,
    text: bool = True,
    word: str | None = "/exit",
) -> Expected:
    """What is to be made of ``reads`` and the end of the stream behind them.

    :param framing: ``line``, ``chunk``, ``auto``, a delimiter, or the size of a length.
    :param reads: what each read returned; None where the time is up in which ``auto`` hopes for an LF.
    """
    said: list[str | bytes | Refused] = []
    for message in _messages(framing, reads, limit):
        if message is None:
            return said, "message-too-long"
        try:
            decoded = message.decode() if text else message
        except UnicodeDecodeError as error:
            said.append(Refused(f"byte {error.start} of the message: {error.reason}"))
            continue
        if word and decoded.strip().lower() == (word.lower() if text else word.lower().encode()):
            return said, "exit"
        said.append(decoded)
    return said, None


def _messages(framing: str | bytes | int, given: list[bytes | None], limit: int) -> Iterator[bytes | None]:
    """Each message; None for one that is longer than ``limit``."""
    first, later = b"", list(given)
    if framing == "auto":
        while (
            later and later[0] is not None and not (first[:1] == IAC or b"\n" in first or len(first) > limit)
        ):
            first += later.pop(0) or b""
    reads = [read for read in later if read is not None]
    if framing == "chunk":
        first, reads = (yield from _chunks(reads, limit)), []
    elif framing == "auto" and first[:1] == IAC:
        first, reads = without_telnet(first + b"".join(reads))[0], []
    elif framing == "auto" and b"\n" not in first and len(first) <= limit:
        lines = next((place for place, read in enumerate(reads) if read.endswith(b"\n")), len(reads))
        first, reads = (yield from _chunks([first, *reads[:lines]], limit)), reads[lines:]
    stream = first + b"".join(reads)
    if isinstance(framing, int):
        while len(stream) >= framing:
            length = int.from_bytes(stream[:framing], "big")
            if length <= limit and len(stream) < framing + length:
                return
            yield stream[framing : framing + length] if length <= limit else None
            stream = stream[framing + length :]
        return
    *messages, last = stream.split(framing if isinstance(framing, bytes) else b"\n")
    if not isinstance(framing, bytes):
        messages = [message.removesuffix(b"\r") for message in messages]
    for message in messages + [last] * bool(last):
        yield message if len(message) <= limit else None


def _chunks(reads: list[bytes], limit: int) -> Generator[bytes, None, bytes]:
    """The messages of a client that sends no terminator; returns the unfinished character behind them."""
    kept = b""
    size = min(1024, limit)
    for piece in [read[start : start + size] for read in reads for start in range(0, len(read), size)]:
        piece = kept + piece
        decoder = getincrementaldecoder("utf-8")("replace")
        decoder.decode(piece)
        kept = decoder.getstate()[0]
        if b"\xed\xa0" <= kept < b"\xee":  # half of a surrogate, which is no character
            kept = b""
        if kept != piece:
            yield piece[: len(piece) - len(kept)]
    return kept


def without_telnet(stream: bytes) -> tuple[bytes, bytes]:
    """Text without the commands of RFC 854, and the answer to these: each option is refused."""
    text, answer, state = bytearray(), bytearray(), "text"
    for byte in stream:
        if state == "text":
            if byte == 0xFF:
                state = "command"
            else:
                text.append(byte)
        elif state == "command":
            if byte == 0xFF:
                text.append(byte)  # a command that stands for one byte of data
            state = {250: "inside", 251: "will", 252: "wont", 253: "do", 254: "dont"}.get(byte, "text")
        elif state == "inside":
            state = "inside command" if byte == 0xFF else state
        elif state == "inside command":
            state = "text" if byte == 240 else "inside"
        else:
            if state == "will":
                answer += bytes((255, 254, byte))
            elif state == "do":
                answer += bytes((255, 252, byte))
            state = "text"
    return bytes(text), bytes(answer)


def without_hint(data: bytes) -> bytes:
    """``data``, whose last word must say when to come back, without that."""
    said, hints = re.subn(rb"; retry in [0-9]+\.[0-9] s\n\Z", b"\n", data)
    assert hints == 1, data
    return said
