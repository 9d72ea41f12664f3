"""The users of the experiment ``loadtest-cost``; Locust runs this file.

COST_KIND in the environment names the user. COST_SECONDS after all users run, requests, CPU seconds of this
process and failures of that time are written to the file COST_FIGURES, and the test ends.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import gevent
from locust import FastHttpUser, User, constant, events, task

KIND = os.environ["COST_KIND"]
MESSAGE = b"0123456789abcdef0123456789abcdef\n"
SETTLE_SECONDS = 1.5

if KIND == "tcp":
    from loadtest.tcp_user import ConfirmUser  # noqa: F401 - Locust finds it here

if KIND in ("own", "push"):
    from loadtest.tcp_user import TcpUser

    class Own(TcpUser):
        """A user of one's own, which says what has to come back."""

        abstract = KIND != "own"

        @task
        def drive(self) -> None:
            """Without Locust between two requests."""
            message, reply = MESSAGE[:-1], b"Received: " + MESSAGE[:-1]
            while True:
                self.client.request(message, name="ECHO", expect=reply)

    class Pushed(TcpUser):
        """A user that only takes what the server sends."""

        abstract = KIND != "push"
        taken = 0
        """Pushes of all users."""

        def on_connect(self) -> None:
            """Have each push counted, as the load test does, and once more for these figures."""
            self.client.push(self.take)

        def take(self, message: bytes) -> None:
            """Count it."""
            Pushed.taken += 1

        @task
        def wait(self) -> None:
            """There is nothing to do but to take them."""
            gevent.sleep(3600)


class Bare(User):
    """The leanest user that a person would write."""

    abstract = KIND != "bare"
    wait_time = constant(0)

    def on_start(self) -> None:
        """Connect."""
        host, _, port = str(self.host).removeprefix("tcp://").rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def request(self) -> None:
        """Have a message confirmed."""
        begin = perf_counter()
        self.socket.send(MESSAGE)
        reply = self.socket.recv(1024)
        self.environment.events.request.fire(
            request_type="TCP",
            name="CONFIRM",
            response_time=(perf_counter() - begin) * 1000,
            response_length=len(reply),
            exception=None,
            context={},
        )

    @task
    def drive(self) -> None:
        """Without Locust between two messages."""
        while True:
            self.request()


class Task(Bare):
    """The same with a task a request."""

    abstract = KIND != "task"
    tasks = [Bare.request]  # noqa: RUF012 - Locust's own convention


class Http(FastHttpUser):
    """Locust's own HTTP user."""

    abstract = KIND != "http"
    wait_time = constant(0)

    @task
    def drive(self) -> None:
        """Without Locust between two requests."""
        while True:
            self.client.get("/")


def init(environment: Any, **_: Any) -> None:
    """Measure once all users run."""
    environment.events.spawning_complete.add_listener(lambda **_: gevent.spawn(measure, environment))


events.init.add_listener(init)  # type: ignore[no-untyped-call]


def measure(environment: Any) -> None:
    """Take the steady part of the run."""
    gevent.sleep(SETTLE_SECONDS)
    before, cpu = done(environment), process_time()
    gevent.sleep(float(os.environ["COST_SECONDS"]))
    figures = {
        "requests": done(environment) - before,
        "cpu": process_time() - cpu,
        "failures": environment.stats.num_failures,
    }
    Path(os.environ["COST_FIGURES"]).write_text(json.dumps(figures))
    environment.runner.quit()


def done(environment: Any) -> int:
    """Requests so far, or pushes."""
    return int(Pushed.taken if KIND == "push" else environment.stats.num_requests)
