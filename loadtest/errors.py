"""Everything that this package raises, as one tree.

::

    LoadTestError
    ├── OptionsError                  options that can't be read or don't fit together
    ├── NothingWritten                why the recorder writes no locustfile
    ├── ConnectionInUse               two greenlets use one connection
    ├── NotCaught                     a verdict on a reply that was reported already
    ├── DeadlinePassed                a moment passed; the caller that set it says what that means
    └── RequestFailed                 a request that failed; its class is its group in every error table
        ├── SystemCallFailed(errno)   the kernel reported an error
        │   ├── ConnectFailed         the connection could not be opened
        │   └── ConnectionBroken      an open connection broke (reset, unreachable)
        ├── ConnectTimeout            the connection was not open within the connect time-out
        ├── TlsFailed(reason)         the handshake failed, or a record was broken
        ├── ConnectionClosed          the server ended the stream while a reply was due
        ├── ReadTimeout               no complete reply within the read time-out
        ├── SendTimeout               the server did not take what was sent within the write time-out
        ├── WrongReply                a reply came, but not the one that was expected
        ├── ErrorReply(code)          the server refused the message, in the confirm protocol's own words
        ├── UnexpectedData            bytes that nothing had asked for
        ├── StepFailed(name)          a transaction one of whose steps failed
        ├── FramingBroken             the stream can't be cut into messages any further
        └── Failure(reason)           what the code of a user called a failure

Locust groups failures by ``repr``. So the ``repr`` of a RequestFailed is the class and, where the kernel or
the server gave a reason, its short name (``ConnectFailed(ECONNREFUSED)``, ``ErrorReply(server-full)``), and
never the text of one message or an address; those are in :attr:`RequestFailed.detail` for logs. No class
has the name of one of ``chat_gevent``'s.
"""

from __future__ import annotations

import errno as errno_module


class LoadTestError(Exception):
    """Base of all that this package raises on purpose."""


class OptionsError(LoadTestError, ValueError):
    """Options that don't fit together or can't be read; the message is one line for a person."""


class NothingWritten(LoadTestError):
    """Why the recorder writes no locustfile: what follows ``nothing was written:``, for a person."""


class ConnectionInUse(LoadTestError, RuntimeError):
    """A greenlet uses a connection on which another one is waiting: their replies would be mixed up."""


class NotCaught(LoadTestError, RuntimeError):
    """``failure()`` or ``success()`` of a reply that was counted: it needs ``catch_response=True``."""


class DeadlinePassed(LoadTestError):
    """A moment passed; the caller that set it says in its own words what that means."""


class RequestFailed(LoadTestError):
    """A failed request; ``reason`` is part of its group, ``detail`` is for a person."""

    in_step = False
    """Whether requests and replies still match one to one after it, so the connection may go on."""

    def __init__(self, detail: str = "", *, reason: str = "") -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    @property
    def group(self) -> str:
        """Class and reason: what errors are counted by."""
        return f"{type(self).__name__}({self.reason})" if self.reason else type(self).__name__

    def __repr__(self) -> str:
        return self.group

    def __str__(self) -> str:
        return f"{self.group}: {self.detail}" if self.detail else self.group


class SystemCallFailed(RequestFailed):
    """An error that the kernel reported; its reason is the name of the errno."""

    def __init__(self, number: int, detail: str = "") -> None:
        super().__init__(detail, reason=errno_module.errorcode.get(number, str(number)))
        self.errno = number


class ConnectFailed(SystemCallFailed):
    """The connection could not be opened."""


class ConnectTimeout(RequestFailed):
    """The connection was not open (TLS handshake included) within the connect time-out."""


class TlsFailed(RequestFailed):
    """The TLS handshake failed, or a record could not be decrypted."""


class ConnectionBroken(SystemCallFailed):
    """An open connection broke."""


class ConnectionClosed(RequestFailed):
    """The server ended the stream while a reply was due."""


class ReadTimeout(RequestFailed):
    """No complete reply within the read time-out."""


class SendTimeout(RequestFailed):
    """The server did not take what was sent within the write time-out."""


class WrongReply(RequestFailed):
    """A reply came, but not the one that was expected."""


class ErrorReply(RequestFailed):
    """``Error: <code>: ...`` of the confirm protocol; the reason is the code."""

    in_step = True


class UnexpectedData(RequestFailed):
    """Bytes arrived that nothing had asked for: a reply too many, or a server that pushes."""


class FramingBroken(RequestFailed):
    """The stream can't be cut into messages any further (a message beyond the bound, a broken length)."""


class StepFailed(RequestFailed):
    """A transaction one of whose steps failed; the reason is the step's name."""


class Failure(RequestFailed):
    """What a ``with ... as reply`` block called a failure; the reason is the text it gave."""

    in_step = True

    def __init__(self, reason: str) -> None:
        super().__init__("", reason=reason)
