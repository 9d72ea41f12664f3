"""The talk of ``chat-gevent client`` with a server: messages out, replies and what is said unasked in.

At a terminal there is line editing and a history, and what the server says unasked is shown at once, above
the line that is being typed. Without one (a pipe) there is no prompt.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from chat_gevent.client import ChatClient, encoded
from chat_gevent.command.interrupts import Interrupts
from chat_gevent.command.standard import StreamError, complain, say
from chat_gevent.confirm import CONFIRMED, ERROR
from chat_gevent.errors import ConnectionLost, MessageLost, Unsendable
from chat_gevent.reconnect import Reconnect


def _shown(reply: str) -> str:
    """What is printed of a reply: at a terminal nothing that would command it."""
    if reply.isprintable() or not sys.stdout.isatty():
        return reply
    return "".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in reply)


class Talk:
    """Sends messages over one connection and prints what comes back.

    :param where: the server, for people.
    :param reconnect: what the client has; None where it does not come back.
    """

    def __init__(
        self, client: ChatClient, where: str, any_reply: bool, reconnect: Reconnect | None = None
    ) -> None:
        self._client = client
        self._where = where
        self._any_reply = any_reply
        self._reconnect = reconnect
        self._gone_since = 0.0  # since when it is known that the server is lost; 0: it is not
        self._status = 0

    def send_all(self, messages: list[str]) -> int:
        """Send each and print its reply; returns 1 if one of them was refused."""
        for message in messages:
            if _is_exit(message):
                self._send(message)
                break
            reply = self._confirm(message)
            if reply is not None:
                say(_shown(reply))
                self._status |= reply.startswith(ERROR)
        return self._status

    def prompt(self) -> int:
        """Read messages from standard input until it ends, or one of them is ``/exit``.

        Returns 1 if one of them was lost.
        """
        terminal = sys.stdin.isatty()
        edits = terminal and sys.stdout.isatty()
        with contextlib.ExitStack() as stack:
            typing: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
            if terminal:
                stack.enter_context(_history())
            if edits:
                typing = stack.enter_context(Interrupts(self._wait, self._show_pushed)).allowed
            if terminal:
                say(f"connected to {self._where}; /exit or Ctrl-D leaves")
            while True:
                try:
                    with typing():
                        message = input("message: " if terminal else "")
                    encoded(message, self._client.framing)
                except EOFError:
                    if terminal:
                        say("")
                    return self._status
                except UnicodeError:
                    fail("that was not UTF-8, and was not sent")
                    continue
                except Unsendable as error:
                    fail(f"{error}; that was not sent")
                    continue
                except ConnectionLost:  # while it was typed
                    raise
                except OSError as error:
                    raise StreamError(f"can't read the messages: {error.strerror}") from None
                self._show_pushed()
                if _is_exit(message):
                    self._send(message)
                    return self._status
                if edits and self._any_reply:
                    self._send(message)
                    continue
                reply = self._confirm(message)
                if reply is not None:
                    say(f"\n\t{_shown(reply)}\n" if terminal else _shown(reply))

    def _confirm(self, message: str) -> str | None:
        """The reply; None where it was lost, which is told."""
        try:
            return self._checked(self._client.confirm(message))
        except MessageLost as lost:
            self._tell_lost(str(lost))
        except TimeoutError:
            if self._reconnect is None:
                raise
            self._tell_lost(f"not confirmed: {message!r} (may have been handled): no answer in time")
        return None

    def _send(self, message: str) -> None:
        """Send a message whose reply is not waited for."""
        try:
            if not (_is_exit(message) and self._client.lost):
                self._client.send(message)
        except MessageLost as lost:
            self._tell_lost(str(lost))
            if message not in lost.messages:
                self._send(message)

    def _tell_lost(self, why: str) -> None:
        self._status = 1
        fail(why)

    # -- while a line is typed -----------------------------------------------------------------------

    def _wait(self, seconds: float) -> bool:
        """Wait until there is something to show or to do; in a thread of its own."""
        if self._client.lost:
            left = self._client.next_try - time.monotonic()
            time.sleep(max(0.0, min(left, seconds)))
            return left <= seconds
        try:
            poller = select.poll()
            poller.register(self._client.socket, select.POLLIN)
            return bool(poller.poll(seconds * 1000))
        except ValueError:  # it was closed just now
            time.sleep(seconds)
            return True

    def _show_pushed(self) -> None:
        """Show what was said unasked; come back if the server is lost. Raises ConnectionLost, ValueError."""
        try:
            while self._client.pending():
                say(_shown(self._checked(self._client.receive())))
        except UnicodeError as error:  # the line that is typed may have another
            raise ValueError(str(error)) from None
        except MessageLost as lost:
            self._tell_lost(str(lost))
        if not self._client.lost:
            self._gone_since = 0.0
            return
        now = time.monotonic()
        if not self._gone_since:
            self._gone_since = now
            note(f"{self._where} is gone; connecting again")
        elif self._reconnect is not None and now - self._gone_since > self._reconnect.within:
            raise ConnectionLost(f"not connected again within {self._reconnect.within:g} s")
        if now >= self._client.next_try and self._client.try_again():
            self._gone_since = 0.0

    def _checked(self, reply: str) -> str:
        """The reply, if it is one of this protocol. Raises ValueError."""
        if not self._any_reply and not reply.startswith((CONFIRMED, ERROR)):
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


def note(text: str) -> None:
    """Tell the person at the terminal something; a script finds it in standard error."""
    if sys.stdout.isatty():
        say(f"* {text}")
    else:
        complain(f"chat-gevent client: {text}", 0)


def fail(why: str, status: int = 1) -> int:
    """Complain; returns ``status``."""
    return complain(f"chat-gevent client: {why}", status)
