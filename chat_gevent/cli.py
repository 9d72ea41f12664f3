"""The ``chat-gevent`` command."""

from __future__ import annotations

import argparse
import gc
import logging
import signal
import sys

import gevent

from chat_gevent.framing import Framing
from chat_gevent.limits import raise_file_limit
from chat_gevent.server import ChatServer
from chat_gevent.settings import Settings


def _park_after(text: str) -> float | None:
    return None if text == "never" else float(text)


def serve(arguments: argparse.Namespace) -> int:
    """``chat-gevent serve``."""
    raise_file_limit()
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    settings = Settings(
        framing=Framing(arguments.framing),
        park_after=arguments.park_after,
        drain_timeout=arguments.drain_timeout,
    )
    server = ChatServer((arguments.host, arguments.port), settings=settings)
    server.start()
    host, port, *_ = server.address
    print(f"ready tcp://{host}:{port}", flush=True)
    gc.collect()
    gc.freeze()
    stop = gevent.event.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, stop.set)
    stop.wait()
    return 3 if server.stop(settings.drain_timeout) else 0


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="chat-gevent")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("serve")
    command.add_argument("--host", default="127.0.0.1")
    command.add_argument("--port", type=int, default=12345)
    command.add_argument("--framing", default="auto")
    command.add_argument("--drain-timeout", default=30.0, type=float)
    command.add_argument("--park-after", default=0.0, type=_park_after)
    command.set_defaults(run=serve)
    arguments = parser.parse_args(argv)
    return int(arguments.run(arguments))
