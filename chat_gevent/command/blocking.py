"""Name in the log what holds the event loop: a handler that computes, or blocks in a call unknown to gevent.

Nobody else is served meanwhile, so a client only sees that the server is slow. A thread of the interpreter's
own looks whether a timer of the loop still fires; when it has not for :attr:`HeldLoop.seconds` the thread
logs, in one record, where the loop's thread is at that moment. gevent's own monitor
(``start_periodic_monitoring_thread``) does much the same, but it notes each switch of greenlets, which every
message of a handler would pay for, and it sees a block of less than twice its period by chance only.
"""

from __future__ import annotations

import logging
import sys
import traceback
from types import TracebackType
from typing import Any, Final

from gevent import get_hub
from gevent.monkey import get_original

CHECKS: Final = 8
"""How often the thread looks within the time that the loop may be held, which is how exact it is."""

_allocate_lock: Any = get_original("_thread", "allocate_lock")
_get_ident: Any = get_original("_thread", "get_ident")
_start_new_thread: Any = get_original("_thread", "start_new_thread")

log = logging.getLogger("chat_gevent")


class HeldLoop:
    """Watches the loop of the thread that enters it as a context manager.

    :param seconds: how long the loop may be held; 0: it is not watched.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._beats = 0
        self._ended = _allocate_lock()

    def __enter__(self) -> HeldLoop:
        if self.seconds:
            self._ended.acquire()
            period = self.seconds / CHECKS
            self._timer: Any = get_hub().loop.timer(period, period, ref=False)
            self._timer.start(self._beat)
            _start_new_thread(self._watch, (_get_ident(), period))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.seconds:
            self._timer.close()
            self._ended.release()

    def _beat(self) -> None:
        self._beats += 1

    def _watch(self, thread: int, period: float) -> None:
        """Look at the beats until the end. In the thread."""
        seen, missed = -1, 0
        while not self._ended.acquire(timeout=period):
            if self._beats != seen:
                seen, missed = self._beats, 0
                continue
            missed += 1
            if missed == CHECKS:  # once for each time that it is held
                frame = sys._current_frames().get(thread)
                stack = "".join(traceback.format_stack(frame)).rstrip()
                _log("the event loop has been held for %g s; nobody is served meanwhile", self.seconds, stack)


def _log(message: str, seconds: float, stack: str) -> None:
    """Log an error with the stack of another thread, which ``Logger.error`` can't."""
    if log.isEnabledFor(logging.ERROR):
        record = log.makeRecord(log.name, logging.ERROR, __file__, 0, message, (seconds,), None, sinfo=stack)
        log.handle(record)
