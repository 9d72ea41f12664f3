"""The entry of ``chat-gevent`` and of ``python -m chat_gevent``.

It imports nothing that takes time before it has settled two things: an interrupt ends the program at once and
without a traceback, and each standard stream is open. What the commands are is in
:mod:`chat_gevent.command.parser`.
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
    interrupts = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interrupts:  # else it is ignored, as for what a script starts in the background
        signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_INTERRUPTED))
    from chat_gevent.command import standard

    standard.open_closed()
    try:
        from chat_gevent.command import parser

        run = parser.parse(sys.argv[1:] if argv is None else argv)
        if interrupts:
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
