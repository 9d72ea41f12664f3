"""Every client that a service was told of is told of once more when it is gone, however it went.

Random operations on real sockets: clients come over TCP and TLS, speak, flood, stop reading, leave by exit,
end of stream and reset, fail their handshake, break limits and time-outs, are closed by the service, are
slow, and are drained. The ledger knows nothing of how the server works: it only counts what hooks are told.

``TEST_OPERATIONS=1000000`` makes it a long run; a failure names its seed.
"""

from __future__ import annotations

import logging
import os
import random
import socket as std
import ssl
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import pytest

from chat_gevent.errors import Refuse
from chat_gevent.service import Client, Service
from tests.conftest import wait_until
from tests.operate import certificate

OPERATIONS = int(os.environ.get("TEST_OPERATIONS", "24000"))
PER_ROUND = 3000
"""Operations of one server, which is drained at their end."""
MOST_CLIENTS = 40
PUSH = "p" * 20000

REASONS = {
    *("exit", "eof", "unused", "reset", "idle-timeout", "message-too-long"),
    *("handler", "slow", "shutting-down"),
}
"""The reasons that a run of the usual length must have seen, or it has not tried what it says."""


class Ledger(Service):
    """Who is here, and what was told wrongly."""

    def __init__(self, seed: int) -> None:
        self.here: set[Client[Any]] = set()
        self.came = 0
        self.reasons: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._random = random.Random(seed)

    def connected(self, client: Client[Any]) -> str | None:
        """One in twenty is refused, and no more is heard of it; some are greeted."""
        chance = self._random.random()
        if chance < 0.05:
            raise Refuse("not today")
        if client in self.here:
            self.wrong.append(f"{client} came twice")
        self.here.add(client)
        self.came += 1
        return "welcome" if chance < 0.5 else None

    def message(self, message: str, client: Client[Any]) -> str | None:
        """Answer; some messages push, close, wait, or fail."""
        if client not in self.here:
            self.wrong.append(f"{client} spoke and is not here")
        if message == "wait":
            gevent.sleep(self._random.random() * 0.02)
        elif message == "close":
            client.close("last")
        elif message == "fail":
            raise LookupError("as planned")
        elif message == "push":
            for _ in range(4):
                client.send(PUSH)
        return f"re {message}"

    def disconnected(self, client: Client[Any], reason: str) -> None:
        """Strike it off."""
        if client not in self.here:
            self.wrong.append(f"{client} went ({reason}) and was not here")
        self.here.discard(client)
        self.reasons[reason] += 1


class Crowd:
    """The clients of one round, and what may happen to each."""

    def __init__(
        self, server: Any, service: Ledger, dice: random.Random, context: ssl.SSLContext | None
    ) -> None:
        self.sockets: list[std.socket] = []
        self._server, self._service, self._dice, self._context = server, service, dice, context
        self._operations: list[tuple[Callable[[], None], int]] = [
            (self.connect, 8),
            (self.connect, 8),
            (self.speak, 40),
            (self.read, 20),
            (self.leave, 5),
            (self.server_side, 4),
        ]
        self._weights = [weight for _, weight in self._operations]

    def operate(self) -> None:
        """One operation."""
        (operation, _) = self._dice.choices(self._operations, self._weights)[0]
        operation()

    def connect(self) -> None:
        """Come, over TLS where the server has it; a few of those speak no TLS at all."""
        if len(self.sockets) >= MOST_CLIENTS:
            self._drop(self.sockets[0])
        plain = std.socket()
        if self._dice.random() < 0.1:
            plain.setsockopt(std.SOL_SOCKET, std.SO_RCVBUF, 2048)
        plain.setblocking(False)
        with suppress(BlockingIOError):
            plain.connect(self._server.address)
        if self._context is None or self._dice.random() < 0.1:
            self.sockets.append(plain)
            return
        gevent.sleep(0)
        try:
            self.sockets.append(self._context.wrap_socket(plain, do_handshake_on_connect=False))
        except OSError:
            plain.close()

    def _one(self) -> std.socket | None:
        return self._dice.choice(self.sockets) if self.sockets else None

    def speak(self) -> None:
        """Send something: a line, many, a part of one, one that is too long or is not UTF-8."""
        one = self._one()
        if one is None:
            return
        said = self._dice.choice(
            [
                b"hello\n",
                b"hello\n" * self._dice.randrange(200),
                b"hello\n/exit\nlate\n",
                *(b"wait\n", b"close\n", b"fail\n", b"push\n", b"push\n" * 20, b"/exit\n", b"\n"),
                *(b"half a line", b"\xff\n", b"x" * 3000),
            ]
        )
        try:
            if isinstance(one, ssl.SSLSocket) and one.version() is None:
                one.do_handshake()
            one.send(said)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            pass
        except OSError:
            self._drop(one)

    def read(self) -> None:
        """Read what has come, once."""
        one = self._one()
        if one is None:
            return
        try:
            if not one.recv(65536):
                self._drop(one)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            pass
        except OSError:
            self._drop(one)

    def leave(self) -> None:
        """End the own stream, close, or reset; over TLS without a word of it."""
        one = self._one()
        if one is None:
            return
        how = self._dice.randrange(3)
        if how == 0:
            with suppress(OSError):
                std.socket.shutdown(one, std.SHUT_WR)
            return
        if how == 1:
            with suppress(OSError):
                one.setsockopt(std.SOL_SOCKET, std.SO_LINGER, struct.pack("ii", 1, 0))
        self._drop(one)

    def server_side(self) -> None:
        """Have the service send to one or all, or close one."""
        here = list(self._service.here)
        if not here:
            return
        chosen = self._dice.choice(here)
        how = self._dice.randrange(4)
        if how == 0:
            chosen.close("enough")
        elif how == 1:
            self._server.broadcast("to all")
        elif how == 2:
            for _ in range(20):
                chosen.send(PUSH)
        else:
            chosen.send("hello")

    def _drop(self, one: std.socket) -> None:
        self.sockets.remove(one)
        one.close()

    def close(self) -> None:
        """All go."""
        for each in self.sockets:
            each.close()


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost; its key is beside it."""
    return certificate(tmp_path_factory.mktemp("certificate"), "server")


def rounds() -> Iterator[tuple[int, bool, float | None]]:
    """For each round its seed, whether it is over TLS, and how idle clients are kept."""
    for number in range(max(4, OPERATIONS // PER_ROUND)):
        yield number, number % 2 == 1, (0.0, None)[number // 2 % 2]


@pytest.mark.timeout(max(60, OPERATIONS // 300))
def test_each_that_came_goes_once(serve: Callable[..., Any], pem: Path) -> None:
    """Whatever happens, in whichever order, and when the server is stopped in the middle of it."""
    logging.getLogger("chat_gevent").setLevel(logging.CRITICAL)  # a traceback for each that fails as planned
    seen: Counter[str] = Counter()
    came = 0
    for seed, tls, park_after in rounds():
        dice = random.Random(seed)
        service = Ledger(seed)
        options: dict[str, Any] = (
            {"certfile": str(pem), "keyfile": str(pem.with_suffix(".key"))} if tls else {}
        )
        server = serve(
            service,
            park_after=park_after,
            idle="input",
            idle_timeout=0.5,
            handshake_timeout=0.5,
            write_timeout=0.5,
            linger_timeout=0.2,
            max_message_bytes=2000,
            outbox_bytes=200_000,
            keepalive_idle=0,
            **options,
        )
        context = None
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        crowd = Crowd(server, service, dice, context)
        for number in range(PER_ROUND):
            crowd.operate()
            if number % 8 == 0:
                gevent.sleep(0)
        for _ in range(5):
            crowd.connect()
        engine, core = server.core.engine, server.core
        silent = engine.tick + max(core.idle_ticks, core.opening_ticks, core.linger_ticks) + 1
        wait_until(lambda: engine.tick >= silent)  # noqa: B023 - who is silent now is swept
        for _ in range(50):
            crowd.operate()
        server.stop(dice.choice([0.0, 0.2, 2.0]))
        crowd.close()
        wait_until(lambda: server.core.registry.live == 0, what=f"seed {seed}: all are gone")  # noqa: B023
        assert service.wrong == [], f"seed {seed}"
        assert service.here == set(), f"seed {seed}"
        assert sum(service.reasons.values()) == service.came, f"seed {seed}"
        seen += service.reasons
        came += service.came
    print(f"{came:,} came and went: {dict(seen)}")
    assert seen.keys() >= REASONS
