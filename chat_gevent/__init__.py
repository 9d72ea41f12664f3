"""A gevent server that confirms each message of each client, and parks the clients that say nothing.

What is public is named here, and imported only when it is used: ``chat_gevent.framing`` and
``chat_gevent.confirm`` need no gevent.
"""

from __future__ import annotations

TYPE_CHECKING = False  # true for a type checker; ``typing`` itself would take time in every start
if TYPE_CHECKING:
    from typing import Any

    from chat_gevent.client import ChatClient as ChatClient
    from chat_gevent.client import ConnectionLost as ConnectionLost
    from chat_gevent.confirm import Client as Peer
    from chat_gevent.confirm import ErrorCode as ErrorCode
    from chat_gevent.confirm import Handler as Handler
    from chat_gevent.confirm import confirm as confirm_message
    from chat_gevent.framing import Framing as Framing
    from chat_gevent.parking import ParkingLot as ParkingLot
    from chat_gevent.server import ChatServer as ChatServer
    from chat_gevent.settings import SettingError as SettingError
    from chat_gevent.settings import Settings as Settings

__version__ = "0.1.0"

_PUBLIC = {
    "ChatClient": ("chat_gevent.client", "ChatClient"),
    "ChatServer": ("chat_gevent.server", "ChatServer"),
    "ConnectionLost": ("chat_gevent.client", "ConnectionLost"),
    "ErrorCode": ("chat_gevent.confirm", "ErrorCode"),
    "Framing": ("chat_gevent.framing", "Framing"),
    "Handler": ("chat_gevent.confirm", "Handler"),
    "ParkingLot": ("chat_gevent.parking", "ParkingLot"),
    "Peer": ("chat_gevent.confirm", "Client"),
    "SettingError": ("chat_gevent.settings", "SettingError"),
    "Settings": ("chat_gevent.settings", "Settings"),
    "confirm_message": ("chat_gevent.confirm", "confirm"),
}

__all__ = [
    "ChatClient",
    "ChatServer",
    "ConnectionLost",
    "ErrorCode",
    "Framing",
    "Handler",
    "ParkingLot",
    "Peer",
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
