"""Waking paced users: in order, on time, and past those that were killed meanwhile."""

from __future__ import annotations

import math
import statistics
from time import perf_counter

import gevent
import pytest

from loadtest.count.health import advice
from loadtest.run.alarm import Alarm
from tests.timing import seconds


@pytest.mark.parametrize("timerfd", [True, False])
def test_greenlets_wake_in_the_order_of_their_moments_and_none_early(timerfd: bool) -> None:
    """Whatever the order in which they went to sleep, and also where there is no timerfd."""
    gevent.get_hub().loop.update_now()  # it may not have run for minutes, and time-outs count from its clock
    alarm = Alarm(timerfd=timerfd)
    begin = perf_counter()
    woken: list[tuple[int, float]] = []

    def sleep(number: int) -> None:
        alarm.sleep_until(begin + number / 1000)
        woken.append((number, perf_counter() - begin - number / 1000))

    gevent.joinall([gevent.spawn(sleep, number) for number in (30, 10, 20, 40, -5)], timeout=5)
    assert [number for number, _ in woken] == [-5, 10, 20, 30, 40]
    assert all(late > -0.0001 for _, late in woken)


def test_waking_is_finer_than_the_milliseconds_of_the_loop() -> None:
    """Half of the wake-ups are less than 0.4 ms late, also beside other work on the machine."""
    alarm = Alarm()
    late = []
    for number in range(60):
        moment = perf_counter() + 0.0023 + number / 1e5
        alarm.sleep_until(moment)
        late.append(perf_counter() - moment)
    assert statistics.median(late) < seconds(0.0004)


def test_a_killed_sleeper_is_passed_over() -> None:
    """The others wake as if it had never been there."""
    alarm = Alarm()
    begin = perf_counter()
    first, second = (gevent.spawn(alarm.sleep_until, begin + after) for after in (0.02, 0.03))
    gevent.idle()  # both have begun to sleep
    first.kill()
    second.get(timeout=5)
    assert 0.03 <= perf_counter() - begin < seconds(0.5)


@pytest.mark.parametrize("timerfd", [True, False])
def test_nobody_is_woken_after_the_last_call(timerfd: bool) -> None:
    """Whose moment is after it sleeps on, whenever it lay down, until all are woken again."""
    alarm = Alarm(timerfd=timerfd)
    begin = perf_counter()
    due, late, unborn = (gevent.Greenlet(alarm.sleep_until, begin + after) for after in (0.01, 0.02, 0.03))
    due.start()
    late.start()
    gevent.idle()
    alarm.last_call(begin + 0.015)
    unborn.start()
    due.get(timeout=5)
    alarm.sleep_until(begin)  # the past is not after it
    gevent.joinall([late, unborn], timeout=0.1)
    assert (late.dead, unborn.dead, alarm.left_asleep) == (False, False, 2)
    alarm.last_call(math.inf)
    gevent.joinall([late, unborn], timeout=5, raise_error=True)
    assert (late.dead, unborn.dead, alarm.left_asleep) == (True, True, 0)


def test_what_cannot_fit_is_said_before_the_test() -> None:
    """Files of a process and ports of a source address, with what to do; nothing is said of what fits."""
    assert advice(100, 1, 1, 28_000) == []
    files, ports = advice(1_000_000, 2, 4, 28_000)
    assert "--processes" in files
    assert "give 36 addresses with --source-addresses" in ports
