"""The ``client`` command: send messages and print the replies, or prompt for messages.

With a terminal there is line editing and a history, and what the server says unasked is shown at once,
above the line that is being typed. Without one (a pipe) there is no prompt.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from chat_gevent.client import ChatClient
from chat_gevent.command.interrupts import Interrupts
from chat_gevent.command.standard import StreamError, complain, say
from chat_gevent.confirm import CONFIRMED
from chat_gevent.errors import ConnectionLost, certificate_hint

REFUSED = "Error: "
"""How the reply to a message that was refused begins."""

LONGEST_TIMEOUT = 10**9
"""Seconds that the operating system's calls take for a time-out."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``chat-gevent client``."""
    parser.usage = "%(prog)s [OPTION ...] [MESSAGE ...]"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  chat-gevent client hello                   send it, print the reply\n"
        "  chat-gevent client --host chat.example     talk at a prompt; Ctrl-D leaves"
    )
    parser.add_argument("--host", default="127.0.0.1", help="server to connect to (default: %(default)s)")
    parser.add_argument("--port", type=int, default=12345, help="its port (default: %(default)s)")
    parser.add_argument("--unix", metavar="PATH", help="a UNIX socket instead; @NAME is an abstract name")
    parser.add_argument("--tls", action="store_true", help="speak TLS")
    parser.add_argument("--ca", metavar="FILE", help="trust these CAs, PEM, not the system's; with --tls")
    parser.add_argument(
        "--certificate", metavar="FILE", help="the client's own certificate and its key, PEM; with --tls"
    )
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="SECONDS", help="longest wait (default: %(default)s)"
    )
    parser.add_argument(
        "--any-reply",
        action="store_true",
        help="take any line for a reply, as a handler of your own may send it, and at the prompt wait for "
        "none; default: only what begins with 'Received: ' or 'Error: '",
    )
    parser.add_argument("message", nargs="*", metavar="MESSAGE", help="send these and exit; none: prompt")


def run(arguments: argparse.Namespace) -> int:
    """``chat-gevent client``: 0; 1 for a server that is lost or late, or a message refused; 2 bad usage."""
    if any("\n" in message for message in arguments.message):
        return _fail("a message can't contain a line feed: it would be two", 2)
    if not all(map(_is_text, arguments.message)):
        return _fail("a message must be UTF-8 text", 2)
    if not 0 < arguments.port < 65536:
        return _fail(f"--port {arguments.port}: must be 1 to 65535", 2)
    if not 0 < arguments.timeout <= LONGEST_TIMEOUT:
        return _fail(f"--timeout {arguments.timeout:g}: must be above 0 s, and {LONGEST_TIMEOUT} at most", 2)
    if (arguments.ca or arguments.certificate) and not arguments.tls:
        return _fail("--ca and --certificate need --tls", 2)
    where = arguments.unix or f"{arguments.host}:{arguments.port}"
    try:
        with ChatClient(_connect(arguments)) as client:
            talk = _Talk(client, where, arguments.any_reply)
            return talk.send_all(arguments.message) if arguments.message else talk.prompt()
    except ConnectionLost as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader of what is printed has left: the caller says so
        raise
    except TimeoutError:
        return _fail(f"no answer from {where} within {arguments.timeout:g} s")
    except OSError as error:
        hint = "; chat-gevent serve starts a server" if isinstance(error, ConnectionRefusedError) else ""
        return _fail(f"can't connect to {where}: {certificate_hint(error) or error.strerror or error}{hint}")
    except ValueError as error:  # not UTF-8, or no LF: what answers there is no server of this kind
        return _fail(f"{where} does not speak the confirm protocol: {error}")
    except KeyboardInterrupt:
        return complain("", 130)


def _connect(arguments: argparse.Namespace) -> socket.socket:
    """A socket that is connected as the options say. Raises OSError."""
    context = None
    if arguments.tls:
        for file in filter(None, (arguments.ca, arguments.certificate)):
            with open(file, "rb"):  # noqa: PTH123 - only for an error that names the file; OpenSSL's doesn't
                pass
        context = ssl.create_default_context(cafile=arguments.ca)
        if arguments.certificate:
            context.load_cert_chain(arguments.certificate)
    if arguments.unix:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(arguments.timeout)
        try:
            sock.connect(arguments.unix.replace("@", "\0", 1) if arguments.unix[0] == "@" else arguments.unix)
        except OSError:
            sock.close()
            raise
    else:
        sock = ChatClient.connect(arguments.host, arguments.port, arguments.timeout).socket
    if context is None:
        return sock
    try:
        return context.wrap_socket(sock, server_hostname=arguments.host)
    except BaseException:
        sock.close()
        raise


def _fail(why: str, status: int = 1) -> int:
    return complain(f"chat-gevent client: {why}", status)


def _is_text(message: str) -> bool:
    """Whether ``message`` can be sent: bytes that are no UTF-8 come from the shell as lone surrogates."""
    try:
        message.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(reply: str) -> str:
    """What is printed of a reply: at a terminal nothing that would command it."""
    if reply.isprintable() or not sys.stdout.isatty():
        return reply
    return "".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in reply)


class _Talk:
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
                    _fail("that was not UTF-8, and was not sent")
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
