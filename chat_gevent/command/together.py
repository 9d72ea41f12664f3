"""What the admin pages of any worker show of all of them.

Each worker publishes its figures into shared memory once a second, and when another asks for them
(:mod:`chat_gevent.command.shared`). A worker that does not answer in time, because a handler holds its loop,
stands with what it published last; its clients are left out of the lists, and it is named as silent.

One of the workers, whichever asked first and lives, writes the history of all.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from heapq import nlargest
from operator import itemgetter
from typing import Any, Final

import gevent

from chat_gevent.command.overview import Overview, Top
from chat_gevent.command.paced import Paced
from chat_gevent.command.peers import Peers
from chat_gevent.command.shared import SharedFigures
from chat_gevent.command.snapshot import Snapshot, Watched
from chat_gevent.command.total import WorkerFigures
from chat_gevent.core import Core

IDS_PER_WORKER: Final = 2**32
"""A client's id is its id in its worker, and so many times the worker's number: JavaScript can hold it."""

HALF_A_SECOND: Final = 0.5
"""How long after its own sample the sum is taken: all workers publish at the full second, or soon after."""

MOST_ID: Final = IDS_PER_WORKER - 1
MOST_TOP: Final = 10


class Together(Overview):
    """The figures of all workers, as the one in ``slot`` of ``shared`` sees them."""

    many = True

    def __init__(self, watched: Watched, core: Core, shared: SharedFigures, slot: int) -> None:
        super().__init__(watched, core)
        self._shared = shared
        self._slot = slot
        self.history = shared.history
        self.started = shared.started
        self._peers = Peers(shared.mailboxes, slot, self._answer)
        self._publishing: Paced[None, None] = Paced(lambda _: self.publish())
        shared.open(slot)

    def start(self) -> None:
        """Publish, and answer the other workers, from now on."""
        self.publish()
        self._peers.start()
        super().start()

    def stop(self) -> None:
        """Publish a last time, and answer no more: what is counted after this is lost."""
        super().stop()
        self._peers.stop()
        self.publish()

    def publish(self) -> None:
        """Let the others know the figures of this worker as they are now."""
        self._publish(self.own())

    def _publish(self, figures: Snapshot) -> None:
        self._shared.publish(
            figures,
            ready=not self.watched.draining,
            messages_per_second=self._messages_per_second,
            draining_since=self._draining_since,
        )

    def keep(self, figures: Snapshot) -> None:
        """Publish a sample of this worker, and take one of all if that is this worker's duty."""
        self._publish(figures)
        if self._shared.has_duty():
            gevent.sleep(HALF_A_SECOND)
            super().keep(self._shared.total())

    def _others(self) -> list[int]:
        return [each.worker for each in self._shared.collect()[0] if each.worker != self._slot]

    # -- what the pages ask --------------------------------------------------------------------------

    def refresh(self) -> None:
        """Have the others publish, and wait for those that do so in time."""
        self._peers.ask({"ask": "figures"}, self._others())

    def snapshot(self) -> Snapshot:
        """The sum over all workers, those gone included."""
        self.publish()
        return self._shared.total()

    def workers(self) -> list[WorkerFigures]:
        """The figures of each worker, as they were published last."""
        return self._shared.collect()[0]

    def readiness(self) -> tuple[bool, str]:
        """Whether any worker takes new clients, and how many do."""
        if self.watched.draining:  # which the others may do too, and not have told yet
            self.refresh()
        others = [each.ready for each in self.workers() if each.worker != self._slot]
        serving = sum(others) + (not self.watched.draining)
        word = "ready" if serving else "draining"
        return bool(serving), f"{word}: {serving} of {len(others) + 1} workers serve"

    def clients(self, after: int, limit: int) -> dict[str, Any]:
        """A page of the clients of all workers, in the order of workers and of their ids.

        ``silent`` are the workers that did not answer in time: their clients are in ``total`` only.
        """
        known = {each.worker: each.figures.connections for each in self.workers()} | {self._slot: 0}
        pages = self._pages(known, MOST_ID, 1)
        silent = {worker for worker in known if worker not in pages}
        total = sum(pages[each]["total"] if each in pages else known[each] for each in known)
        clients: list[dict[str, Any]] = []
        following = None
        first, first_after = divmod(after, IDS_PER_WORKER) if after >= 0 else (0, -1)
        for worker in sorted(each for each in known if each >= first and each not in silent):
            room = limit - len(clients)  # without any left, one client is enough to know that there are more
            page = self._pages([worker], first_after if worker == first else -1, max(1, room)).get(worker)
            if page is None:
                silent.add(worker)
            elif not room and page["clients"]:
                following = clients[-1]["id"]
            else:
                clients += map(partial(_of_worker, worker), page["clients"])
                following = clients[-1]["id"] if page["next"] is not None else None
            if following is not None:
                break
        return {"total": total, "next": following, "clients": clients, "silent": sorted(silent)}

    def _pages(self, workers: Collection[int], after: int, limit: int) -> dict[int, dict[str, Any]]:
        """A page of each of these workers' own clients, of those that answer in time."""
        question = {"ask": "clients", "after": after, "limit": limit}
        found = self._peers.ask(question, [each for each in workers if each != self._slot])
        if self._slot in workers:
            found[self._slot] = self.watched.clients(after, limit)
        return found

    def top(self) -> Top:
        """The busiest and the slowest clients of all workers; waits for them as :meth:`refresh` does."""
        answers = self._peers.ask({"ask": "top"}, self._others())
        answers[self._slot] = super().top()
        merged: list[list[dict[str, Any]]] = [[], []]
        for worker, lists in answers.items():
            for found, into in zip(lists, merged, strict=True):
                into += map(partial(_of_worker, worker), found)
        busiest, slowest = merged
        return (
            nlargest(MOST_TOP, busiest, itemgetter("messages_per_second")),
            nlargest(MOST_TOP, slowest, itemgetter("due_bytes")),
        )

    # -- what other workers ask ----------------------------------------------------------------------

    def _answer(self, question: dict[str, Any]) -> Any:
        if question["ask"] == "figures":
            self._publishing.get(None)
            return True
        if question["ask"] == "clients":
            return self.watched.clients(question["after"], question["limit"])
        return super().top()


def _of_worker(worker: int, client: dict[str, Any]) -> dict[str, Any]:
    """A client as its worker tells of it, with an id that no client of another worker has."""
    return {**client, "id": worker * IDS_PER_WORKER + client["id"], "worker": worker}
