"""The entry of ``chat-gevent`` and of ``python -m chat_gevent``.

It imports nothing that takes time before it has settled three things: an interrupt ends the program at once
and without a traceback, each standard stream is open, and what ``serve --monkey`` patches is patched. What
the commands are is in :mod:`chat_gevent.command.parser`.
"""

from __future__ import annotations

import os
import signal
import sys

EXIT_INTERRUPTED = 128 + signal.SIGINT


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status.

    130 after an interrupt, 141 where the reader of a pipe has left, 1 where the output can't be written.
    """
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what may come next in a line that is being typed
        from chat_gevent.command.completion import complete

        return complete()
    interrupts = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interrupts:  # else it is ignored, as for what a script starts in the background
        signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_INTERRUPTED))
    from chat_gevent.command import standard

    standard.open_closed()
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == ["serve"] and _wants_patching(given):
        from gevent import monkey

        monkey.patch_all()
    try:
        from chat_gevent.command import parser

        run = parser.parse(given)
        # A server hears signals by itself once it serves. Until then it imports much, and a KeyboardInterrupt
        # that is raised in the middle of an extension module's import is lost: it would never end.
        if interrupts and given[:1] != ["serve"]:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        status = run()
    except KeyboardInterrupt:
        status = EXIT_INTERRUPTED
    except BrokenPipeError:
        status = standard.reader_left()
    except standard.StreamError as error:
        status = standard.complain(f"chat-gevent: {error}", 1)
    except SystemExit as end:  # argparse's way, after it has said why
        raise SystemExit(standard.finish() or end.code) from None
    finally:
        if interrupts:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    return standard.finish() or status


def _wants_patching(arguments: list[str]) -> bool:
    """Whether ``serve`` is to patch the standard library, by the last option or else the environment.

    Of several workers each patches it for itself: the master needs it as it is.
    """
    if os.environ.get("CHAT_GEVENT_WORKERS", "1") != "1" or any(
        each.startswith("--workers") for each in arguments
    ):
        return False
    options = {"--monkey": True, "--no-monkey": False}
    for each in reversed(arguments):
        if each in options:
            return options[each]
    return os.environ.get("CHAT_GEVENT_MONKEY", "").lower() in ("true", "yes", "on", "1")
