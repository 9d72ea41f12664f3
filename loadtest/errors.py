"""What can go wrong with a request, as classes whose names are the groups of every error table.

Locust groups failures by ``repr``. So the ``repr`` of these is the class and, where the kernel or the
peer gave a reason, its short name (``ConnectFailed(ECONNREFUSED)``, ``ErrorReply(server-full)``), and
never the text of one message or an address; those are in :attr:`TcpError.detail` for logs::

    TcpError
    ├── ConnectFailed(errno)      the connection could not be opened
    ├── ConnectTimeout            ... within the connect time-out
    ├── TlsFailed(reason)         the handshake failed, or a record was broken
    ├── ConnectionLost(errno)     an open connection broke (reset, unreachable)
    ├── ConnectionClosed          the peer ended the stream while a reply was due
    ├── ReadTimeout               no complete reply within the read time-out
    ├── WriteTimeout              the peer did not take what was sent within the write time-out
    ├── WrongReply                a reply came, but not the one that was expected
    ├── ErrorReply(code)          the server refused the message, in the confirm protocol's own words
    ├── UnexpectedData            bytes that nothing had asked for
    └── FramingBroken             the stream can't be cut into messages any further
"""

from __future__ import annotations

import errno as errno_module


class TcpError(Exception):
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


class OsTcpError(TcpError):
    """An error that the kernel reported; its reason is the name of the errno."""

    def __init__(self, number: int, detail: str = "") -> None:
        super().__init__(detail, reason=errno_module.errorcode.get(number, str(number)))
        self.errno = number


class ConnectFailed(OsTcpError):
    """The connection could not be opened."""


class ConnectTimeout(TcpError):
    """The connection was not open (TLS handshake included) within the connect time-out."""


class TlsFailed(TcpError):
    """The TLS handshake failed, or a record could not be decrypted."""


class ConnectionLost(OsTcpError):
    """An open connection broke."""


class ConnectionClosed(TcpError):
    """The peer ended the stream while a reply was due."""


class ReadTimeout(TcpError):
    """No complete reply within the read time-out."""


class WriteTimeout(TcpError):
    """The peer did not take what was sent within the write time-out."""


class WrongReply(TcpError):
    """A reply came, but not the one that was expected."""


class ErrorReply(TcpError):
    """``Error: <code>: ...`` of the confirm protocol; the reason is the code."""

    in_step = True


class UnexpectedData(TcpError):
    """Bytes arrived that nothing had asked for: a reply too many, or a server that pushes."""


class FramingBroken(TcpError):
    """The stream can't be cut into messages any further (a message beyond the bound, a broken length)."""


class Failure(TcpError):
    """What a ``with ... as reply`` block called a failure; the reason is the text it gave."""

    in_step = True

    def __init__(self, reason: str) -> None:
        super().__init__("", reason=reason)
