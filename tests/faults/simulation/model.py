"""What a client must be sent, from the bytes that the server has read of it. It knows nothing of how.

For lines the model is exact: a list of replies, each of them one of the texts that are right for its message,
and the reason for which the conversation ends by itself. Pushes are told from replies by their form, and may
stand between any two of them. Without terminators it is left open how reads cut the stream: what was read
comes back whole and in order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

FAILED = b"Error: handler-failed: the server could not handle the message"
LAST_WORDS = b"the last words"
PUSH = re.compile(rb"<p(\d+)>")
_CUT_PUSH = re.compile(rb"<(?:p\d*)?\Z")
TOLD = {
    "idle-timeout": b"Error: idle-timeout: no complete message came for too long",
    "shutting-down": b"Error: shutting-down: the server is going away",
    "server-busy": b"Error: server-busy: too many messages are unfinished, and yours is among the longest",
    "server-full": b"Error: server-full: no more clients are admitted now, try again later",
    "address-full": b"Error: address-full: too many clients share your address",
    "refused": b"Error: refused: not you",
    "handler-failed": b"Error: handler-failed: the server could not admit you",
}
"""What the server says at an end that the client did not bring about."""

ENDING = re.compile(rb"(?:" + b"|".join(map(re.escape, [*TOLD.values(), LAST_WORDS])) + rb")\n?\Z")


@dataclass
class Due:
    """What the messages that were read are to be answered with."""

    replies: list[bytes] = field(default_factory=list)
    messages: int = 0
    """How many of them count as answered."""
    ending: str = ""
    """Why the conversation ends by what was read; empty where it goes on."""


def due(taken: bytes, ended: bool, limit: int, words: bool, closes: bool = True) -> Due:
    """What is due for ``taken``.

    ``ended``: what no LF closes is a message too. ``words``: a service answers, which ``closes`` the client
    at some of them, unless that is about to leave for another reason already.
    """
    result = Due()
    *lines, rest = taken.split(b"\n")
    if len(rest.removesuffix(b"\r")) > limit or (ended and rest):
        lines.append(rest)
        rest_at = len(lines) - 1 if ended else -1
    else:
        rest_at = -1
    for number, line in enumerate(lines):
        text = line if number == rest_at else line.removesuffix(b"\r")
        if len(text) > limit:
            result.replies.append(b"Error: message-too-long: a message is limited to %d bytes" % limit)
            result.ending = "message-too-long"
            return result
        try:
            word = text.decode()
        except UnicodeDecodeError as error:
            told = f"Error: invalid-utf8: byte {error.start} of the message: {error.reason}"
            result.replies.append(told.encode())
            continue
        if word.strip().lower() == "/exit":
            result.ending = "exit"
            return result
        if words and word in ("fail", "die"):
            result.replies.append(FAILED)
            continue
        result.messages += 1
        if not (words and word == "none"):
            result.replies.append(b"Received: " + text)
        if words and closes and word in ("close", "last"):
            if word == "last":
                result.replies.append(LAST_WORDS)
            result.ending = "handler"
            return result
    return result


def pushes_in(produced: bytes) -> list[int]:
    """The pushes that a client was sent, by their numbers."""
    return [int(each) for each in PUSH.findall(produced)]


def without_pushes(produced: bytes) -> list[bytes]:
    """The whole lines that are no pushes, of a stream of lines."""
    lines = produced.split(b"\n")[:-1]
    return [line for line in lines if not (line[:2] == b"<p" and PUSH.fullmatch(line))]


def text_of(produced: bytes) -> bytes:
    """What came back of a stream without terminators, without what the server added."""
    produced = PUSH.sub(b"", ENDING.sub(b"", _CUT_PUSH.sub(b"", produced)))
    return produced.replace(b"Received: ", b"").replace(b"\n", b"")


def is_cut(produced: bytes, lines: bool) -> bool:
    """Whether a stream ends within a reply or push, as far as that can be told."""
    if lines:
        return bool(produced) and not produced.endswith(b"\n")
    return bool(produced) and _CUT_PUSH.search(produced) is not None
