"""Figures in shared memory, between real processes: exact sums, killed and replaced workers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import pytest

from chat_gevent.command.shared import SharedFigures
from chat_gevent.command.snapshot import BackplaneFigures, HandlerFigures, ProcessFigures
from chat_gevent.confirm import ErrorCode
from tests.chat_gevent.command.figures import figures
from tests.operate import until

Share = Callable[[int], SharedFigures]


class Child:
    """A process that does ``work(step)`` for each byte it is sent, and says so; it has no event loop."""

    living: ClassVar[list[Child]] = []

    def __init__(self, work: Callable[[int], Any]) -> None:
        theirs, self._steps = os.pipe()
        self._done, their_done = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.close(self._steps)
                step = 0
                while os.read(theirs, 1):
                    step += 1
                    work(step)
                    os.write(their_done, b".")
            finally:
                os._exit(0)
        os.close(theirs)
        os.close(their_done)
        self.living.append(self)

    def step(self) -> None:
        """Have it work once."""
        os.write(self._steps, b".")
        assert os.read(self._done, 1) == b"."

    def kill(self) -> None:
        """End it at once, and wait for that."""
        self.living.remove(self)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._steps)
        os.close(self._done)


@pytest.fixture
def share() -> Iterator[Share]:
    """Makes shared figures, and closes them afterwards."""
    made = []

    def make(slots: int) -> SharedFigures:
        made.append(SharedFigures(slots))
        return made[-1]

    yield make
    for child in list(Child.living):  # a test that has failed
        child.kill()
    for each in made:
        each.close()


def worker(shared: SharedFigures, slot: int, messages: int = 0) -> Child:
    """A worker that answers ``messages`` more at each step, has three clients, and publishes."""

    def work(step: int) -> None:
        shared.open(slot)
        shared.publish(figures(messages=step * messages, connections=3, closed={f"reason-{slot}": step}))

    return Child(work)


def test_the_total_is_what_all_workers_counted(share: Share) -> None:
    """Four processes publish at their own pace: the sum is exact, and each one's figures are its own."""
    shared = share(4)
    slots = [shared.claim() for _ in range(4)]
    assert slots == [0, 1, 2, 3]
    children = [worker(shared, slot, 10**slot) for slot in slots]
    try:
        assert shared.total().messages == 0
        assert shared.read(0) is None
        for slot, child in enumerate(children):
            for _ in range(slot + 1):
                child.step()
        assert shared.total().messages == 4321
        assert shared.total().connections == 12
        assert shared.total().closed == {"reason-0": 1, "reason-1": 2, "reason-2": 3, "reason-3": 4}
        assert [each.figures.messages for each in shared.collect()[0]] == [1, 20, 300, 4000]
        assert [each.pid for each in shared.collect()[0]] == [child.pid for child in children]
        found = shared.read(2)
        assert found is not None
        assert found.messages == 300
    finally:
        for child in children:
            child.kill()


def test_a_worker_that_was_killed_leaves_its_counts_and_nothing_else(share: Share) -> None:
    """What it published last stays in the sum, before and after its slot is free; its clients do not."""
    shared = share(2)
    first, second = (worker(shared, shared.claim(), 100) for _ in range(2))
    first.step()
    second.step()
    second.step()
    second.kill()
    assert (shared.total().messages, shared.total().connections) == (300, 6)
    shared.release(1)
    assert (shared.total().messages, shared.total().connections) == (300, 3)
    assert [each.worker for each in shared.collect()[0]] == [0]
    first.kill()
    shared.release(0)
    assert (shared.total().messages, shared.total().connections) == (300, 0)


def test_a_successor_counts_on(share: Share) -> None:
    """A slot has many workers one after the other; total and the slot's own count never begin anew."""
    shared = share(2)
    for life in range(1, 6):
        slot = shared.claim()
        assert slot == 0
        before = shared.total().messages
        child = worker(shared, slot, 7)
        assert shared.total().messages == before
        child.step()
        assert shared.total().messages == 7 * life
        (known,) = shared.collect()[0]
        assert (known.messages, known.figures.messages) == (7 * life, 7)
        child.kill()
        shared.release(slot)
    assert shared.total().messages == 35


def test_one_that_never_published_leaves_nothing(share: Share) -> None:
    """A worker that dies at once takes nothing from the sum, and does not count for the one before it."""
    shared = share(1)
    child = worker(shared, shared.claim(), 5)
    child.step()
    child.kill()
    shared.release(0)
    worker(shared, shared.claim()).kill()
    shared.release(0)
    assert shared.total().messages == 5
    assert shared.collect()[0] == []


def test_there_are_so_many_slots(share: Share) -> None:
    """One more than there are is an error; a slot that was freed can be had again."""
    shared = share(2)
    assert [shared.claim(), shared.claim()] == [0, 1]
    with pytest.raises(RuntimeError, match="all 2 slots are taken"):
        shared.claim()
    shared.release(0)
    assert shared.claim() == 0


def test_the_largest_figures_fit_with_room_to_spare(share: Share) -> None:
    """Counts of 2**63 everywhere, all known reasons and as many again: half of the room is enough."""
    most = 2**63
    codes: dict[str, int] = dict.fromkeys(ErrorCode, most)
    reasons = {f"a-reason-of-some-length-{number}": most for number in range(50)}
    names = (
        "connections",
        "connections_limit",
        "accepted",
        "messages",
        "received_bytes",
        "sent_bytes",
        "pushes",
    )
    more = (
        "pushes_dropped",
        "queued_bytes",
        "broadcasts",
        "workers_busy",
        "workers_free",
        "log_lines_dropped",
    )
    full = figures(
        **dict.fromkeys(names + more, most),
        refused=codes,
        errors=codes,
        closed=reasons,
        lag_counts=(most,) * 12,
        handler=HandlerFigures(most, 1 / 3, most),
        backplane=BackplaneFigures(True, most, most, most),
        process=ProcessFigures(1 / 3, most, most, most),
    )
    shared = share(64)
    for slot in range(64):
        assert shared.claim() == slot
        shared.open(slot)
        shared.publish(full)
    assert shared.total().messages == 64 * most
    for slot in range(64):
        shared.release(slot)
    assert shared.total().messages == 64 * most
    with pytest.raises(ValueError, match="there is room for"):
        shared.publish(figures(closed={f"{number:0100}": 1 for number in range(100)}))


def test_no_counter_goes_back_while_workers_die_and_are_replaced(share: Share) -> None:
    """One thread reads without pause; workers publish, are killed at any moment, freed and replaced."""
    shared = share(3)
    ended = threading.Event()
    wrong: list[Any] = []
    reads = [0]

    def scrape() -> None:
        last = (0, 0.0, 0)
        slots = [0, 0, 0]
        while not ended.is_set():
            living, total = shared.collect()
            now = (total.messages, total.lag_seconds, sum(total.closed.values()))
            if any(new < old for new, old in zip(now, last, strict=True)):
                wrong.append((last, now))
            for each in living:
                if each.messages < slots[each.worker]:
                    wrong.append((each.worker, slots[each.worker], each.messages))
                slots[each.worker] = each.messages
            last = now
            reads[0] += 1

    def busy(slot: int) -> Callable[[int], None]:
        def work(_: int) -> None:
            shared.open(slot)
            count = 0
            while True:
                count += 1
                shared.publish(figures(messages=count, lag_seconds=count / 7, closed={"exit": count}))

        return work

    def read_again(seen: int) -> bool:
        return reads[0] > seen + 1

    thread = threading.Thread(target=scrape)
    thread.start()
    lives = 0
    try:
        for _ in range(15):
            slots = [shared.claim() for _ in range(3)]
            children = [Child(busy(slot)) for slot in slots]
            for slot, child in zip(slots, children, strict=True):
                os.write(child._steps, b".")
                until(partial(shared.read, slot))
            for slot, child in zip(slots, children, strict=True):
                child.kill()
                seen = reads[0]
                until(partial(read_again, seen))  # between the death and the release, too
                shared.release(slot)
                lives += 1
    finally:
        ended.set()
        thread.join()
    assert not wrong
    assert reads[0] > lives


def test_the_duty_is_one_process_s_and_is_handed_over_when_it_dies(share: Share) -> None:
    """Of all that ask, the first has the duty until its process ends; then another has it."""
    shared = share(2)
    held, answers = os.pipe()

    def ask(_: int) -> None:
        os.write(answers, b"y" if shared.has_duty() else b"n")

    first, second = Child(ask), Child(ask)
    first.step()
    first.step()
    second.step()
    assert os.read(held, 3) == b"yyn"
    first.kill()
    second.step()
    assert os.read(held, 1) == b"y"
    second.kill()


def test_the_history_goes_on_in_another_process(share: Share) -> None:
    """A sample that a process wrote before it was killed is the base of the next one's rate."""
    shared = share(1)
    child = Child(lambda step: shared.history.add(1000.0 + step, figures(messages=10 * step)))
    child.step()
    child.step()
    child.kill()
    shared.history.add(1003.0, figures(messages=60))
    rows = shared.history.rows(1003.5)
    assert [row[5] for row in rows] == [10, 20, 60]
