"""Workers of one server that ask each other: for fresh figures, for clients.

Each worker has a mailbox, a pair of datagram sockets that the master made before it started any worker. Who
asks makes a stream of its own for the answer, and sends one end of it along with the question. So answers are
as long as they like, can't be taken for those to others, and end at once when the worker that answers dies.

There is no file: nobody else can connect to such sockets, so there are no permissions to set, nothing is left
behind when the master is killed, and a file system that can't be written to is no hindrance.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import time
from array import array
from collections.abc import Callable, Iterable
from typing import Any, Final

import gevent
import gevent.socket
from gevent.pool import Pool

ASK_SECONDS: Final = 0.3
"""How long those who are asked have to answer."""

MOST_QUESTION_BYTES: Final = 4096
MOST_AT_ONCE: Final = 16
"""Most questions that a worker is answering."""

log = logging.getLogger("chat_gevent")


class Mailboxes:
    """One for each slot. Made by the master, without an event loop. Raises OSError."""

    def __init__(self, slots: int) -> None:
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        try:
            for _ in range(slots):
                pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
                self.pairs.append(pair)
                for each in pair:
                    each.setblocking(False)
        except OSError:
            self.close()
            raise

    @property
    def kept(self) -> int:
        """How many files a worker keeps of them: where all are asked, and where it reads itself."""
        return len(self.pairs) + 1 if self.pairs else 0

    def keep(self, slot: int) -> None:
        """Close what a worker in ``slot`` has no use for: where the others read."""
        for number, (inbox, _) in enumerate(self.pairs):
            if number != slot:
                inbox.close()

    def close(self) -> None:
        """Close them, for this process."""
        for pair in self.pairs:
            for each in pair:
                each.close()


class Peers:
    """The other workers, as the one in ``slot`` sees them.

    :param answer: from a question of another to the answer, both of which JSON knows.
    """

    def __init__(self, mailboxes: Mailboxes, slot: int, answer: Callable[[Any], Any]) -> None:
        self._mailboxes = mailboxes
        self._slot = slot
        self._answer = answer
        self._pool = Pool(MOST_AT_ONCE)
        self._listening: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        """Answer the others from now on. What was asked of an earlier worker in the slot is dropped."""
        inbox = self._mailboxes.pairs[self._slot][0]
        with contextlib.suppress(BlockingIOError):
            while True:
                for fd in socket.recv_fds(inbox, MOST_QUESTION_BYTES, 1)[1]:
                    os.close(fd)
        self._listening = gevent.spawn(self._listen, inbox)

    def stop(self) -> None:
        """Answer no more."""
        if self._listening is not None:
            self._listening.kill()
        self._pool.kill()

    def _listen(self, inbox: socket.socket) -> None:
        while True:
            gevent.socket.wait_read(inbox.fileno())
            try:
                question, fds, _, _ = socket.recv_fds(inbox, MOST_QUESTION_BYTES, 1)
            except BlockingIOError:
                continue
            except OSError as error:  # no descriptor is free, maybe
                log.debug("a question of another worker was lost: %s", error)
                continue
            for fd in fds:
                self._pool.spawn(self._reply, question, gevent.socket.socket(fileno=fd))

    def _reply(self, question: bytes, stream: Any) -> None:
        try:
            stream.settimeout(ASK_SECONDS)
            stream.sendall(json.dumps(self._answer(json.loads(question))).encode())
        except OSError as error:  # it waits no longer
            log.debug("an answer to another worker was lost: %s", error)
        finally:
            stream.close()

    def ask(self, question: Any, slots: Iterable[int], seconds: float | None = None) -> dict[int, Any]:
        """Ask the workers in these slots, all at once; the answers that came within ``seconds``, by slot.

        Without ``seconds`` these are :data:`ASK_SECONDS`.
        """
        deadline = time.monotonic() + (ASK_SECONDS if seconds is None else seconds)
        asked = {slot: gevent.spawn(self._ask, question, slot, deadline) for slot in slots}
        gevent.joinall(list(asked.values()))
        return {slot: each.value[0] for slot, each in asked.items() if each.value is not None}

    def _ask(self, question: Any, slot: int, deadline: float) -> tuple[Any] | None:
        data = b""
        try:
            mine, theirs = gevent.socket.socketpair()
            with mine:
                with theirs:
                    outbox = self._mailboxes.pairs[slot][1]
                    fds = array("i", [theirs.fileno()])
                    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]
                    outbox.sendmsg([json.dumps(question).encode()], ancillary)
                while True:
                    mine.settimeout(max(0.001, deadline - time.monotonic()))
                    if not (more := mine.recv(65536)):
                        break
                    data += more
            return (json.loads(data),)
        except (OSError, ValueError) as error:  # its mailbox is full, it is late, or it died as it answered
            log.debug("worker %d did not answer: %s", slot, error)
            return None
