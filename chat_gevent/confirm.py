"""Messages to replies: the confirmation, the errors, and the protocol of custom handlers. Pure.

A message is answered with ``Received: <message>`` or refused with ``Error: <code>: <explanation>``,
so a client can always tell the two apart by the first word. ``/exit`` (any case, white space around
it ignored) is no message: it ends the connection and gets no reply.

:func:`confirm_lines` is the hot path. It confirms a whole read at once when nothing in it needs a
look at each message; everything else goes through :func:`confirm` or a custom handler, a message at
a time. Both give the same bytes, and a property test holds them to it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, Protocol

CONFIRMED: Final = "Received: "
_CONFIRMED: Final = CONFIRMED.encode()
_NEXT_CONFIRMED: Final = b"\n" + _CONFIRMED


class ErrorCode(StrEnum):
    """Why a message or a client was refused, in the words that go over the wire."""

    INVALID_UTF8 = "invalid-utf8"
    MESSAGE_TOO_LONG = "message-too-long"
    SERVER_FULL = "server-full"
    ADDRESS_FULL = "address-full"
    IDLE_TIMEOUT = "idle-timeout"
    HANDLER_FAILED = "handler-failed"
    SHUTTING_DOWN = "shutting-down"


class Client(Protocol):
    """What a custom handler is told about the client whose message it answers."""

    @property
    def address(self) -> Any:
        """The peer's address as ``getpeername`` or a PROXY header gives it; None once it is gone."""

    state: Any
    """The handler's own, for this connection; None at first."""

    def close(self) -> None:
        """End the connection after the reply to this message."""


Handler = Callable[[str, Client], str | None]
"""``(message, client) -> reply text``, or None for no reply. It may block as any gevent code may.

Under ``line`` framing the text gets an LF; one that has line feeds of its own is several lines to the client.

A ``gevent.Timeout`` that it starts must be closed before it returns (``with Timeout(...)`` does that): its
greenlet serves another client next.
"""


def confirm(message: str, client: Client) -> str:
    """Confirm ``message``: the handler that a server has unless it is given another."""
    return CONFIRMED + message


def error_reply(code: ErrorCode, explanation: str) -> bytes:
    """``Error: <code>: <explanation>`` without a terminator."""
    return f"Error: {code}: {explanation}".encode()


def is_exit(message: str) -> bool:
    """Whether ``message`` asks to end the connection."""
    return message.strip().lower() == "/exit"


def confirm_lines(data: bytes | bytearray) -> bytes | None:
    """Confirm a read that is whole lines, all at once; None where each line needs a look of its own.

    ``data`` ends with LF. Returned is the confirmation of each line in order, each with its LF; one CR
    before it is dropped. What reads ``/exit`` and bytes that are not UTF-8 need a look. LF is never
    part of a longer UTF-8 character, so the lines are UTF-8 if the whole is.
    """
    if b"/" in data and b"/exit" in data.lower():
        return None
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            return None
    if data.find(b"\n") == len(data) - 1:
        return _CONFIRMED + data
    return _CONFIRMED + data[:-1].replace(b"\n", _NEXT_CONFIRMED) + b"\n"
