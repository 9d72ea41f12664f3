"""Greenlets that are leased to connections: as many as are busy right now.

A **worker** is a greenlet that serves one connection after the other. :meth:`Leases.lease` has one serve all
that is due. A worker that blocks (a handler that sleeps, a client that is slow to read) keeps its
connection: the hub is back before all are served, and puts the next worker on the rest. So a greenlet is
needed for each connection that is busy, and a switch is paid for a turn, not for a message.

A free worker waits for the next lease; what was needed for a burst ends once it is over. A greenlet that
waits for its connection's input is resumed here too, at the end of the turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import length_hint
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet


class Leases:
    """The workers of an engine.

    :param hub: gevent's.
    :param spare: free workers kept for the next burst.
    :param resident: whether a connection keeps its greenlet.
    :param shares: whether workers are used up by what a handler leaves in them.
    """

    def __init__(self, hub: Any, spare: int, *, resident: bool, shares: bool) -> None:
        self.hub = hub
        self._spare = spare
        self._resident = resident
        self._shares = shares
        self._turn: Iterator[tuple[Any, int]] = iter(())
        self._free: list[greenlet] = []
        self._workers = 0
        self._resume: list[tuple[greenlet, int]] = []

    def lease(self, due: Iterable[tuple[Any, int]]) -> None:
        """Have workers serve what is due, and resume the greenlets whose input has come. In the hub."""
        self._turn = turn = iter(due)
        while length_hint(turn):  # again, where a worker has blocked before the end
            (self._free.pop() if self._free else self._new_worker()).switch()
        while self._resume:
            resume, self._resume = self._resume, []
            for waiter, event in resume:
                waiter.switch(event)

    def resume(self, waiter: greenlet, event: int) -> None:
        """Have the hub switch into a greenlet that waits for input, at the end of this turn.

        Only for what is served in a turn; :meth:`chat_gevent.stream.Stream.end_wait` is for all others.
        """
        self._resume.append((waiter, event))

    def _new_worker(self) -> greenlet:
        self._workers += 1
        return greenlet(self._work, self.hub)

    def _work(self) -> None:
        """What a worker does: serve whatever is left of the turn, wait on the free list, and again."""
        me = getcurrent()
        free, wait = self._free, self.hub.switch
        resident, shares = self._resident, self._shares
        try:
            while True:
                for connection, event in self._turn:
                    connection.serve(event, resident)
                    if shares:
                        # What the handler left in this greenlet must not be leased to the next client:
                        # gevent.local keeps its values by greenlet, and context variables live in it.
                        if me.__dict__:
                            return
                        me.gr_context = None
                free.append(me)
                if wait() is False:
                    return
        except GreenletExit:
            pass
        except BaseException as error:  # noqa: BLE001 - nothing may escape into the hub; it decides
            self.hub.handle_error(self, type(error), error, error.__traceback__)
        finally:
            self._workers -= 1
            if me in free:  # what a handler left, such as a timer that runs, has ended it while it was free
                free.remove(me)

    # -- how many ----------------------------------------------------------------------------------

    @property
    def free(self) -> int:
        """Workers that wait for a connection to serve."""
        return len(self._free)

    @property
    def leased(self) -> int:
        """Workers that serve a connection: busy in a handler or a send, or resident."""
        return self._workers - len(self._free)

    def end_spare(self) -> None:
        """End the free workers that nobody needs now. In the hub.

        In bulk, and only when nearly all are free: those that end one by one among living ones leave holes
        in the address space, and each hole counts against ``vm.max_map_count``.
        """
        if self.leased <= self._spare:
            self.end(len(self._free) - self._spare)

    def end(self, count: int) -> None:
        """End ``count`` free workers. In the hub, which is where an ended worker returns to."""
        for _ in range(min(count, len(self._free))):
            self._free.pop(0).switch(False)
