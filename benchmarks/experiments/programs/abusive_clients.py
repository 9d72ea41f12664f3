"""The clients that mean harm in the experiment ``abuse``, in a process of their own.

Arguments: host, port, number of slow-loris clients, number of never-readers, seconds for each byte of a
slow-loris. It prints ``abusing`` once all are connected, and its figures as JSON when it is given input.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import time

from chat_gevent.files import raise_file_limit

Address = tuple[str, int]


def connect(address: Address, number: int, send_buffer: int = 0) -> socket.socket:
    """Connect from one of several loopback addresses: one alone has only 28,000 ports."""
    client = socket.socket()
    if send_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    client.bind((f"127.0.0.{2 + number % 50}", 0))
    client.connect(address)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.setblocking(False)
    return client


def abuse(address: Address, loris: int, readers: int, interval: float) -> None:
    """Abuse the server until there is standard input; says ``abusing`` once all are connected."""
    # It shares the server's core, and only what is left of it: who wakes there comes first at once. Beside
    # the well-behaved clients, who look without pause, it would get a time slice, and that would be measured.
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    slow = [connect(address, number) for number in range(loris)]
    # Small send buffers, so that the memory which is measured is the server's rather than theirs.
    stuck = [connect(address, number, 8192) for number in range(readers)]
    print("abusing", flush=True)
    sent, came_back, tried, dribbled, active = 0, 0, 0, 0, 0.0
    load = b"y" * 63 + b"\n"
    now = time.monotonic()
    asked = select.poll()
    asked.register(sys.stdin, select.POLLIN)
    # Evenly, a client at a time: thousands of clients of their own would not send in step.
    due_dribbles = due_tries = 0.0
    while not asked.poll(1):
        before, now = now, time.monotonic()
        before = max(before, now - 0.1)  # it was stopped: what was due meanwhile does not come as a burst
        active += now - before
        due_dribbles += (now - before) * len(slow) / interval
        due_tries += (now - before) * len(stuck) * (20 if active < 4 else 2)
        while dribbled < int(due_dribbles):
            slow[dribbled % len(slow)].send(b"z")
            dribbled += 1
        while tried < int(due_tries):
            number = tried % len(stuck)
            tried += 1
            try:
                sent += stuck[number].send(load * 1024)
            except BlockingIOError:
                pass
            except OSError:  # closed: it comes back
                stuck[number].close()
                came_back += 1
                with contextlib.suppress(OSError):
                    stuck[number] = connect(address, number, 8192)
    figures = {
        "abused_seconds": active,
        "bytes_of_slow_loris": dribbled,
        "bytes_of_never_readers": sent,
        "came_back": came_back,
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    raise_file_limit()
    abuse((sys.argv[1], int(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
