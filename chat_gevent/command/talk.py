"""The talk of ``chat-gevent client`` with a server: messages out, replies and what is said unasked in.

At a terminal there is line editing and a history, and what the server says unasked is shown at once, above
the line that is being typed. Without one (a pipe) there is no prompt.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from chat_gevent.client import ChatClient
from chat_gevent.command.interrupts import Interrupts
from chat_gevent.command.standard import StreamError, complain, say
from chat_gevent.confirm import CONFIRMED
from chat_gevent.errors import ConnectionLost

REFUSED = "Error: "
"""How the reply to a message that was refused begins."""


def _shown(reply: str) -> str:
    """What is printed of a reply: at a terminal nothing that would command it."""
    if reply.isprintable() or not sys.stdout.isatty():
        return reply
    return "".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in reply)


class Talk:
    """Sends messages over one connection and prints what comes back."""

    def __init__(self, client: ChatClient, where: str, any_reply: bool) -> None:
        self._client = client
        self._where = where
        self._any_reply = any_reply

    def send_all(self, messages: list[str]) -> int:
        """Send each and print its reply; returns 1 if one of them was refused."""
        status = 0
        for message in messages:
            if _is_exit(message):
                self._client.send(message)
                break
            reply = self._checked(self._client.confirm(message))
            say(_shown(reply))
            status |= reply.startswith(REFUSED)
        return status

    def prompt(self) -> int:
        """Read messages from standard input until it ends, or one of them is ``/exit``."""
        terminal = sys.stdin.isatty()
        edits = terminal and sys.stdout.isatty()
        with contextlib.ExitStack() as stack:
            typing: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
            if terminal:
                stack.enter_context(_history())
            if edits:
                typing = stack.enter_context(
                    Interrupts(self._client.socket.fileno(), self._show_pushed)
                ).allowed
            if terminal:
                say(f"connected to {self._where}; /exit or Ctrl-D leaves")
            while True:
                try:
                    with typing():
                        message = input("message: " if terminal else "")
                    message.encode()
                except EOFError:
                    if terminal:
                        say("")
                    return 0
                except UnicodeError:
                    fail("that was not UTF-8, and was not sent")
                    continue
                except ConnectionLost:  # while it was typed
                    raise
                except OSError as error:
                    raise StreamError(f"can't read the messages: {error.strerror}") from None
                self._show_pushed()
                if _is_exit(message):
                    self._client.send(message)
                    return 0
                if edits and self._any_reply:
                    self._client.send(message)
                    continue
                reply = _shown(self._checked(self._client.confirm(message)))
                say(f"\n\t{reply}\n" if terminal else reply)

    def _show_pushed(self) -> None:
        """Show what was said unasked. Raises ConnectionLost, ValueError."""
        try:
            while self._client.pending():
                say(_shown(self._checked(self._client.receive())))
        except UnicodeError as error:  # the line that is typed may have another
            raise ValueError(str(error)) from None

    def _checked(self, reply: str) -> str:
        """The reply, if it is one of this protocol. Raises ValueError."""
        if not self._any_reply and not reply.startswith((CONFIRMED, REFUSED)):
            raise ValueError(f"it answered {reply[:60]!a} (--any-reply takes that for a reply)")
        return reply


@contextlib.contextmanager
def _history() -> Any:
    """Line editing for ``input``, with the messages of earlier runs in its history."""
    import readline

    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    file = state / "chat-gevent" / "history"
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    try:
        yield
    finally:
        readline.set_history_length(1000)
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(file)


def _is_exit(message: str) -> bool:
    """Whether ``message`` asks the server to end the connection."""
    return message.strip().lower() == "/exit"


def fail(why: str, status: int = 1) -> int:
    """Complain; returns ``status``."""
    return complain(f"chat-gevent client: {why}", status)
