"""Whether a reply is the one that was expected, and what is wrong with it where it is not.

The expected reply is compared whole, byte for byte. Of those that differ, an error of the confirm protocol
is told apart by its code, so that ``server-full`` is not counted with replies that are simply wrong.
"""

from __future__ import annotations

from typing import Final

from chat_gevent.confirm import ErrorCode
from loadtest.errors import ErrorReply, RequestFailed, WrongReply

_ERROR_CODES: Final = frozenset(ErrorCode)


def judge(reply: bytes, expected: bytes) -> RequestFailed | None:
    """What is wrong with ``reply``, or None; both are without their framing."""
    if reply == expected:
        return None
    if reply.startswith(b"Error: "):
        code = reply.split(b":", 2)[1].strip().decode("ascii", "replace")
        if code in _ERROR_CODES:
            return ErrorReply(reply[:200].decode("utf-8", "replace"), reason=code)
    return WrongReply(f"expected {expected[:80]!r}, got {reply[:80]!r}")
