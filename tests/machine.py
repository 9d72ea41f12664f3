"""Who has the machine: tests run side by side in a few processes, and those marked ``alone`` run alone.

A test that counts what a load test sent in a second, or what a process costs, is wrong beside another test
that keeps a core busy. Under pytest-xdist each test holds a lock of the run, shared with others; a test
marked ``alone`` holds it exclusively. The wait is not part of the test's time-out. Without xdist there is
nobody to wait for. conftest.py puts those tests behind all others: in the middle of a run each of them would
have the others stop.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID")


@contextlib.contextmanager
def held(*, alone: bool) -> Iterator[None]:
    """Hold the machine for one test, with all others kept out where it is to be alone."""
    if RUN is None:
        yield
        return
    name = f"chat-gevent-tests-{RUN}"
    with _locked(name, fcntl.LOCK_EX if alone else fcntl.LOCK_SH):
        yield


def forget(run: str) -> None:
    """Remove the files of a run that has ended."""
    for name in (f"chat-gevent-tests-{run}", f"chat-gevent-tests-{run}-gate"):
        (Path(tempfile.gettempdir()) / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(name: str, kind: int) -> Iterator[None]:
    folder = Path(tempfile.gettempdir())
    with (folder / name).open("a") as machine:
        # Who waits for the machine holds the gate, and all who come later queue there: without it, tests
        # that share could follow each other for ever while one that is to be alone waits.
        with (folder / f"{name}-gate").open("a") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            fcntl.flock(machine, kind)
        try:
            yield
        finally:  # a process that the test has forked, and left, would hold the lock on
            fcntl.flock(machine, fcntl.LOCK_UN)
