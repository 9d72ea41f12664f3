"""A client for one connection, and the ``chat-gevent client`` command.

:class:`Client` sends a message and waits for its reply, over a socket that it is given or makes. It
uses ``line`` framing: a message of its own never contains LF. It blocks as its socket does, so with
``gevent.socket`` it is a gevent client.

The command sends its arguments and prints each reply, or prompts for messages: with a terminal there
is line editing and a history, and without one (a pipe) there is no prompt.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import socket
import sys
from collections import deque
from pathlib import Path
from typing import Any

from chat_gevent.confirm import is_exit
from chat_gevent.framing import LineDecoder

LONGEST_TIMEOUT = 10**9
"""Seconds that the operating system's calls take for a time-out."""

READ_BYTES = 65_536
REPLY_BYTES = 2**20
"""Longest reply that is taken for one; a server that sends more without LF does not speak this protocol."""


class ConnectionLost(ConnectionError):
    """The server ended the connection, or the network did; ``reply`` may hold its last words."""


class Client:
    """One connection to a server that confirms messages.

    :param sock: a connected stream socket; the client owns it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._decoder = LineDecoder(REPLY_BYTES)
        self._replies: deque[str] = deque()

    @classmethod
    def connect(cls, host: str = "127.0.0.1", port: int = 12345, timeout: float | None = 10.0) -> Client:
        """Connect; ``timeout`` seconds hold for the connect and for each wait after it. Raises OSError."""
        sock = socket.create_connection((host, port), timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(sock)

    def send(self, message: str) -> None:
        """Send one message. Raises ValueError: it contains LF; ConnectionLost; TimeoutError."""
        if "\n" in message:
            raise ValueError("a message can't contain a line feed: it would be two")
        try:
            self.socket.sendall(message.encode() + b"\n")
        except ConnectionError as error:
            raise ConnectionLost(f"the server is gone: {error.strerror}") from error

    def receive(self) -> str:
        """Wait for the next reply. Raises ConnectionLost, TimeoutError, ValueError (no UTF-8, or no LF)."""
        while not self._replies:
            try:
                data = self.socket.recv(READ_BYTES)
            except ConnectionError as error:
                raise ConnectionLost(f"the server is gone: {error.strerror}") from error
            if not data:
                last = self._decoder.finish()
                if not last:
                    raise ConnectionLost("the server closed the connection")
                self._replies.append(last[0].decode())
            self._replies.extend(reply.decode() for reply in self._decoder.feed(data))
        return self._replies.popleft()

    def confirm(self, message: str) -> str:
        """Send one message and wait for the reply to it.

        Raises what :meth:`send` and :meth:`receive` do. A time-out closes the connection: the reply may come
        yet, and would be taken for the next message's.
        """
        try:
            self.send(message)
            return self.receive()
        except TimeoutError:
            self.close()
            raise

    def pending(self) -> bool:
        """Whether the server has said something (or closed) unasked."""
        ready = select.poll()  # which, unlike select, takes descriptors above 1,023
        ready.register(self.socket, select.POLLIN)
        return bool(self._replies) or bool(ready.poll(0))

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``chat-gevent client``."""
    parser.add_argument("--host", default="127.0.0.1", help="server to connect to (default: %(default)s)")
    parser.add_argument("--port", type=int, default=12345, help="its port (default: %(default)s)")
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="SECONDS", help="longest wait (default: %(default)s)"
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
    where = f"{arguments.host}:{arguments.port}"
    try:
        with Client.connect(arguments.host, arguments.port, arguments.timeout) as client:
            return _send_all(client, arguments.message) if arguments.message else _prompt(client, where)
    except ConnectionLost as error:
        return _fail(str(error))
    except BrokenPipeError:  # whoever reads what is printed has left; that is the caller's to tell
        raise
    except TimeoutError:
        return _fail(f"no answer from {where} within {arguments.timeout:g} s")
    except OSError as error:
        return _fail(f"can't connect to {where}: {error.strerror or error}")
    except UnicodeEncodeError as error:
        return _fail(f"the reply can't be shown in {error.encoding}")
    except ValueError as error:  # not UTF-8, or no LF: what answers there is no server of this kind
        return _fail(f"{where} does not speak the confirm protocol: {error}")
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130


def _fail(why: str, status: int = 1) -> int:
    print(f"chat-gevent client: {why}", file=sys.stderr)
    return status


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


def _send_all(client: Client, messages: list[str]) -> int:
    status = 0
    for message in messages:
        if is_exit(message):
            client.send(message)
            break
        reply = client.confirm(message)
        print(_shown(reply), flush=True)
        status |= reply.startswith("Error: ")
    return status


def _prompt(client: Client, where: str) -> int:
    terminal = sys.stdin.isatty()
    prompt = "message: " if terminal else ""
    with _history() if terminal else contextlib.nullcontext():
        if terminal:
            print(f"connected to {where}; /exit or Ctrl-D leaves")
        while True:
            try:
                message = input(prompt)
                message.encode()
            except EOFError:
                if terminal:
                    print()
                return 0
            except UnicodeError:
                print("chat-gevent client: that was not UTF-8, and was not sent", file=sys.stderr)
                continue
            while client.pending():  # said while we waited for the person: why it leaves, usually
                print(_shown(client.receive()), flush=True)
            if is_exit(message):
                client.send(message)
                return 0
            reply = _shown(client.confirm(message))
            print(f"\n\t{reply}\n" if terminal else reply, flush=True)


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
