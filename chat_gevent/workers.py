"""The worker class that people name to gunicorn.

::

    gunicorn -k chat_gevent.workers.ChatWorker -w 4 -b 0.0.0.0:12345 chat_gevent.confirm:confirm

The class is a part of the ``chat-gevent`` command's package, and is loaded by name when it is asked for: the
library does not import the command. Needs the extra ``workers``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["ChatWorker"]  # noqa: F822 - given by __getattr__


def __getattr__(name: str) -> Any:
    """Load :class:`ChatWorker` on its first use. Raises AttributeError, and ImportError without gunicorn."""
    if name != "ChatWorker":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("chat_gevent.command.worker").ChatWorker
