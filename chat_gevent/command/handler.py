"""Load the handler or service that ``--handler package.module:name`` names.

Its module runs when it is imported. A module that starts a server of its own then would never return, so the
usual ways to do that raise here, and an import that takes long for another reason says so.
"""

from __future__ import annotations

import contextlib
import importlib
import socketserver
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

from gevent.baseserver import BaseServer
from gevent.monkey import get_original

from chat_gevent.command.standard import complain
from chat_gevent.errors import ChatError
from chat_gevent.service import Answers, Service

SLOW_SECONDS: Final = 5.0
"""How long an import may take before standard error says that it has not returned."""


class StartError(ChatError):
    """The server can't start; the message says why, and :attr:`status` is the exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def load_handler(name: str) -> Answers:
    """The function or service that ``package.module:name`` names, looked for in the current directory too.

    A class of services is called, without arguments, and what it makes is returned. Raises StartError, and
    whatever the module or the class itself raises when it is run.
    """
    module_name, _, attribute = name.partition(":")
    with contextlib.suppress(FileNotFoundError):  # the current directory may have been removed
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.insert(0, here)
    try:
        with _says_when_slow(module_name), _refuses_to_serve(name):
            found = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise StartError(f"handler {name}: {error}", 2) from error
    if isinstance(found, type) and issubclass(found, Service):
        return found()
    if not isinstance(found, Service) and not callable(found):
        raise StartError(f"handler {name}: neither a function nor a service", 2)
    return found  # what it answers with shows when it is called


@contextlib.contextmanager
def _refuses_to_serve(name: str) -> Iterator[None]:
    """Have ``serve_forever`` raise StartError meanwhile."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        remedy = "put what starts it under: if __name__ == '__main__':"
        raise StartError(f"handler {name}: importing its module runs a server; {remedy}", 2)

    kinds: tuple[Any, ...] = (BaseServer, socketserver.BaseServer)
    kept = [kind.serve_forever for kind in kinds]
    for kind in kinds:
        kind.serve_forever = refuse
    try:
        yield
    finally:
        for kind, original in zip(kinds, kept, strict=True):
            kind.serve_forever = original


@contextlib.contextmanager
def _says_when_slow(module_name: str) -> Iterator[None]:
    """Say on standard error, from a thread, that the import has not returned after a while."""
    returned = get_original("_thread", "allocate_lock")()
    returned.acquire()

    def watch() -> None:
        if not returned.acquire(timeout=SLOW_SECONDS):
            complain(
                f"chat-gevent serve: importing {module_name} has not returned for {SLOW_SECONDS:g} s; "
                "nobody is served before. Does it run what belongs under: if __name__ == '__main__': ?",
                0,
            )

    get_original("_thread", "start_new_thread")(watch, ())
    try:
        yield
    finally:
        returned.release()
