"""All exceptions that the library raises, in one tree.

::

    ChatError                     the base class: nothing else is derived from it
    ├── SettingError              a setting has a value that it can't have (also a ValueError)
    ├── ListenError               an address can't be listened on
    ├── CertificateError          a certificate, key or CA can't be used
    ├── Refuse                    raised by a service's ``connected``: turn this client away
    ├── HeaderError               what came is no PROXY protocol header (also a ValueError)
    ├── FramingError              a stream can't be cut any further (also a ValueError)
    │   └── MessageTooLong        a message exceeds its bound
    │       └── BadCount          a count that includes itself is below its own size
    ├── Unsendable                a message can't be sent in a client's framing (also a ValueError)
    ├── ConnectionLost            the other end of a ChatClient is gone (also a ConnectionError)
    │   └── MessageLost           ... and with it messages that were sent and not confirmed
    └── ConfigError, StartError   the ``chat-gevent`` command can't start; see ``chat_gevent.command``

    Closed, WriteTimeout          end the greenlet of a connection; they reach no handler's caller

``chat_gevent.framing`` offers those of framings too.
"""

from __future__ import annotations

from typing import Any, Final


class ChatError(Exception):
    """Base class of what the library raises."""


class SettingError(ChatError, ValueError):
    """A setting has a value it can't have; the message names the setting, the value and what is allowed."""

    def __init__(self, name: str, value: Any, problem: str) -> None:
        super().__init__(f"{name} = {value!r}: {problem}")
        self.name, self.value, self.problem = name, value, problem


class ListenError(ChatError):
    """An address can't be listened on; the message names it and says why."""


class CertificateError(ChatError):
    """A certificate, key or CA can't be used; the message names the file and says why."""


class Refuse(ChatError):
    """Raise it in :meth:`Service.connected` to turn a client away; its text is the explanation."""


class HeaderError(ChatError, ValueError):
    """What came is no PROXY protocol header."""


class FramingError(ChatError, ValueError):
    """The stream can't be cut any further; ``complete`` holds the messages that were whole before."""

    def __init__(self, problem: str, complete: list[bytes]) -> None:
        super().__init__(problem)
        self.complete = complete


class MessageTooLong(FramingError):
    """A message exceeds the bound; the stream can't be read on, because its next start is unknown.

    ``complete`` holds the messages that were whole before it: they are still to be answered.
    """

    def __init__(self, limit: int, complete: list[bytes]) -> None:
        super().__init__(f"a message is limited to {limit} bytes", complete)
        self.limit = limit


class BadCount(MessageTooLong):
    """A count that includes itself is below its own size; to a server this is the same as one too large."""

    def __init__(self, limit: int, complete: list[bytes]) -> None:
        super().__init__(limit, complete)
        self.args = ("a count that includes itself is below its own size",)


class Unsendable(ChatError, ValueError):
    """A message can't be sent as one in this framing; the message says why."""


class ConnectionLost(ChatError, ConnectionError):
    """The server ended the connection, or the network did."""


class MessageLost(ConnectionLost):
    """The connection ended before these ``messages`` were confirmed; they have not been sent again.

    ``taken`` is whether the server may have handled them. It is False where the server's last word came in
    the place of the replies: by the protocol all that a server handles is answered before that.
    """

    def __init__(self, messages: tuple[str, ...], taken: bool, why: str) -> None:
        shown = ", ".join(each if len(each) <= 60 else each[:57] + "..." for each in map(repr, messages[:3]))
        more = f" and {len(messages) - 3} more" if len(messages) > 3 else ""
        known = "may have been handled" if taken else "not handled by the server"
        super().__init__(f"not confirmed: {shown}{more} ({known}): {why}")
        self.messages, self.taken = messages, taken


class Closed(Exception):
    """The connection ended while it was being served; nothing is left to do for it."""


class WriteTimeout(Exception):
    """The client took nothing of what was sent to it for ``write_timeout``."""


_STRICT_CODES: Final = range(79, 95)
"""OpenSSL's ``X509_V_ERR_`` numbers of what is found only with ``X509_V_FLAG_X509_STRICT``: x509_vfy.h."""


def certificate_hint(error: Exception) -> str:
    """What to do about a certificate that only Python 3.13 and later refuse; empty for any other error.

    Since 3.13 ``ssl.create_default_context`` checks what older ones let pass: that a CA says it may sign.
    """
    if getattr(error, "verify_code", 0) not in _STRICT_CODES:
        return ""
    found = getattr(error, "verify_message", "")
    return (
        f"{found}: Python 3.13 and later refuse that; make the CA again with "
        "-addext keyUsage=critical,keyCertSign,cRLSign, and sign the certificate with it again"
    )
