"""For tests of the backplane: a redis-server of the test's own, to be killed, held and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import redis

from tests.conftest import require_tool
from tests.operate import until


class RedisServer:
    """``redis-server`` on a UNIX socket in ``folder``, with any further arguments; ready."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.path = folder / "redis.sock"
        self._folder = folder
        self._arguments = arguments
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where it is, as the setting ``backplane`` takes it."""
        return f"unix://{self.path}"

    def client(self, password: str | None = None) -> redis.Redis:
        """A client of the library's own, to look at what it knows."""
        return redis.Redis(unix_socket_path=str(self.path), password=password)

    def channels(self) -> set[str]:
        """The channels that anybody is subscribed to."""
        with self.client() as client:
            return {each.decode() for each in client.pubsub_channels()}

    def subscribers(self, channel: str) -> int:
        """How many are subscribed to a channel."""
        with self.client() as client:
            return int(client.pubsub_numsub(channel)[0][1])

    def start(self) -> None:
        """Start it, anew if it was killed."""
        fixed = [
            "--unixsocket",
            str(self.path),
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            str(self._folder),
        ]
        chosen = self._arguments if "--port" in self._arguments else ("--port", "0", *self._arguments)
        log = (self._folder / "redis.log").open("ab")
        with log:
            self.process = subprocess.Popen([require_tool("redis-server"), *fixed, *chosen], stdout=log)
        until(self._answers, what="redis-server answers")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self.path))
                client.sendall(b"PING\r\n")
                return client.recv(1) in b"+-"  # an error: it wants a password first
            except OSError:
                return False

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def hold(self) -> None:
        """Have it do nothing, with all its connections open."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """End :meth:`hold`."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)
