"""Waking greenlets at a moment, to within tens of microseconds: one timerfd for all paced users of a process.

libev hands ``epoll_wait`` whole milliseconds, so ``gevent.sleep`` wakes half a millisecond late on
average, and a response time that counts from the intended start would contain that. A timerfd
(timerfd_create(2)) becomes readable at a moment given in nanoseconds on ``CLOCK_MONOTONIC``, which is the
clock of ``time.perf_counter`` on Linux. Where there is none, a timer of the loop does.

When a test stops, nobody is woken any more whose moment comes after that (``last_call``): a user would
send, and be killed in the middle of it.
"""

from __future__ import annotations

import ctypes
import math
import os
from heapq import heappop, heappush
from itertools import count
from time import perf_counter
from typing import Any, Final

from gevent import get_hub, getcurrent

_CLOCK_MONOTONIC: Final = 1
_NONBLOCK_CLOEXEC: Final = 0o4000 | 0o2000000
_ABSOLUTE: Final = 1
_NEAR: Final = 2e-5
"""Seconds by which a wake-up may be early instead of costing another one."""


class _Spec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class Alarm:
    """A queue of greenlets by the moment at which they want to go on; made in the process that uses it."""

    def __init__(self, *, timerfd: bool = True) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        create = getattr(self._libc, "timerfd_create", None)
        self._file = create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC) if create and timerfd else -1
        self._queue: list[tuple[float, int, list[Any]]] = []
        self._numbers = count()
        self._last = math.inf
        loop = get_hub().loop
        self._watcher = loop.io(self._file, 1) if self._file >= 0 else loop.timer(0.0)
        if self._file >= 0:
            self._watcher.start(self._ring)

    def close(self) -> None:
        """Give back the timer, which stays open otherwise; whoever sleeps is woken no more."""
        self._watcher.stop()
        self._watcher.close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def sleep_until(self, moment: float) -> None:
        """Return at ``moment`` on the clock of ``time.perf_counter``; never if it is after the last call."""
        slot: list[Any] = [getcurrent()]
        heappush(self._queue, (moment, next(self._numbers), slot))
        if self._queue[0][2] is slot and moment <= self._last:
            self._set(moment)
        try:
            get_hub().switch()
        except BaseException:
            slot[0] = None  # killed: the alarm passes it over
            raise

    def last_call(self, moment: float) -> None:
        """Wake nobody any more whose moment is after ``moment``; ``math.inf`` to wake all again."""
        self._last = moment
        if self._queue and self._queue[0][0] <= moment:
            self._set(self._queue[0][0])

    @property
    def left_asleep(self) -> int:
        """How many sleep on because their moment is after the last call."""
        return sum(moment > self._last and slot[0] is not None for moment, _, slot in self._queue)

    def _set(self, moment: float) -> None:
        if self._file < 0:
            self._watcher.close()
            self._watcher = get_hub().loop.timer(max(0.0, moment - perf_counter()))
            self._watcher.start(self._ring, update=True)
            return
        moment = max(moment, 1e-9)  # all zeros would switch the timer off
        spec = _Spec(0, 0, int(moment), int(moment % 1 * 1e9))
        if self._libc.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(spec), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def _ring(self) -> None:
        if self._file >= 0:
            try:
                os.read(self._file, 8)
            except BlockingIOError:  # set anew since it became readable
                pass
        queue = self._queue
        while queue and queue[0][0] <= min(perf_counter() + _NEAR, self._last):
            greenlet = heappop(queue)[2][0]
            if greenlet is not None:
                greenlet.switch()
        if queue and queue[0][0] <= self._last:
            self._set(queue[0][0])
