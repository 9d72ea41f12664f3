"""All exceptions that the library raises, in one tree.

::

    ChatError                     the base class: nothing else is derived from it
    ├── SettingError              a setting has a value that it can't have (also a ValueError)
    ├── ListenError               an address can't be listened on
    ├── CertificateError          a certificate, key or CA can't be used
    ├── Refuse                    raised by a service's ``connected``: turn this client away
    ├── HeaderError               what came is no PROXY protocol header (also a ValueError)
    ├── ConnectionLost            the other end of a ChatClient is gone (also a ConnectionError)
    └── ConfigError, StartError   the ``chat-gevent`` command can't start; see ``chat_gevent.command``

    Closed, WriteTimeout          end the greenlet of a connection; they reach no handler's caller

``chat_gevent.framing.MessageTooLong`` is a ValueError that stands with the framings, so that they need
nothing else.
"""

from __future__ import annotations

from typing import Any


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


class ConnectionLost(ChatError, ConnectionError):
    """The server ended the connection, or the network did."""


class Closed(Exception):
    """The connection ended while it was being served; nothing is left to do for it."""


class WriteTimeout(Exception):
    """The client took nothing of what was sent to it for ``write_timeout``."""
