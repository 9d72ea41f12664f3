"""The built-in answer: each message is confirmed, ``Received: <message>``. Pure.

A message that can't be taken is refused with ``Error: <code>: <explanation>``, so a client can tell the two
apart by the first word. :class:`ErrorCode` has the codes.

:func:`whole` is the hot path of the server. It confirms a whole read at once when nothing in it needs a look
at each message; everything else goes through :mod:`chat_gevent.conversation` and :func:`confirm`, a message
at a time. Both give the same bytes, and a test holds them to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

from chat_gevent.framing import CR, LF, Kept

CONFIRMED: Final = "Received: "
ERROR: Final = "Error: "
_CONFIRMED: Final = CONFIRMED.encode()
_NEXT_CONFIRMED: Final = b"\n" + _CONFIRMED
_ADDED: Final = len(_CONFIRMED)
SLASH: Final = ord("/")
_RETRY_AT_END: Final = re.compile(r"; retry in (\d{1,6}(?:\.\d{1,3})?) s$")


class ErrorCode(StrEnum):
    """Why a message or a client was refused, in the words that go over the wire."""

    INVALID_UTF8 = "invalid-utf8"
    MESSAGE_TOO_LONG = "message-too-long"
    SERVER_FULL = "server-full"
    ADDRESS_FULL = "address-full"
    IDLE_TIMEOUT = "idle-timeout"
    HANDLER_FAILED = "handler-failed"
    SHUTTING_DOWN = "shutting-down"
    SERVER_BUSY = "server-busy"
    REFUSED = "refused"


Handler = Callable[[str, Any], str | None]
"""``(message, client) -> reply text``, or None for no reply. It may block as any gevent code may.

``client`` is a :class:`chat_gevent.service.Client`. Under ``line`` framing the text gets an LF; one that has
line feeds of its own is several lines to the client.

A ``gevent.Timeout`` that it starts must be closed before it returns (``with Timeout(...)`` does that): its
greenlet serves another client next.
"""


def confirm(message: str, client: Any) -> str:
    """Confirm ``message``: the handler that a server has unless it is given another.

    >>> confirm("hello", None)
    'Received: hello'
    """
    return CONFIRMED + message


def error_text(code: str, explanation: str) -> str:
    """``Error: <code>: <explanation>``."""
    return f"{ERROR}{code}: {explanation}"


RETRY: Final = "; retry in "
"""How the last word to a client begins to say when it should come back."""


def with_retry(explanation: str, seconds: float) -> str:
    """An explanation that says when to come back, in tenths of a second: ``...; retry in 2.5 s``."""
    return f"{explanation}{RETRY}{seconds:.1f} s"


def retry_seconds(reply: str) -> float | None:
    """In how many seconds the client is to come back, by the error ``reply``; None where it doesn't say."""
    found = _RETRY_AT_END.search(reply) if reply.startswith(ERROR) else None
    return float(found[1]) if found else None


def error_code(reply: str) -> str:
    """The code of an error reply; an empty text for any other reply."""
    return reply.removeprefix(ERROR).partition(": ")[0] if reply.startswith(ERROR) else ""


def whole(kept: Kept, data: Kept, limit: int) -> tuple[bytes, bytes, int] | None:
    """Confirm all lines of a read at once: the short way.

    :param kept: the beginning of a line from earlier reads.
    :param data: what was read.
    :param limit: longest message in bytes.

    Returned are the replies in order, each with its LF, what is to be kept, and the number of messages. None
    where that can't be done at once: where no line is complete, or one may be too long, read ``/exit`` or not
    be UTF-8. (LF is never part of a longer UTF-8 character, so the lines are UTF-8 if the whole is.)
    """
    cut = data.rfind(LF) + 1
    size = len(data)
    if not cut or len(kept) + size > limit:
        return None
    rest = b""
    if cut != size:
        rest = bytes(data[cut:])
        data = data[:cut]
    if kept:
        data = bytes(kept) + data
    if SLASH in data and b"/exit" in data.lower():
        return None
    if CR in data:
        data = data.replace(b"\r\n", b"\n")
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            return None
    if data.find(LF) == len(data) - 1:
        return _CONFIRMED + data, rest, 1
    # What is put behind the last LF is cut off again, and each message has made the replies so much longer.
    replies = (_CONFIRMED + data.replace(b"\n", _NEXT_CONFIRMED))[:-_ADDED]
    return replies, rest, (len(replies) - len(data)) // _ADDED


def is_exit(data: Kept) -> bool:
    """Whether a read is one line, and that line ``/exit``."""
    return data.find(LF) == len(data) - 1 and data.strip().lower() == b"/exit"
