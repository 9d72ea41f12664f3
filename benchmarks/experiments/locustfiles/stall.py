"""The plain user of the experiment ``loadtest-stall``: paced by Locust, STALL_RATE messages a second each.

Each stops STALL_SECONDS after its first message, however late that was, and the last of them ends the run.
"""

from __future__ import annotations

import os
import socket
from time import perf_counter
from typing import ClassVar

import gevent
from locust import User, constant_throughput, task
from locust.exception import StopUser


class Plain(User):
    """Sends a message, waits for its reply, and counts the time between them."""

    wait_time = constant_throughput(float(os.environ["STALL_RATE"]))
    seconds: ClassVar[float] = float(os.environ["STALL_SECONDS"])
    stopped: ClassVar[int] = 0

    def on_start(self) -> None:
        """Connect."""
        host, _, port = str(self.host).removeprefix("tcp://").rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.began = 0.0

    @task
    def confirm(self) -> None:
        """Have a message confirmed."""
        begin = perf_counter()
        self.began = self.began or begin
        if begin >= self.began + self.seconds:
            self.stop_with_the_others()
        self.socket.sendall(b"hello\n")
        reply = self.socket.recv(1024)
        self.environment.events.request.fire(
            request_type="TCP",
            name="CONFIRM",
            response_time=(perf_counter() - begin) * 1000,
            response_length=len(reply),
            exception=None,
            context={},
        )

    def stop_with_the_others(self) -> None:
        """Stop, and have the run end where all have."""
        Plain.stopped += 1
        runner = self.environment.runner
        if runner and Plain.stopped == runner.target_user_count:
            gevent.spawn(runner.quit)
        raise StopUser
