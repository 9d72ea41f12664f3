"""Tapes for tests, as a script: ``C`` what a client sent, ``S`` what a server sent, a number a pause."""

from __future__ import annotations

import random

from loadtest.record.tape import Side, Tape


def tape_of(
    *script: tuple[str, bytes] | float, seed: int | None = None, ended_by: Side | None = "client"
) -> Tape:
    """The tape of what ``script`` says: 20 ms between sides, and the pauses given.

    With a ``seed`` each message comes in pieces of random sizes, as reads may return them.
    """
    tape = Tape()
    rng = random.Random(seed)
    now = 100.0
    for entry in script:
        if isinstance(entry, int | float):
            now += entry
            continue
        now += 0.02
        side: Side = "client" if entry[0] == "C" else "server"
        data = entry[1]
        while data:
            size = len(data) if seed is None else rng.randint(1, len(data))
            tape.add(side, data[:size], now)
            data = data[size:]
            now += rng.choice((0.0001, 0.03)) if seed is not None else 0.0
    if ended_by:
        tape.end(ended_by)
    return tape
