"""The backplane of a serving process: from its settings to one that is attached, and whether it needs one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chat_gevent.command.handler import StartError
from chat_gevent.core import Core
from chat_gevent.service import HandlerService, as_service

if TYPE_CHECKING:
    from chat_gevent.backplane import Backplane
    from chat_gevent.command.config import ServeSettings


def open_backplane(settings: ServeSettings, core: Core) -> Backplane | None:
    """Attach the backplane that the settings name to ``core``, to be started; None where they name none.

    Raises StartError: its URL can't be used, or the extra ``redis`` is not installed.
    """
    if settings.backplane in ("", "none"):
        return None
    try:
        from chat_gevent.backplane import Backplane
    except ImportError as error:
        raise StartError(f"backplane needs {error.name}: pip install 'chat-gevent[redis]'") from None
    try:
        return Backplane(settings.backplane, core, settings.backplane_prefix)
    except ValueError as error:
        raise StartError(f"backplane: {error}", 2) from None


def needs_backplane(settings: ServeSettings, workers: int, service: Any) -> str | None:
    """Why ``workers`` processes can't serve ``service`` with these settings, in one line; None if they can.

    ``service`` is a handler, a service or its class. A handler answers each client by itself. A service may
    bring clients together, and those of different workers would never meet.
    """
    if workers <= 1 or settings.backplane or isinstance(as_service(service), HandlerService):
        return None
    return (
        f"{workers} workers can't share rooms without a backplane: give --backplane redis://HOST:PORT, "
        "or --backplane none for separate rooms"
    )
