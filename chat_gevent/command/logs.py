"""Logs: text or JSON, one line an event, never a reason to wait, and never a flood.

* Lines are written by a thread of its own. Whoever logs only puts the finished line into a queue, so a
  standard error that nobody reads can't stop the server. A queue that is full drops lines and says how many.
* Of warnings and errors with the same template at most :data:`REPEATS` are logged in a second; the next one
  that passes, or :meth:`RepeatFilter.flush`, says how many were held back.
"""

from __future__ import annotations

import io
import json
import logging
import os
from _queue import SimpleQueue
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final

from gevent.monkey import get_original

QUEUED_LINES: Final = 10_000
"""Most lines that wait to be written; at 200 bytes a line that is 2 MB."""

REPEATS: Final = 1
"""Most warnings or errors of one template in a second."""

_allocate_lock = get_original("_thread", "allocate_lock")
_start_new_thread = get_original("_thread", "start_new_thread")
_sleep = get_original("time", "sleep")

log = logging.getLogger("chat_gevent")
access_log = logging.getLogger("chat_gevent.access")


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.000Z INFO message key=value``; line ends in what a client sent are escaped."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = "" if worker is None else f" worker={worker}"

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line; a traceback or stack adds lines that are indented."""
        extra = "".join(f" {name}={value}" for name, value in _extra(record).items())
        message = _printable(record.getMessage()) + self._worker + _printable(extra)
        line = f"{_time(record)} {record.levelname} {message}"
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line += "".join(f"\n    {_printable(each)}" for each in trace)
        if record.stack_info:
            line += "".join(f"\n    {_printable(each)}" for each in record.stack_info.splitlines())
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, traceback if there is one, and the extras."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._worker,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        if record.stack_info:
            entry["stack"] = record.stack_info
        return json.dumps(entry, default=str)


def _time(record: logging.LogRecord) -> str:
    return (
        datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    extra = getattr(record, "data", None)
    return extra if isinstance(extra, dict) else {}


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def access(data: dict[str, Any]) -> None:
    """Log a client that leaves, with what ``data`` says of it."""
    access_log.info("closed", extra={"data": data})


class RepeatFilter(logging.Filter):
    """Lets :data:`REPEATS` warnings or errors of one template pass in a second, and counts the others."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int], list[float]] = {}  # template, level: since, passed, held back

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be logged."""
        if record.levelno < logging.WARNING:
            return True
        entry = self._seen.setdefault((str(record.msg), record.levelno), [-2.0, 0, 0])
        now = monotonic()
        if now - entry[0] >= 1:
            if entry[2]:
                record.msg = f"{record.msg} (and {entry[2]:.0f} more like this)"
            entry[:] = [now, 1, 0]
            return True
        if entry[1] < REPEATS:
            entry[1] += 1
            return True
        entry[2] += 1
        return False

    def flush(self) -> None:
        """Say how many were held back of what has not come again for a second."""
        now = monotonic()
        for key, (since, _, held_back) in list(self._seen.items()):
            if now - since >= 1:
                del self._seen[key]
                if held_back:
                    log.log(key[1], "%.0f more like this: %s", held_back, key[0], extra={"flush": True})


class BackgroundHandler(logging.Handler):
    """Formats a record at once, and leaves the writing to a thread.

    The queue, the lock, the thread and its sleep are the interpreter's own, whether ``monkey.patch_all()``
    was called before or is called by a handler's module: a greenlet that waited in their stead would stop
    the loop.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._process = os.getpid()
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._ended = _allocate_lock()
        self._ended.acquire()
        self.dropped = self._untold = 0
        _start_new_thread(self._write, ())

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record, or drop it where too many wait."""
        if self._queue.qsize() >= QUEUED_LINES:
            self.dropped += 1
            self._untold += 1
            return
        line = self.format(record)
        if self._untold:
            untold, self._untold = self._untold, 0
            self._queue.put(self.format(_lines_dropped(untold)))
        self._queue.put(line)

    def close(self) -> None:
        """Wait until all is written, for a second at most."""
        if self._process == os.getpid():  # the thread is not there in a process that was forked since
            self._queue.put(None)
            if self._ended.acquire(timeout=1):
                self._ended.release()
        super().close()

    def _write(self) -> None:
        stream = io.FileIO(self._fd, "w", closefd=False)
        try:
            while (line := self._queue.get()) is not None:
                data = memoryview((line + "\n").encode(errors="backslashreplace"))
                while data:
                    try:
                        data = data[stream.write(data) or 0 :]
                    except BlockingIOError:  # somebody made it non-blocking
                        _sleep(0.01)
                    except OSError:  # nobody will ever read it
                        break
        finally:
            self._ended.release()


def _lines_dropped(count: int) -> logging.LogRecord:
    message = "%d log lines were dropped: nobody took them in time"
    return log.makeRecord(log.name, logging.WARNING, __file__, 0, message, (count,), None)


def start(level: str, style: str, fd: int = 2, worker: int | None = None) -> RepeatFilter:
    """Log ``chat_gevent`` to ``fd``; returns the filter, for its ``flush``.

    :param worker: a number that each line names, where several processes write to the same log.
    """
    handler = BackgroundHandler(fd)
    handler.setFormatter(JsonFormatter(worker) if style == "json" else TextFormatter(worker))
    repeats = RepeatFilter()
    handler.addFilter(lambda record: hasattr(record, "flush") or repeats.filter(record))
    for old in list(log.handlers):
        log.removeHandler(old)
    log.addHandler(handler)
    log.setLevel(level.upper())
    log.propagate = False
    return repeats


def dropped() -> int:
    """How many lines were dropped so far, because nobody took those before them."""
    return sum(each.dropped for each in log.handlers if isinstance(each, BackgroundHandler))


def stop() -> None:
    """Write what is left, and stop the thread."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
