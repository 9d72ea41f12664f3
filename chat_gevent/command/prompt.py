"""The ``client`` command: send messages and print the replies, or prompt for messages.

Here are its options, and how it connects; :mod:`chat_gevent.command.talk` does the talking.
"""

from __future__ import annotations

import argparse
import socket
import ssl
from functools import partial

from chat_gevent import framing_names
from chat_gevent.client import ChatClient, encoded
from chat_gevent.command.standard import complain
from chat_gevent.command.talk import Talk, fail, note
from chat_gevent.errors import ConnectionLost, certificate_hint
from chat_gevent.reconnect import Reconnect

RECONNECT_SECONDS = 300
"""How long ``--reconnect`` tries: a machine that starts anew is back by then."""

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
        "--framing",
        default="line",
        metavar="FRAMING",
        help=f"how messages are told apart, as the server has it: {framing_names.FORMS}; auto takes lines "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--reconnect",
        action="store_true",
        help=f"come back when the server is lost, for {RECONNECT_SECONDS} s; what was not confirmed is "
        "named, and not sent again",
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
    if not all(map(_is_text, arguments.message)):
        return fail("a message must be UTF-8 text", 2)
    try:
        framing = framing_names.parse(arguments.framing)
    except ValueError as error:
        return fail(f"--framing {arguments.framing}: {error}", 2)
    try:
        for message in arguments.message:
            encoded(message, framing)
    except ValueError as error:
        return fail(str(error), 2)
    if not 0 < arguments.port < 65536:
        return fail(f"--port {arguments.port}: must be 1 to 65535", 2)
    if not 0 < arguments.timeout <= LONGEST_TIMEOUT:
        return fail(f"--timeout {arguments.timeout:g}: must be above 0 s, and {LONGEST_TIMEOUT} at most", 2)
    if (arguments.ca or arguments.certificate) and not arguments.tls:
        return fail("--ca and --certificate need --tls", 2)
    where = arguments.unix or f"{arguments.host}:{arguments.port}"
    dial = partial(_connect, arguments)
    reconnect = None
    if arguments.reconnect:
        back = f"connected to {where} again"
        reconnect = Reconnect(within=RECONNECT_SECONDS, on_reconnect=lambda _: note(back))
    try:
        with ChatClient(dial(), framing=framing, reconnect=reconnect, dial=dial) as client:
            talk = Talk(client, where, arguments.any_reply, reconnect)
            return talk.send_all(arguments.message) if arguments.message else talk.prompt()
    except ConnectionLost as error:
        return fail(str(error))
    except BrokenPipeError:  # the reader of what is printed has left: the caller says so
        raise
    except TimeoutError:
        return fail(f"no answer from {where} within {arguments.timeout:g} s")
    except OSError as error:
        hint = "; chat-gevent serve starts a server" if isinstance(error, ConnectionRefusedError) else ""
        return fail(f"can't connect to {where}: {certificate_hint(error) or error.strerror or error}{hint}")
    except ValueError as error:  # not UTF-8, or no LF: what answers there is no server of this kind
        return fail(f"{where} does not speak the confirm protocol: {error}")
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


def _is_text(message: str) -> bool:
    """Whether ``message`` can be sent: bytes that are no UTF-8 come from the shell as lone surrogates."""
    try:
        message.encode()
    except UnicodeEncodeError:
        return False
    return True
