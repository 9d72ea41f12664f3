"""A handler that blocks, with thousands of clients in it at once.

Each client sends one message at the same time; the handler sleeps 100 ms (``gevent.sleep``) and answers.
Printed is how long the first and the last reply took, and how much of the last is the server's work:
its CPU time. A server whose clients wait for each other would need 100 ms for each of them.

The server runs as the real command in a process of its own, the clients are bare sockets on one epoll
in this one. Where there are two cores, each has its own.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import statistics
import time
from typing import Any

import psutil

from benchmarks.experiments import ExperimentFailed
from benchmarks.measure.servers import SERVERS
from benchmarks.measure.servers.process import ServerProcess
from chat_gevent.files import raise_file_limit

SLEEP_SECONDS = 0.1
LIMIT_SECONDS = 60.0


def handle(message: str, client: Any) -> str:
    """Sleep as a handler does that waits for a database, and answer."""
    import gevent

    gevent.sleep(SLEEP_SECONDS)
    return f"Received: {message}"


def one_round(clients: dict[int, socket.socket], poll: select.epoll) -> list[float]:
    """Every client sends a message at once; returns the seconds from the first send to each right reply."""
    times: list[float] = []
    start = time.perf_counter()
    for number, client in clients.items():
        client.send(b"message of %d\n" % number)
    while len(times) < len(clients):
        events = poll.poll(LIMIT_SECONDS, 1024)
        if not events:
            raise ExperimentFailed(f"only {len(times)} of {len(clients)} replies came")
        now = time.perf_counter() - start
        for number, _ in events:
            reply = clients[number].recv(4096)
            if reply != b"Received: message of %d\n" % number:
                raise ExperimentFailed(f"wrong reply {reply!r}")
            times.append(now)
    return times


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "--clients", type=int, default=5000, metavar="N", help="clients at once (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="messages of each (%(default)s)")
    parser.add_argument("--park-after", default="0", metavar="SECONDS", help="as of the server (%(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Start the server, let all clients in, and print a line for each round."""
    hard = raise_file_limit()
    if not 0 < arguments.clients <= hard - 100:
        arguments.parser.error(
            f"--clients: must be 1 to {hard - 100}, of {hard} files that this process may open"
        )
    if arguments.rounds < 1:
        arguments.parser.error("--rounds: must be at least 1")
    cores = sorted(os.sched_getaffinity(0))
    options = ["--handler", "benchmarks.experiments.blocking:handle", "--park-after", arguments.park_after]
    clients: dict[int, socket.socket] = {}
    with ServerProcess(SERVERS["chat_gevent"], cores[:1], options) as server, select.epoll() as poll:
        process = psutil.Process(server.pid)
        os.sched_setaffinity(0, cores[1:] or cores)
        try:
            for _ in range(arguments.clients):
                client = socket.create_connection((server.host, server.port))
                client.setblocking(False)
                clients[client.fileno()] = client
                poll.register(client, select.EPOLLIN)
            print(f"{arguments.clients} clients, handler sleeps {SLEEP_SECONDS * 1000:.0f} ms")
            lasts = []
            for number in range(arguments.rounds):
                before = sum(process.cpu_times()[:2])
                times = one_round(clients, poll)
                cpu = sum(process.cpu_times()[:2]) - before
                lasts.append(max(times))
                first, last, cpu = (1000 * seconds for seconds in (min(times), max(times), cpu))
                print(f"round {number + 1}: first {first:6.1f} ms, last {last:6.1f} ms, CPU {cpu:5.0f} ms")
            print(f"median of last replies: {statistics.median(lasts) * 1000:.1f} ms")
        finally:
            for client in clients.values():
                client.close()
    return 0
