"""The limit of clients per address over several processes, with the memory that they share."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from chat_gevent.command.shared_places import SharedPlaces

fork = multiprocessing.get_context("fork")

STEPS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 90), st.booleans()), max_size=400)


@given(STEPS)
def test_it_counts_as_one_counter_would(steps: list[tuple[int, int, bool]]) -> None:
    """Whatever three workers take and give back, an address has as many places as in a simple model, and an
    entry that is removed never hides another."""
    places = SharedPlaces(3, 3, 100)
    taken: Counter[tuple[int, str]] = Counter()
    for slot, number, takes in steps:
        places.open(slot)
        host = f"192.0.2.{number}"
        total = sum(taken[each, host] for each in range(3))
        if takes:
            assert places.full(host) is (total >= 3)
            assert places.take(host) is (total < 3)
            taken[slot, host] += total < 3
        elif taken[slot, host]:
            places.give_back(host)
            taken[slot, host] -= 1
    for number in range(91):
        host = f"192.0.2.{number}"
        assert places.full(host) is (sum(taken[each, host] for each in range(3)) >= 3)


def test_it_says_how_many_clients_have_room() -> None:
    """So many of them get a place, each with an address of its own; it has room for those it was made for."""
    for clients in (1, 100, 1000):
        places = SharedPlaces(1, 2, clients)
        places.open(1)
        assert clients <= places.most_clients < 10 * max(256, clients)
        assert all(places.take(f"192.0.2.{number}") for number in range(places.most_clients))


def test_what_a_dead_worker_had_taken_is_free_again() -> None:
    """Only its own: what others have taken stays taken."""
    places = SharedPlaces(2, 2, 10)
    for slot in range(2):
        places.open(slot)
        assert places.take("2001:db8::/64")
    assert places.full("2001:db8::/64")
    places.release(0)
    assert places.take("2001:db8::/64")
    assert not places.take("2001:db8::/64")


def test_many_processes_never_take_more_than_there_is() -> None:
    """Four processes that take and give back as fast as they can see no more than two taken at a time: what
    is taken twice over is seen by a count of their own that each holds meanwhile."""
    places = SharedPlaces(2, 4, 10)
    inside = fork.Value("i", 0)
    most = fork.Value("i", 0)

    def work(slot: int) -> None:
        places.open(slot)
        for _ in range(3000):
            if places.take("192.0.2.1"):
                with inside.get_lock():
                    inside.value += 1
                    most.value = max(most.value, inside.value)
                with inside.get_lock():
                    inside.value -= 1
                places.give_back("192.0.2.1")

    workers = [fork.Process(target=work, args=(slot,)) for slot in range(4)]
    for each in workers:
        each.start()
    for each in workers:
        each.join(30)
    assert [each.exitcode for each in workers] == [0] * 4
    assert 1 <= most.value <= 2
    assert places.take("192.0.2.1")


def test_the_lock_is_free_once_its_holder_is_killed() -> None:
    """A worker that dies in the middle of a change holds up nobody."""
    places = SharedPlaces(1, 2, 10)
    holds, told = fork.Pipe()

    def hold() -> None:
        places.open(1)
        with places._locked():
            told.send("holding")
            signal.pause()

    holder = fork.Process(target=hold)
    holder.start()
    assert holds.poll(30)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join(30)
    places.open(0)
    assert places.take("192.0.2.1")
