"""From a seed to a world and all that happens in it. Pure: the same seed makes the same plan for ever."""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random
from typing import Any

from tests.faults.simulation.sockets import Fault
from tests.faults.simulation.world import SLOTS, Operation, Plan

LENGTH = 300
"""Operations of a world."""

KINDS = ("confirm", "auto", "chunk", "handler", "service", "service")

LINES = [
    b"a\n", b"\n", b"one\ntwo\n", b"half", b"\r\n", b"\r", b"\xc3", b"\xa9\n", "zwölf 🐍\n".encode(),
    b"\xff\n", b"x" * 25, b"y" * 38 + b"\n", b"line\n" * 9, b"a/b\n", b"tail\nbegin", b"l\n" * 40,
]  # fmt: skip
WORDS = [
    b"wait\n", b"nap\n", b"doze\n", b"none\n", b"fail\n", b"die\n", b"wait\nafter\n", b"nap\n" * 3,
    b"push\n", b"cast\n", b"join\n", b"group\n", b"cast\npush\nx\n",
]  # fmt: skip
LAST = [b"/exit\n", b" /EXIT\r\nnot this\n", b"z" * 70, b"close\nnot this\n", b"last\n", b"b\nlast\nc\n"]
TEXTS = [b"a", b"hello", b"twelve ", b"word\n", b"many words", b"x" * 70, b"line\n" * 8]

ERRORS = (errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.ENOBUFS, errno.ENOMEM, errno.EHOSTUNREACH)


def plan(seed: int) -> Plan:
    """The world of a seed."""
    rng = Random(seed)
    kind = rng.choice(KINDS)
    words = kind in ("handler", "service")
    settings: dict[str, Any] = {
        "max_message_bytes": 100_000 if kind in ("auto", "chunk") else 40,
        "park_after": rng.choice((0.0, 0.0, 0.0, None)),
        "idle_timeout": rng.choice((4.0, 30.0)),
        "linger_timeout": 2.0,
        "write_timeout": rng.choice((3.0, 30.0)),
        "handshake_timeout": 5.0,
        "outbox_bytes": rng.choice((30, 400)),
        "outbox_total_bytes": rng.choice((60, 4000)),
        "input_total_bytes": rng.choice((0, 60, 10000)),
        "slow_consumer": rng.choice(("close", "drop-newest")),
        "spare_greenlets": rng.choice((1, 3)),
        "max_connections_per_address": rng.choice((0, 0, 2)),
        "message_rate": rng.choice((0.0, 0.0, 0.0, 3.0)),
        "min_read_rate": rng.choice((0.0, 0.0, 20.0)),
    }
    spawn = rng.random() < 0.15
    faulty = rng.random() < 0.7
    weights = dict(_WEIGHTS)
    if not faulty:
        for each in ("arm", "vanish", "kill", "short_of"):
            weights[each] = 0
    if rng.random() < 0.5:
        weights["pass"] = weights["drain"] = 0
    for each in weights:
        weights[each] *= rng.choice((0, 1, 1, 1, 3)) if each not in ("run", "connect", "send") else 1
    names = list(weights)
    chosen = rng.choices(names, [weights[name] for name in names], k=LENGTH)
    texts = TEXTS if kind in ("auto", "chunk") else LINES + WORDS + WORDS if words else LINES
    operations = [_connect(rng, texts) for _ in range(3)]
    operations += [_MAKERS[name](rng, texts) for name in chosen]
    return Plan(kind, spawn, settings, operations, rng.choice((1000, 1000, 2)))


def _connect(rng: Random, _: Any) -> Operation:
    room, window = rng.choice((12, 40, 200, 2000)), rng.choice((10, 40, 300))
    greeting = rng.choice(("", "", "", "hello", "nap", "wait", "refuse", "fail"))
    return "connect", rng.randrange(SLOTS), f"10.0.0.{rng.randrange(2)}", room, window, greeting


def _send(rng: Random, texts: list[bytes]) -> Operation:
    return "send", rng.randrange(SLOTS), rng.choice(texts)


def _last(rng: Random, texts: list[bytes]) -> Operation:
    return "send", rng.randrange(SLOTS), rng.choice(texts if texts is TEXTS else LAST)


def _happening(rng: Random, texts: list[bytes]) -> tuple[str, bytes, int]:
    deed = rng.choice(("arrive", "arrive", "arrive", "take", "take", "fin", "reset", "urgent"))
    return deed, rng.choice(texts), rng.choice((5, 40, 1000))


def _arm(rng: Random, texts: list[bytes]) -> Operation:
    call = rng.choice(("recv", "recv", "send", "send", "shutdown"))
    if rng.random() < 0.15:
        fault = Fault("before", "error", b"", rng.choice(ERRORS))
    else:
        fault = Fault(rng.choice(("before", "after")), *_happening(rng, texts))
    return "arm", rng.randrange(SLOTS), call, fault


def _vanish(rng: Random, _: Any) -> Operation:
    return "fault", rng.randrange(SLOTS), Fault("", rng.choice(("reset", "lose")))


def _group(rng: Random) -> str | None:
    return rng.choice((None, None, "a", "b"))


_MAKERS: dict[str, Callable[[Random, list[bytes]], Operation]] = {
    "connect": _connect,
    "send": _send,
    "last": _last,
    "arm": _arm,
    "vanish": _vanish,
    "fin": lambda rng, _: ("fault", rng.randrange(SLOTS), Fault("", "fin")),
    "urgent": lambda rng, _: ("fault", rng.randrange(SLOTS), Fault("", "urgent")),
    "read": lambda rng, _: ("read", rng.randrange(SLOTS), rng.choice((3, 20, 5000))),
    "room": lambda rng, _: ("room", rng.randrange(SLOTS), rng.choice((5, 100))),
    "run": lambda rng, _: ("run", rng.randrange(60)),
    "turn": lambda rng, _: ("turn",),
    "quiet": lambda rng, _: ("quiet",),
    "pass": lambda rng, _: ("pass", rng.choice((0.01, 0.15, 1.0, 3.0))),
    "gate": lambda rng, _: ("gate", rng.randrange(SLOTS)),
    "kill": lambda rng, _: ("kill", rng.randrange(SLOTS)),
    "push": lambda rng, _: ("push", rng.randrange(SLOTS)),
    "broadcast": lambda rng, _: ("broadcast", _group(rng), rng.choice((None, rng.randrange(SLOTS)))),
    "join": lambda rng, _: ("join", rng.randrange(SLOTS), rng.choice("ab")),
    "leave": lambda rng, _: ("leave", rng.randrange(SLOTS), rng.choice("ab")),
    "close": lambda rng, _: ("close", rng.randrange(SLOTS), rng.random() < 0.5),
    "short_of": lambda rng, _: ("short_of", rng.choice(("watches", "accepts")), rng.randrange(1, 4)),
    "drain": lambda rng, _: ("drain", rng.choice((0.0, 0.5, 5.0))),
    "hurry": lambda rng, _: ("hurry",),
}

_WEIGHTS = {
    "connect": 12, "send": 45, "last": 3, "arm": 12, "vanish": 2, "fin": 3, "urgent": 2, "read": 20,
    "room": 3, "run": 120, "turn": 12, "quiet": 4, "pass": 6, "gate": 8, "kill": 2, "push": 10,
    "broadcast": 6, "join": 4, "leave": 2, "close": 2, "short_of": 1, "drain": 0.3, "hurry": 0.3,
}  # fmt: skip
