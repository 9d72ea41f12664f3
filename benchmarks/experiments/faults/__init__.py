"""Faults, one after the other, each against a server of its own, with a truth that is checked.

``killed``          SIGKILL under load: what was received is right, and a new server takes the same addresses
``stopped``         SIGSTOP and SIGCONT under load: every message is answered, nobody is closed for the pause
``clock``           the wall clock jumps a day ahead and back: nobody is closed early, and all time-outs work
``disk-full``       the log's disk is full: clients don't notice, and the log goes on when there is room
``files``           fewer open files than clients: those inside are served, the others are told
``memory``          an address space without room: clients inside are served, and the process goes on
``ports``           no port is free to listen on: one line, and status 1
``resets``          clients reset in every state that a connection can have: nothing is left behind
``half-open``       peers that are gone without a word are found by TCP's probes
``link``            a relay that delays, trickles, reorders and drops bytes and connections, cuts and heals
``certificates``    certificates that expire, on both sides, and are renewed
``come-and-go``     clients that connect and leave, as many as the machine can make
``silent``          thousands of clients that say nothing: memory of each, and the idle time-out
``unauthenticated`` what a client costs that is silent, or within a line, a TLS handshake or a PROXY header
``slow-readers``    subscribers that read no pushes: the others get all of them, and memory is bounded

Beside each there are clients that behave: they send a line at a time, and every reply must be right. At the
end of each the server must stop with status 0 (unless it was killed) and without a traceback, and the
messages it counts must be the confirmations that were received, where none was lost to a broken connection.

``--scale 1`` is the list at length; tests run it at a fraction.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable
from typing import Final

from benchmarks.experiments import ExperimentFailed
from chat_gevent.files import raise_file_limit

PLACES: Final = {
    "processes": ("killed", "stopped", "clock", "disk-full", "files", "memory", "ports"),
    "links": ("resets", "half-open", "link", "certificates"),
    "crowds": ("come-and-go", "silent", "unauthenticated", "slow-readers"),
}
"""The modules, and the faults that each has a function for."""

FAULTS: Final = tuple(name for names in PLACES.values() for name in names)
"""All faults, in the order in which they are run."""


class NotHere(Exception):
    """This machine lacks what a fault needs; the message says what."""


def fault(name: str) -> Callable[[float], str]:
    """The function that makes a fault: from its scale to what was seen. Raises ExperimentFailed, NotHere."""
    place = next(module for module, names in PLACES.items() if name in names)
    module = importlib.import_module(f"{__name__}.{place}")
    found: Callable[[float], str] = getattr(module, name.replace("-", "_"))
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "fault", nargs="*", metavar="FAULT", help=f"of: {', '.join(FAULTS)}; none: all of them"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of counts and times (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Make each fault and print a line for it; returns 1 where one of them found something, else 0."""
    raise_file_limit()
    unknown = [name for name in arguments.fault if name not in FAULTS]
    if unknown:
        raise ExperimentFailed(f"no such fault: {', '.join(unknown)}")
    status = 0
    print("| fault | seconds | outcome |\n|---|---|---|", flush=True)
    for name in arguments.fault or FAULTS:
        began = time.monotonic()
        try:
            outcome = fault(name)(arguments.scale)
        except NotHere as error:
            outcome = f"not here: needs {error}"
        except ExperimentFailed as error:
            outcome, status = f"**failed**: {error}", 1
        print(f"| {name} | {time.monotonic() - began:.0f} | {outcome} |", flush=True)
    return status
