"""What the process that serves does when it is sent a signal.

=========  =====================================================================================
SIGTERM    drain; the second of these signals ends it at once
SIGINT     the same
SIGQUIT    the same
SIGHUP     read certificates again; drain, if it came because the controlling terminal is gone
SIGUSR1    a log line: there is no log file that could be opened again
SIGUSR2    a log line
=========  =====================================================================================
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from typing import Final

import gevent

STOP: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""What makes the server stop."""

NO_LOG_FILE: Final = "SIGUSR1: there is no log file to open again; the log is standard error"
NO_UPGRADE: Final = "SIGUSR2: does nothing here; to upgrade, start another server and stop this one"

log = logging.getLogger("chat_gevent")


def has_terminal() -> bool:
    """Whether this process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def on_hang_up(stop: Callable[[], object], reload: Callable[[], object]) -> Callable[[], None]:
    """What SIGHUP is to call; to be made before another handler of it is installed."""
    # Ignored from the start on, as by nohup, it means: outlive the terminal.
    ends_with_terminal = has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

    def hang_up() -> None:
        if ends_with_terminal and not has_terminal():
            log.info("SIGHUP: the controlling terminal is gone")
            stop()
        else:
            reload()

    return hang_up


def install(stop: Callable[[], object], reload: Callable[[], object]) -> None:
    """Call ``stop`` and ``reload`` in greenlets of their own when signals ask for it."""
    hang_up = on_hang_up(stop, reload)
    for number in STOP:
        gevent.signal_handler(number, stop)
    gevent.signal_handler(signal.SIGHUP, hang_up)
    gevent.signal_handler(signal.SIGUSR1, log.info, NO_LOG_FILE)
    gevent.signal_handler(signal.SIGUSR2, log.info, NO_UPGRADE)
