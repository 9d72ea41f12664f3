"""The ring of the last ten minutes: rates from counters, seconds left out, and bounded memory."""

from __future__ import annotations

import time
from typing import Any

from chat_gevent.command import history
from chat_gevent.command.history import GAUGES, RATES, SECONDS, History
from tests.chat_gevent.command.figures import figures
from tests.operate import until


def test_rates_are_made_from_counters_that_follow_each_other() -> None:
    """Gauges are told as they were, counters as what they grew by in a second; the first has no rate."""
    ring, now = History(), float(int(time.monotonic()))
    for back, messages, pushes, refused, closed in ((2, 100, 7, 1, 4), (1, 150, 7, 3, 5), (0, 250, 17, 3, 9)):
        ring.add(
            now - back,
            figures(
                connections=10 + back,
                queued_bytes=back,
                messages=messages,
                pushes=pushes,
                refused={"server-full": refused - 1, "address-full": 1},
                closed={"exit": closed},
                lag_p50=0.001,
                lag_p99=0.002,
            ),
        )
    assert ring.series()["series"] == {
        "connections": [12, 11, 10],
        "queued_bytes": [2, 1, 0],
        "loop_lag_p50_seconds": [0.001] * 3,
        "loop_lag_p99_seconds": [0.002] * 3,
        "messages_per_second": [None, 50, 100],
        "pushes_per_second": [None, 0, 10],
        "refused_per_second": [None, 2, 0],
        "closed_per_second": [None, 1, 4],
    }


def test_a_second_that_was_left_out_has_the_mean_with_the_next() -> None:
    """Values stay a second apart, and no message is lost from the sum, when the loop was held for long."""
    ring, now = History(), float(int(time.monotonic()))
    ring.add(now - 4, figures(messages=0))
    ring.add(now - 3, figures(messages=10))
    ring.add(now, figures(messages=70, connections=5))
    found = ring.series()["series"]
    assert found["messages_per_second"] == [None, 10, 20, 20, 20]
    assert found["connections"] == [0, 0, 5, 5, 5]


def test_only_what_is_new_is_told_to_who_has_the_rest() -> None:
    """With the time of the newest value that is known, none comes twice and none is left out."""
    ring, now = History(), float(int(time.monotonic()))
    for back in (3, 2):
        ring.add(now - back, figures(messages=10 * (10 - back)))
    first = ring.series()
    assert ring.series(first["newest"])["series"]["messages_per_second"] == []
    assert ring.series(first["newest"])["newest"] == first["newest"]
    for back in (1, 0):
        ring.add(now - back, figures(messages=10 * (10 - back)))
    second = ring.series(first["newest"])
    assert second["series"]["messages_per_second"] == [10, 10]

    def newest_is_now() -> bool:  # in the end: of two clocks one may be read much later than the other
        newest: float = ring.series(first["newest"])["newest"]
        return abs(newest - (time.time() - time.monotonic() + now)) < 0.1

    until(newest_is_now)


def test_what_is_older_than_ten_minutes_is_overwritten() -> None:
    """After any time there are 600 seconds at most, the newest ones, in the same memory."""
    memory = bytearray(history.BYTES)
    ring, now = History(memoryview(memory)), float(int(time.monotonic()))
    for second in range(1, 2_000):
        ring.add(now - 2_000 + second, figures(messages=second * second))
    found = ring.series()["series"]
    assert {len(found[name]) for name in (*GAUGES, *RATES)} == {SECONDS}
    assert found["messages_per_second"][-1] == 1_999**2 - 1_998**2
    assert None not in found["messages_per_second"]


def test_a_ring_in_memory_is_continued_by_another() -> None:
    """Who takes over needs nothing but the memory; the second of the change has its rate too."""
    memory, now = bytearray(history.BYTES), float(int(time.monotonic()))
    History(memoryview(memory)).add(now - 1, figures(messages=5))
    other = History(memoryview(memory))
    other.add(now, figures(messages=9))
    assert other.series()["series"]["messages_per_second"] == [None, 4]


def test_a_row_that_is_half_written_is_not_shown() -> None:
    """A process that is killed while it writes a sample leaves a second out, and no wrong value."""
    ring, now = History(), float(int(time.monotonic()))
    ring.add(now - 2, figures(messages=100))
    ring.add(now - 1, figures(messages=200))

    class Killed(Exception):
        pass

    class Fatal(dict[str, int]):
        def values(self) -> Any:
            raise Killed

    try:
        ring.add(now, figures(messages=300, refused=Fatal()))
    except Killed:
        pass
    ring._cells[int(now) % (SECONDS + 2) * 9 + 1] = 77.0
    assert ring.series()["series"]["messages_per_second"] == [None, 100]
    ring.add(now, figures(messages=400))
    assert ring.series()["series"]["messages_per_second"] == [None, 100, 200]
