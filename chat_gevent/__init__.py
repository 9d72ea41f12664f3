"""A gevent server that confirms each message of each client, and parks the clients that say nothing.

What is public is named here, and imported only when it is used: ``chat_gevent.framing`` and
``chat_gevent.confirm`` need no gevent.
"""
# PYTHON_ARGCOMPLETE_OK: shells may ask the command for completions; argcomplete looks for this line here.

from __future__ import annotations

TYPE_CHECKING = False  # true for a type checker; ``typing`` itself would take time in every start
if TYPE_CHECKING:
    from typing import Any

    from chat_gevent.broadcast import Group as Group
    from chat_gevent.client import ChatClient as ChatClient
    from chat_gevent.confirm import ErrorCode as ErrorCode
    from chat_gevent.confirm import Handler as Handler
    from chat_gevent.confirm import confirm as confirm_message
    from chat_gevent.core import Core as Core
    from chat_gevent.errors import ChatError as ChatError
    from chat_gevent.errors import ConnectionLost as ConnectionLost
    from chat_gevent.errors import MessageLost as MessageLost
    from chat_gevent.errors import Refuse as Refuse
    from chat_gevent.errors import SettingError as SettingError
    from chat_gevent.framing import Auto as Auto
    from chat_gevent.framing import Chunk as Chunk
    from chat_gevent.framing import Delimiter as Delimiter
    from chat_gevent.framing import Framing as Framing
    from chat_gevent.framing import LengthPrefix as LengthPrefix
    from chat_gevent.framing import Line as Line
    from chat_gevent.identity import Credentials as Credentials
    from chat_gevent.identity import Identity as Identity
    from chat_gevent.identity import ProxyIdentity as ProxyIdentity
    from chat_gevent.reconnect import Reconnect as Reconnect
    from chat_gevent.server import ChatServer as ChatServer
    from chat_gevent.service import Client as Client
    from chat_gevent.service import Service as Service
    from chat_gevent.settings import Settings as Settings

__version__ = "0.1.0"

_PUBLIC = {
    "Auto": ("chat_gevent.framing", "Auto"),
    "ChatClient": ("chat_gevent.client", "ChatClient"),
    "ChatError": ("chat_gevent.errors", "ChatError"),
    "ChatServer": ("chat_gevent.server", "ChatServer"),
    "Chunk": ("chat_gevent.framing", "Chunk"),
    "Client": ("chat_gevent.service", "Client"),
    "ConnectionLost": ("chat_gevent.errors", "ConnectionLost"),
    "Core": ("chat_gevent.core", "Core"),
    "Credentials": ("chat_gevent.identity", "Credentials"),
    "Delimiter": ("chat_gevent.framing", "Delimiter"),
    "ErrorCode": ("chat_gevent.confirm", "ErrorCode"),
    "Framing": ("chat_gevent.framing", "Framing"),
    "Group": ("chat_gevent.broadcast", "Group"),
    "Handler": ("chat_gevent.confirm", "Handler"),
    "Identity": ("chat_gevent.identity", "Identity"),
    "LengthPrefix": ("chat_gevent.framing", "LengthPrefix"),
    "Line": ("chat_gevent.framing", "Line"),
    "MessageLost": ("chat_gevent.errors", "MessageLost"),
    "ProxyIdentity": ("chat_gevent.identity", "ProxyIdentity"),
    "Reconnect": ("chat_gevent.reconnect", "Reconnect"),
    "Refuse": ("chat_gevent.errors", "Refuse"),
    "Service": ("chat_gevent.service", "Service"),
    "SettingError": ("chat_gevent.errors", "SettingError"),
    "Settings": ("chat_gevent.settings", "Settings"),
    "confirm_message": ("chat_gevent.confirm", "confirm"),
}

__all__ = [
    "Auto",
    "ChatClient",
    "ChatError",
    "ChatServer",
    "Chunk",
    "Client",
    "ConnectionLost",
    "Core",
    "Credentials",
    "Delimiter",
    "ErrorCode",
    "Framing",
    "Group",
    "Handler",
    "Identity",
    "LengthPrefix",
    "Line",
    "MessageLost",
    "ProxyIdentity",
    "Reconnect",
    "Refuse",
    "Service",
    "SettingError",
    "Settings",
    "__version__",
    "confirm_message",
]


def __getattr__(name: str) -> Any:
    """Import a public name on its first use. Raises AttributeError."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _PUBLIC[name]
    found = getattr(import_module(module), attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
