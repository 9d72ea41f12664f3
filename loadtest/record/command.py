"""``python -m loadtest record``: record what a client and a server say, and write it as a locustfile."""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import gevent
import gevent.event

from loadtest.errors import NothingWritten
from loadtest.record.conversation import Reader
from loadtest.record.framings import guess_framings
from loadtest.record.guard import check
from loadtest.record.locustfile import Writer
from loadtest.record.proxy import Proxy
from loadtest.record.secrets import find_values
from loadtest.record.tape import KEPT_BYTES, Tape
from loadtest.record.turns import turns_of

DESCRIPTION = """
A proxy between a real client and a real server: let the client connect to --listen instead of the server.
What passes is not changed. End it with Ctrl-C (or SIGTERM), and it writes a locustfile that repeats what
was said.
"""


def main(arguments: Sequence[str]) -> int:
    """Record until SIGINT or SIGTERM, and write the file. Returns the status: 1 if nothing was written."""
    options = _parser().parse_args(arguments)
    output: Path = options.output
    if output.exists() and not options.force:
        return _fail(f"{output} exists: give another --output, or --force to overwrite it")
    if not output.parent.is_dir():
        return _fail(f"{output.parent} is not a folder")
    stopped = gevent.event.Event()
    proxy = Proxy(options.listen, options.to, _tell, options.keep)
    try:
        proxy.start()
    except OSError as error:
        return _fail(f"cannot listen on {options.listen[0]}:{options.listen[1]}: {error.strerror}")
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, stopped.set)
    _tell("recording on {}:{}, to {}:{}; Ctrl-C ends it".format(*proxy.address, *options.to))
    stopped.wait()
    proxy.stop()
    return _finish(proxy, options)


def write_locustfile(
    tapes: Sequence[Tape], to: tuple[str, int], mask: Sequence[str], unique: Sequence[str]
) -> str:
    """The locustfile for ``tapes``, at least one of which has bytes of the client. Raises NothingWritten."""
    values = find_values(tapes, mask, unique)
    turns = [turns_of(tape) for tape in tapes]
    guess = guess_framings(turns)
    pairs = list(zip(tapes, turns, strict=True))
    conversations = [Reader(guess, values).read(*pair) for pair in pairs]
    if any(each.chatty for each in conversations):
        conversations = [Reader(guess, values, chatty=True).read(*pair) for pair in pairs]
    if not any(each.greeting or each.steps for each in conversations):  # the last turn of each was cut
        raise NothingWritten(
            "what each client said first is longer than what is kept of a connection "
            f"(--keep {tapes[0].limit}): record again with a larger --keep"
        )
    host = f"[{to[0]}]" if ":" in to[0] else to[0]
    text = Writer(f"tcp://{host}:{to[1]}", guess, conversations, values).text()
    check(text, values)
    return text


def _finish(proxy: Proxy, options: argparse.Namespace) -> int:
    tapes = [tape for tape in proxy.tapes if tape.stream("client")]
    if not tapes:
        return _fail("nothing was written: no client has sent anything")
    try:
        text = write_locustfile(tapes, options.to, options.mask, options.unique)
    except NothingWritten as reason:
        return _fail(f"nothing was written: {reason}")
    try:
        with options.output.open("w" if options.force else "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        return _fail(f"could not write {options.output}: {error.strerror}")
    for pattern in options.mask:
        if not find_values(tapes, [pattern], []):
            _tell(f"--mask {pattern!r} matched nothing: the file has in clear what it was meant for")
    if cut := sum(tape.cut for tape in tapes):
        _tell(f"{cut} connections said more than was kept ({options.keep} bytes): their end is missing")
    if proxy.unrecorded:
        _tell(f"{proxy.unrecorded} connections came after the first {len(proxy.tapes)} and are missing")
    _tell(f"wrote {options.output}: {len(tapes)} connections; run it with locust -f {options.output}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m loadtest record", description=DESCRIPTION)
    add = parser.add_argument
    add(
        "--listen",
        type=_address,
        default=("127.0.0.1", 7000),
        metavar="HOST:PORT",
        help="default 127.0.0.1:7000",
    )
    add("--to", type=_address, required=True, metavar="HOST:PORT", help="the server")
    add("--output", type=Path, default=Path("locustfile.py"), metavar="FILE", help="default locustfile.py")
    add("--force", action="store_true", help="overwrite the file")
    add(
        "--mask",
        type=_expression,
        action="append",
        default=[],
        metavar="REGEX",
        help="what it matches (or its group) is not written; the file takes it from the environment",
    )
    add(
        "--unique",
        type=_expression,
        action="append",
        default=[],
        metavar="REGEX",
        help="what it matches (or its group) differs for each user, as a nickname must",
    )
    add(
        "--keep",
        type=_size,
        default=KEPT_BYTES,
        metavar="BYTES",
        help=f"a connection (default {KEPT_BYTES})",
    )
    return parser


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65535 or not host:
        raise argparse.ArgumentTypeError(f"{text!r}: an address is written HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _size(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a number of bytes is 1 or more")
    return int(text)


def _expression(text: str) -> str:
    try:
        groups = re.compile(text.encode()).groups
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from None
    if groups > 1:
        raise argparse.ArgumentTypeError(f"{text!r} has {groups} groups: write (?:...) for all but one")
    return text


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _fail(sentence: str) -> int:
    _tell(sentence)
    return 1
