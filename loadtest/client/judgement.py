"""Whether a reply is the one that was expected, and what is wrong with it where it is not.

What is expected is bytes or a text, compared whole; a :class:`Prefix`; a compiled regular expression that
is found in the reply (one of ``str`` is looked for in its text); or a function that is given the reply and
says yes or no. Of replies that differ, an error of the confirm protocol is told apart by its code, so that
``server-full`` is not counted with replies that are simply wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from chat_gevent.confirm import ErrorCode
from loadtest.errors import ErrorReply, RequestFailed, WrongReply

_ERROR_CODES: Final = frozenset(ErrorCode)


class Prefix:
    """What a reply begins with: ``expect=Prefix(b"250")``. Raises TypeError."""

    __slots__ = ("data",)

    def __init__(self, data: bytes | str) -> None:
        if not isinstance(data, bytes | str):
            raise TypeError(f"a prefix is bytes or a text, not {data!r}")
        self.data = data.encode() if isinstance(data, str) else data

    def __repr__(self) -> str:
        return f"Prefix({self.data!r})"


Expected = bytes | str | re.Pattern[bytes] | re.Pattern[str] | Prefix | Callable[[bytes], Any]


def checked(expect: Any) -> Any:
    """``expect`` as :func:`judge_by` takes it. Raises TypeError: it is none of :data:`Expected`."""
    if isinstance(expect, str):
        return expect.encode()
    if expect is None or isinstance(expect, bytes | Prefix | re.Pattern) or callable(expect):
        return expect
    raise TypeError(f"expect is bytes, a text, a Prefix, a compiled pattern or a function, not {expect!r}")


def judge_by(reply: bytes, expected: Any) -> RequestFailed | None:
    """What is wrong with ``reply``, or None. Raises what a function that was given raises."""
    if isinstance(expected, bytes):
        return judge(reply, expected)
    if isinstance(expected, Prefix):
        right = reply.startswith(expected.data)
    elif isinstance(expected, re.Pattern):
        text: Any = reply.decode("utf-8", "replace") if isinstance(expected.pattern, str) else reply
        right = expected.search(text) is not None
    else:
        right = bool(expected(reply))
    return None if right else _wrong(reply, expected)


def judge(reply: bytes, expected: bytes) -> RequestFailed | None:
    """What is wrong with ``reply``, or None; both are without their framing."""
    return None if reply == expected else _wrong(reply, expected[:80])


def _wrong(reply: bytes, expected: Any) -> RequestFailed:
    if reply.startswith(b"Error: "):
        code = reply.split(b":", 2)[1].strip().decode("ascii", "replace")
        if code in _ERROR_CODES:
            return ErrorReply(reply[:200].decode("utf-8", "replace"), reason=code)
    return WrongReply(f"expected {expected!r}, got {reply[:80]!r}")
