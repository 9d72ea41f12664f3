"""``chat-gevent serve``, whose event loop is looked at by a timer: the server of the experiment ``lag``.

The first argument is a file, the others are options of ``serve``. Once the server ends, the file has a line
for each time that the timer was due: when that was, by the machine's monotonic clock, and by how much it was
late, both in nanoseconds. The timer is due every 5 ms; where the loop is held for longer, a line stands for
each time that was missed, so that a long hold counts by its length and not once.
"""

from __future__ import annotations

import runpy
import sys
from array import array
from pathlib import Path
from time import monotonic_ns

import gevent

INTERVAL_NS = 5_000_000


class Watch:
    """The timer, and how late it was each time."""

    def __init__(self) -> None:
        self.due_ns = array("q")
        self.late_ns = array("q")
        seconds = INTERVAL_NS / 1e9
        self._timer = gevent.get_hub().loop.timer(seconds, seconds, ref=False)
        self._due = monotonic_ns() + INTERVAL_NS
        self._timer.again(self._tick, update=True)

    def _tick(self) -> None:
        now = monotonic_ns()
        for due in range(self._due, max(now, self._due + 1), INTERVAL_NS):
            self.due_ns.append(due)
            self.late_ns.append(max(0, now - due))
        self._due = monotonic_ns() + INTERVAL_NS
        self._timer.again(self._tick, update=True)  # `start` would go on with what was left of the last time

    def write(self, path: Path) -> None:
        """Leave what was seen in a file."""
        seen = zip(self.due_ns, self.late_ns, strict=True)
        path.write_text("".join(f"{due} {late}\n" for due, late in seen))


if __name__ == "__main__":
    path = Path(sys.argv[1])
    watch = Watch()
    sys.argv[1:2] = ["serve"]
    try:
        runpy.run_module("chat_gevent", run_name="__main__", alter_sys=True)
    finally:
        watch.write(path)
