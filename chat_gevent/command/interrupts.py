"""Have a line that is being typed interrupted for what a server says meanwhile, and drawn again below it.

``input`` with readline blocks the main thread, and readline may be used by that thread only. So another
thread does no more than wait until there is something to do: then it signals the main thread. Python runs the
handler of a signal in the main thread, in the midst of ``input``, where readline waits for a key. The
handler has readline clear the line, shows what has come, and has readline draw prompt and line again, with
the cursor where it was. Python's module has no names for the two functions that do so, so they are called
in the library itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

AGAIN_SECONDS: Final = 0.1
"""When the thread signals again: a signal that comes just before readline waits for a key is seen late."""

ERASE_LINE: Final = "\r\x1b[K"

SIGNAL: Final = signal.SIGUSR1


class Interrupts:
    """Calls ``show`` while a line is typed and ``wait`` says that there is something to show.

    :param wait: blocks for as many seconds at most, in the other thread; returns whether there is something.
    :param show: prints it, whole lines; what it raises ends the ``input`` that is under way.
    """

    def __init__(self, wait: Callable[[float], object], show: Callable[[], None]) -> None:
        self._wait = wait
        self._show = show
        self._typing = threading.Event()
        self._ended = threading.Event()
        self._clear, self._draw = _readline_functions()

    def __enter__(self) -> Interrupts:
        self._before = signal.signal(SIGNAL, self._interrupt)
        self._thread = threading.Thread(target=self._watch, args=(threading.get_ident(),), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._typing.set()
        self._thread.join()
        signal.signal(SIGNAL, self._before)

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        """Allow interrupts for the time of an ``input``."""
        self._typing.set()
        try:
            yield
        finally:
            self._typing.clear()

    def _watch(self, main: int) -> None:
        while not self._ended.is_set():
            self._typing.wait()
            if self._wait(AGAIN_SECONDS) and self._typing.is_set() and not self._ended.is_set():
                signal.pthread_kill(main, SIGNAL)
                self._ended.wait(AGAIN_SECONDS)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """In the main thread."""
        if self._typing.is_set():
            self._typing.clear()  # what is shown may take longer than until the next signal
            self._clear()
            try:
                self._show()
            except BaseException:
                self._draw()
                sys.stdout.write("\r\n")
                raise
            finally:
                sys.stdout.flush()
            self._draw()
            self._typing.set()


def _readline_functions() -> tuple[Callable[[], object], Callable[[], object]]:
    """What clears the line that is typed, and what draws it again."""
    import readline

    def erase() -> None:
        sys.stdout.write(ERASE_LINE)
        sys.stdout.flush()

    library = ctypes.CDLL(getattr(readline, "__file__", None))  # without a file it is a part of Python
    return (
        getattr(library, "rl_clear_visible_line", erase),
        getattr(library, "rl_forced_update_display", readline.redisplay),
    )
