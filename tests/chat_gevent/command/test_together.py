"""The admin pages of several workers: real processes with a core each, which share figures and one port."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.operate import exchange, rest, until

ROOT = Path(__file__).parents[3]


class Workers:
    """A master and its workers: of each its slot, its process id and its port."""

    def __init__(self, count: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chat_gevent.command.forked_workers", str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        self.admin_port = int(self._line("admin")[0])
        self.pids: dict[int, int] = {}
        self.ports: dict[int, int] = {}
        for _ in range(count):
            self._started()

    def _line(self, word: str) -> list[str]:
        assert self.process.stdout is not None
        words = self.process.stdout.readline().split()
        assert words[0] == word
        return words[1:]

    def _started(self) -> int:
        slot, pid, port = map(int, self._line("worker"))
        self.pids[slot], self.ports[slot] = pid, port
        return slot

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def start(self) -> int:
        """Have one more; returns its slot."""
        self._say("start")
        return self._started()

    def release(self, slot: int) -> None:
        """Have the slot freed of a worker that is about to be gone."""
        self._say(f"release {slot}")
        assert self._line("released") == [str(slot)]
        del self.pids[slot], self.ports[slot]

    def kill(self, slot: int, number: int = signal.SIGKILL) -> None:
        """Send a worker a signal."""
        os.kill(self.pids[slot], number)

    def connect(self, slot: int) -> socket.socket:
        """A client of a worker."""
        return socket.create_connection(("127.0.0.1", self.ports[slot]), 30)

    def ask(self, target: str) -> tuple[int, str]:
        """Status and body of an admin page, of whichever worker answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=30)
        try:
            connection.request("GET", target)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def json(self, target: str) -> Any:
        """A page as JSON."""
        code, body = self.ask(target)
        assert code == 200
        return json.loads(body)

    def metrics(self) -> dict[str, float]:
        """All samples by name and labels."""
        found = {}
        for family in text_string_to_metric_families(self.ask("/metrics")[1]):
            for sample in family.samples:
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found

    def close(self) -> None:
        """End all of them."""
        for slot in self.pids:
            self.kill(slot)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture
def workers() -> Iterator[Workers]:
    """Two of them."""
    made = Workers(2)
    yield made
    made.close()


def talk(workers: Workers, slot: int, count: int) -> None:
    """``count`` messages of a client that comes and goes."""
    with workers.connect(slot) as client:
        for _ in range(count):
            exchange(client, b"hello")
        client.sendall(b"/exit\n")
        assert rest(client) == b""


def test_the_metrics_are_the_sum_to_the_message(workers: Workers) -> None:
    """Asked right after the last reply, any worker counts what the other did, and tells each one's own."""
    with workers.connect(0) as here, workers.connect(1) as there:
        for count in range(1, 6):
            exchange(here, b"one")
            exchange(there, b"two")
            exchange(there, b"three")
            found = workers.metrics()
            assert found["chat_gevent_messages_total"] == 3 * count
            assert found["chat_gevent_worker_messages_total{worker=0}"] == count
            assert found["chat_gevent_worker_messages_total{worker=1}"] == 2 * count
        assert found["chat_gevent_connections"] == 2
        assert found["chat_gevent_worker_connections{worker=1}"] == 1
        assert found["chat_gevent_workers{state=serving}"] == 2
        assert found["chat_gevent_accepted_total"] == 2
    assert found["process_start_time_seconds"] <= time.time()


def test_counts_outlive_their_worker_and_its_successor_goes_on(workers: Workers) -> None:
    """One ends in order and loses nothing; one is killed and leaves what it told; no counter goes back."""
    talk(workers, 0, 10)
    talk(workers, 1, 20)
    assert workers.metrics()["chat_gevent_messages_total"] == 30
    workers.kill(1)
    workers.release(1)
    assert workers.metrics()["chat_gevent_messages_total"] == 30
    assert workers.start() == 1
    talk(workers, 1, 5)
    workers.kill(1, signal.SIGTERM)  # what came since it published last is told at its end
    workers.release(1)
    found = workers.metrics()
    assert found["chat_gevent_messages_total"] == 35
    assert found["chat_gevent_closed_total{reason=exit}"] == 3
    assert workers.start() == 1
    until(lambda: workers.metrics().get("chat_gevent_worker_messages_total{worker=1}") == 25)


def test_no_counter_goes_back_for_who_scrapes_without_pause(workers: Workers) -> None:
    """Workers serve, are killed and replaced, in whatever order they answer: no counter is ever less."""
    ended = threading.Event()
    wrong: list[Any] = []
    scrapes = [0]

    def scrape() -> None:
        last: dict[str, float] = {}
        while not ended.is_set():
            try:
                found = workers.metrics()
            except (OSError, http.client.HTTPException):  # the worker that was asked has been killed
                continue
            counters = {name: value for name, value in found.items() if "_total" in name or "_bucket" in name}
            wrong.extend(
                (name, last[name], value) for name, value in counters.items() if value < last.get(name, 0)
            )
            last |= counters
            scrapes[0] += 1

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        for round in range(6):
            slot = round % 2
            talk(workers, slot, 200)
            seen = scrapes[0]
            workers.kill(slot)
            until(lambda seen=seen: scrapes[0] > seen)  # type: ignore[misc]
            workers.release(slot)
            assert workers.start() == slot
    finally:
        ended.set()
        thread.join()
    assert not wrong
    assert scrapes[0] > 6


def test_clients_of_all_workers_are_told_in_pages(workers: Workers) -> None:
    """Each client is on one page exactly, with its worker and an id that no other has."""
    with ExitStack() as stack:
        clients = [(slot, stack.enter_context(workers.connect(slot))) for slot in (0, 1) for _ in range(7)]
        for _, each in clients:
            exchange(each, b"hello")
        addresses = {"{}:{}".format(*each.getsockname()): slot for slot, each in clients}
        for limit in (1, 3, 7, 14, 100):
            found: list[dict[str, Any]] = []
            after = ""
            while True:
                page = workers.json(f"/clients?limit={limit}{after}")
                assert page["silent"] == []
                assert len(page["clients"]) <= limit
                found += page["clients"]
                if page["next"] is None:
                    break
                assert len(page["clients"]) == limit
                after = f"&after={page['next']}"
            assert {each["address"]: each["worker"] for each in found} == addresses
            assert len({each["id"] for each in found}) == len(found) == 14
            assert all(each["messages"] == 1 for each in found)
        assert page["total"] == 14


def test_a_worker_that_does_not_answer_is_named_and_its_last_figures_count(workers: Workers) -> None:
    """One that stands still delays a page by no more than the bound, and is told from one with no clients."""
    talk(workers, 0, 5)
    with workers.connect(1) as client:
        exchange(client, b"hello")
        assert workers.metrics()["chat_gevent_messages_total"] == 6
        workers.kill(0, signal.SIGSTOP)
        try:
            found = workers.metrics()
            assert found["chat_gevent_messages_total"] == 6
            page = workers.json("/clients")
            assert page["silent"] == [0]
            assert [each["worker"] for each in page["clients"]] == [1]
            assert workers.ask("/healthz")[0] == 200
        finally:
            workers.kill(0, signal.SIGCONT)
        until(lambda: workers.json("/clients")["silent"] == [])


def test_readiness_says_how_many_serve(workers: Workers) -> None:
    """200 as long as one takes clients; 503 once all of them drain, whichever answers."""
    assert workers.ask("/readyz") == (200, "ready: 2 of 2 workers serve\n")
    with workers.connect(0) as here, workers.connect(1) as there:
        exchange(here, b"hello")
        exchange(there, b"hello")
        here.setblocking(False)
        workers.kill(0, signal.SIGTERM)
        until(lambda: workers.ask("/readyz") == (200, "ready: 1 of 2 workers serve\n"))
        workers.kill(1, signal.SIGTERM)
        until(lambda: workers.ask("/readyz") == (503, "draining: 0 of 2 workers serve\n"))
        drain = until(lambda: workers.json("/status.json")["drain"])
        assert drain["clients_left"] in (1, 2)


def test_the_status_is_of_all_and_its_history_is_handed_over(workers: Workers) -> None:
    """Workers, totals and top clients of both; when the one with the history dies, the other goes on."""
    with workers.connect(0) as here, workers.connect(1) as there:
        exchange(here, b"hello")
        for _ in range(3):
            exchange(there, b"hello")
        found = workers.json("/status.json")
        assert found["totals"]["messages"] == 4
        assert [(each["worker"], each["pid"], each["messages"]) for each in found["workers"]] == [
            (0, workers.pids[0], 1),
            (1, workers.pids[1], 3),
        ]
        assert [each["worker"] for each in found["busiest"]] == [1, 0]
        until(lambda: 2 in workers.json("/status.json")["history"]["series"]["connections"])
        holder = next(slot for slot, pid in workers.pids.items() if _holds_a_lock(pid))
        workers.kill(holder)
        workers.release(holder)
        until(
            lambda: workers.json("/status.json")["history"]["series"]["connections"][-1] == 1, what="history"
        )
        series = workers.json("/status.json")["history"]["series"]
        assert 2 in series["connections"]
        assert all(each is None or each >= 0 for each in series["messages_per_second"])


def _holds_a_lock(pid: int) -> bool:
    lines = Path("/proc/locks").read_text().splitlines()
    return any(int(line.split()[4]) == pid for line in lines if "->" not in line)  # those wait for a lock
