"""An event loop in memory, with a clock of its own, in the place of gevent's.

gevent asks its loop for callbacks, timers and watchers of descriptors, and nothing else is used here. A
:class:`gevent.hub.Hub` that is given such a loop runs ``gevent.sleep``, ``Timeout``, ``Event.wait`` and
every greenlet on it. Time stands still until :attr:`Loop.time` is changed.

:func:`run_in_hub` runs a function inside the hub's greenlet, where a real loop would run its callbacks. The
function decides what happens next: :meth:`Loop.step` makes one thing happen of all that could.

What a real loop (libev under gevent) promises is kept: callbacks run in the order in which they were asked
for; a timer is not early, and of two the one that is due first comes first; a watcher is called as long as
its descriptor is ready. In which order callbacks, timers and descriptors follow each other is not promised.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import Any

from gevent import getcurrent
from gevent._hub_local import get_hub, set_hub
from gevent.hub import Hub

from tests.faults.simulation.kernel import Kernel

START = 1000.0
"""The time at which a world begins, in seconds."""


class Callback:
    """Something to be called once, soon."""

    __slots__ = ("args", "callback")

    def __init__(self, callback: Any, args: Any) -> None:
        self.callback, self.args = callback, args

    def stop(self) -> None:
        """Don't call it."""
        self.callback = self.args = None

    close = stop

    def __bool__(self) -> bool:
        return self.args is not None

    @property
    def pending(self) -> bool:
        """Whether it will be called."""
        return self.callback is not None


class _Watcher:
    """What timers and watchers of descriptors share."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.callback: Any = None
        self.args: Any = None
        self.closed = False
        self.pending = False

    @property
    def active(self) -> bool:
        """Whether it is started."""
        return self.callback is not None

    def _begin(self, callback: Any, args: Any) -> None:
        if self.closed:
            raise ValueError("started after it was closed")
        self.callback, self.args = callback, args

    def close(self) -> None:
        """Stop it for good."""
        self.stop()
        self.closed = True

    def stop(self) -> None:
        """Don't call it any more."""
        raise NotImplementedError

    def __enter__(self) -> _Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Timer(_Watcher):
    """Called after so many seconds, and then every ``repeat`` seconds."""

    def __init__(self, loop: Loop, after: float, repeat: float) -> None:
        super().__init__(loop)
        self.after, self.repeat = after, repeat
        self.due = 0.0

    def start(self, callback: Any, *args: Any, update: Any = None) -> None:
        """Begin; a timer that runs goes on as it is."""
        if self.callback is not None:
            self._begin(callback, args)
            return
        self._begin(callback, args)
        self.due = self.loop.time + max(0.0, self.after)
        self.loop.timers[self] = None

    def stop(self) -> None:
        """Don't call it any more."""
        if self in self.loop.timers:
            del self.loop.timers[self]
            self.after = self.due - self.loop.time  # libev forgets how long it was: started again, it goes on
        self.callback = self.args = None

    def again(self, callback: Any, *args: Any, update: Any = None) -> None:
        """Begin anew, with ``repeat`` seconds from now."""
        self._begin(callback, args)
        self.due = self.loop.time + self.repeat
        self.loop.timers[self] = None

    def fire(self) -> None:
        """It is due."""
        callback, args = self.callback, self.args
        if self.repeat:
            self.due = max(self.due + self.repeat, self.loop.time)
        else:
            self.stop()
        self.loop.call(self, callback, args)


class Io(_Watcher):
    """Called while a descriptor is ready."""

    def __init__(self, loop: Loop, fd: int, events: int) -> None:
        super().__init__(loop)
        self.fd = fd
        self.file = loop.kernel.files.get(fd)
        if self.file is None:
            loop.kernel.violations.append(f"descriptor {fd}, which is closed, is watched")
        self.mask = (events & 1 and EPOLLIN) | (events & 2 and EPOLLOUT) | EPOLLERR | EPOLLHUP

    def start(self, callback: Any, *args: Any, pass_events: bool = False) -> None:
        """Begin."""
        self._begin(callback, args)
        self.loop.ios[self] = None

    def stop(self) -> None:
        """Don't call it any more."""
        self.loop.ios.pop(self, None)
        self.callback = self.args = None

    def fire(self) -> None:
        """Its descriptor is ready."""
        if self.callback is not None:
            self.loop.call(self, self.callback, self.args)

    def is_ready(self) -> bool:
        """Whether its descriptor is ready now."""
        file = self.loop.kernel.files.get(self.fd)
        if file is not self.file:
            if file is not None:
                self.loop.kernel.violations.append("a watcher is left over from a descriptor's last user")
            return False
        return bool(file is not None and file.poll() & self.mask)


class Loop:
    """What a hub needs of a loop."""

    default = True
    approx_timer_resolution = 0.0
    min_sleep_time = 0.0
    activecnt = 1
    error_handler: Any = None

    def __init__(self) -> None:
        self.job: Callable[[], Any] = lambda: None
        self.main = getcurrent()
        self.reset(Kernel())

    def reset(self, kernel: Kernel) -> None:
        """Begin anew, with nothing that waits."""
        self.kernel = kernel
        self.time = START
        self.callbacks: deque[Callback] = deque()
        self.timers: dict[Timer, None] = {}
        self.ios: dict[Io, None] = {}

    # -- what gevent calls -------------------------------------------------------------------------

    def run(self) -> None:
        """Run jobs, one after the other, in the hub."""
        while True:
            try:
                outcome = (True, self.job())
            except BaseException as error:  # noqa: BLE001 - it is raised where the job came from
                outcome = (False, error)
            self.main.switch(outcome)

    def now(self) -> float:
        """The time of this loop."""
        return self.time

    def update_now(self) -> None:
        """Time stands still."""

    update = update_now

    def run_callback(self, callback: Any, *args: Any) -> Callback:
        """Call it soon."""
        made = Callback(callback, args)
        self.callbacks.append(made)
        return made

    run_callback_threadsafe = run_callback

    def timer(self, after: float, repeat: float = 0.0, ref: bool = True, priority: Any = None) -> Timer:
        """A timer that is not started."""
        return Timer(self, after, repeat)

    def io(self, fd: int, events: int, ref: bool = True, priority: Any = None) -> Io:
        """A watcher that is not started."""
        return Io(self, fd, events)

    def handle_error(self, context: Any, kind: Any, value: Any, trace: Any) -> None:
        """Something has raised in the hub."""
        get_hub().handle_error(context, kind, value, trace)

    def _format(self) -> str:
        return f"virtual loop at {self.time}"

    def call(self, context: Any, callback: Any, args: Any) -> None:
        """Call it as a loop does: what it raises goes to the hub."""
        try:
            callback(*args)
        except BaseException:  # noqa: BLE001 - as libev's callbacks under gevent
            self.handle_error(context, *sys.exc_info())

    # -- what a simulation calls -------------------------------------------------------------------

    def step(self, choice: int) -> bool:
        """Make one thing happen of all that could, by ``choice``; returns whether there was any."""
        ready: list[Any] = []
        if self.timers:
            first = min(self.timers, key=_due)
            if first.due <= self.time:
                ready.append(first)
        ready += [each for each in self.ios if each.is_ready()]
        while self.callbacks and self.callbacks[0].callback is None:
            self.callbacks.popleft()
        count = len(ready) + bool(self.callbacks)
        if not count:
            return False
        chosen = choice % count
        if chosen < len(ready):
            ready[chosen].fire()
        else:
            self._callback()
        return True

    def _callback(self) -> None:
        made = self.callbacks.popleft()
        callback, args = made.callback, made.args
        if callback is not None:
            made.callback = None
            try:
                self.call(made, callback, args)
            finally:
                made.args = None

    def turn(self) -> bool:
        """One iteration as a real loop makes it; returns whether anything happened."""
        happened = False
        for _ in range(len(self.callbacks)):
            happened = True
            self._callback()
        for each in [each for each in self.ios if each.is_ready()]:
            happened = True
            each.fire()
        now = self.time
        for timer in sorted((each for each in self.timers if each.due <= now), key=_due):
            if timer in self.timers and timer.due <= now:
                happened = True
                timer.fire()
        return happened


def _due(timer: Timer) -> float:
    return timer.due


@contextmanager
def virtual_hub(handle_error: Callable[..., None]) -> Iterator[Loop]:
    """Have this thread's hub be one with a virtual loop; ``handle_error`` is its handler of errors."""
    before = get_hub()
    loop = Loop()
    hub: Any = Hub(loop=loop)  # type: ignore[call-overload]
    hub.handle_error = handle_error
    set_hub(hub)
    try:
        yield loop
    finally:
        set_hub(before)


def run_in_hub(loop: Loop, job: Callable[[], Any]) -> Any:
    """Run ``job`` in the hub's greenlet, and return what it returns. Raises what it raises."""
    loop.job, loop.main = job, getcurrent()
    well, outcome = get_hub().switch()
    if not well:
        raise outcome
    return outcome
