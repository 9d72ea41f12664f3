"""The three standard streams of a command, whatever state they are in.

A stream may be closed (``>&-``), full (``>/dev/full``), or a pipe whose reader has left. None of these may
end in a traceback, be taken for a fault of the network, or have a socket take the descriptor of a stream.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Final

EXIT_READER_LEFT: Final = 128 + signal.SIGPIPE
"""What a shell shows of other commands whose reader has left."""


class StreamError(Exception):
    """A standard stream can't be read or written; the message says which, and why."""


def open_closed() -> None:
    """Open each standard descriptor that is closed on the null device, so that no other file takes it."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: those below are open by now
            os.set_inheritable(opened, True)
            mode = "r" if fd == 0 else "w"
            setattr(sys, name, open(fd, mode, closefd=False))  # noqa: SIM115 - a descriptor


def say(text: str) -> None:
    """Print a line to standard output at once. Raises StreamError, and BrokenPipeError."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except UnicodeEncodeError as error:
        raise StreamError(f"can't show the output in {error.encoding}") from None
    except OSError as error:
        _discard(1)
        raise StreamError(f"can't write the output: {error.strerror}") from None


def printable(text: str) -> str:
    """The text with all that would command a terminal, or begin a new line, shown in letters."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def complain(text: str, status: int) -> int:
    """Print to standard error, if that can be written; returns ``status``."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _discard(2)
    return status


def reader_left() -> int:
    """End the output because nobody reads it; returns the exit status."""
    _discard(1)
    return EXIT_READER_LEFT


def finish() -> int:
    """Write what is left; returns 0, or the exit status of an output that can't be written."""
    status = 0
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = reader_left()
    except OSError as error:
        _discard(1)
        status = complain(f"chat-gevent: can't write the output: {error.strerror}", 1)
    try:
        sys.stderr.flush()
    except OSError:
        _discard(2)
    return status


def _discard(fd: int) -> None:
    """Have all further output vanish: what is buffered would fail again when the interpreter ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, fd)
    os.close(null)
    with contextlib.suppress(OSError, ValueError):
        (sys.stdout if fd == 1 else sys.stderr).flush()
