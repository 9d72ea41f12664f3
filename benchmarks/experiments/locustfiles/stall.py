"""The plain user of the experiment ``loadtest-stall``: paced by Locust, STALL_RATE messages a second each."""

from __future__ import annotations

import os
import socket
from time import perf_counter

from locust import User, constant_throughput, task


class Plain(User):
    """Sends a message, waits for its reply, and counts the time between them."""

    wait_time = constant_throughput(float(os.environ["STALL_RATE"]))

    def on_start(self) -> None:
        """Connect."""
        host, _, port = str(self.host).removeprefix("tcp://").rpartition(":")
        self.socket = socket.create_connection((host, int(port)))

    @task
    def confirm(self) -> None:
        """Have a message confirmed."""
        begin = perf_counter()
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
