"""The figures of several workers beside what their clients counted, and as a real Prometheus sees them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import require_tool
from tests.operate import ServerProcess, kept_port, until

Operate = Callable[..., ServerProcess]

SCRAPED_SECONDS = float(os.environ.get("SCRAPED_SECONDS", "6"))
"""How long Prometheus scrapes under load; the proof of a release takes 60."""


class Load:
    """Clients that send a line, read its confirmation and count it, until they are told to stop.

    One whose worker is killed comes back: what it had not read by then may have been counted by the server.
    """

    def __init__(self, server: ServerProcess, clients: int) -> None:
        self.server = server
        self.confirmed = 0
        self.unread = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._converse) for _ in range(clients)]
        for each in self._threads:
            each.start()

    def _converse(self) -> None:
        while not self._ended.is_set():
            try:
                with self.server.connect() as client:
                    self._exchange(client)
            except OSError:
                pass

    def _exchange(self, client: socket.socket) -> None:
        replies = client.makefile("rb")
        while not self._ended.is_set():
            client.sendall(b"hello\n")
            read = b""
            try:
                read = replies.readline()
            finally:
                with self._lock:
                    self.confirmed += read == b"Received: hello\n"
                    self.unread += read != b"Received: hello\n"
            if not read:
                return
            assert read == b"Received: hello\n" or read.startswith(b"Error: shutting-down: ")
            time.sleep(0.002)

    def stop(self) -> None:
        """Have all clients read what is due and go."""
        self._ended.set()
        for each in self._threads:
            each.join()


@contextmanager
def loaded(server: ServerProcess, clients: int) -> Iterator[Load]:
    """Load while the context lasts."""
    load = Load(server, clients)
    try:
        yield load
    finally:
        load.stop()


def serve(operate: Operate) -> ServerProcess:
    """Four workers with admin pages."""
    return operate("--port", "0", "--workers", "4", "--admin", ":0", "--framing", "line")


def workers(server: ServerProcess) -> dict[int, int]:
    """The process of each worker."""
    return {each["worker"]: each["pid"] for each in json.loads(server.ask("/status.json")[1])["workers"]}


def counters(server: ServerProcess) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All counters that are there now."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(server.ask("/metrics")[1])
        if family.type in ("counter", "histogram")
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_the_sum_of_four_workers_is_what_their_clients_counted(operate: Operate) -> None:
    """To the message, also after all were replaced under load by a SIGHUP: no count is lost or twice."""
    server = serve(operate)
    with loaded(server, 12) as load:
        until(lambda: load.confirmed > 500)
        old = set(workers(server).values())
        server.process.send_signal(signal.SIGHUP)
        until(lambda: not old & set(workers(server).values()))
        seen = load.confirmed
        until(lambda: load.confirmed > seen + 500)
    # A worker that does not answer in time counts with what it told last.
    until(lambda: server.metric("chat_gevent_messages_total") >= load.confirmed)
    assert server.metric("chat_gevent_messages_total") == load.confirmed
    found = json.loads(server.ask("/status.json")[1])
    assert found["totals"]["messages"] == load.confirmed
    assert set(workers(server)) == {each["worker"] for each in found["workers"]}
    assert server.stop() == 0


def test_a_killed_worker_takes_at_most_its_last_second_with_it(operate: Operate) -> None:
    """The sum is less than what clients counted by no more than the victim answers in a second or so."""
    server = serve(operate)
    before: dict[Any, float] = {}
    with loaded(server, 12) as load:
        began = time.monotonic()
        until(lambda: load.confirmed > 2000)
        found = workers(server)
        assert len(found) == 4
        victim = max(found)
        before = counters(server)
        os.kill(found[victim], signal.SIGKILL)
        until(lambda: len(set(workers(server).values()) - set(found.values())) == 1)
        a_second = load.confirmed / (time.monotonic() - began)

    def lost() -> float:
        return load.confirmed - server.metric("chat_gevent_messages_total")

    until(lambda: lost() <= 1.5 * a_second)  # one that does not answer in time counts with what it told last
    assert lost() >= -load.unread
    after = counters(server)
    assert all(after[name] >= value for name, value in before.items())


def test_no_counter_goes_back_for_a_real_prometheus(operate: Operate, tmp_path: Path) -> None:
    """It scrapes under load; a worker is killed, then all are replaced: ``resets`` of each counter is 0."""
    server = serve(operate)
    port = server.logged(r"admin pages at http://127.0.0.1:(\d+)").group(1)
    own = kept_port()
    (tmp_path / "prometheus.yml").write_text(
        "scrape_configs:\n- job_name: chat\n  scrape_interval: 500ms\n  scrape_timeout: 500ms\n"
        f"  static_configs:\n  - targets: ['127.0.0.1:{port}']\n"
    )
    prometheus = subprocess.Popen(
        [
            require_tool("prometheus"),
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{own}",
            "--log.level=error",
        ]
    )

    def query(text: str) -> list[Any]:
        url = f"http://127.0.0.1:{own}/api/v1/query?query={quote(text)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                found: list[Any] = json.load(answer)["data"]["result"]
        except OSError:
            return []
        return found

    def scraped() -> float:
        found = query("count_over_time(chat_gevent_messages_total[1h])")
        return float(found[0]["value"][1]) if found else 0.0

    try:
        until(scraped, 30, "Prometheus scrapes")
        with loaded(server, 4) as load:
            began = time.monotonic()
            until(lambda: load.confirmed > 200)
            os.kill(workers(server)[2], signal.SIGKILL)
            until(lambda: scraped() > 8)
            server.process.send_signal(signal.SIGHUP)
            until(lambda: time.monotonic() - began > SCRAPED_SECONDS, SCRAPED_SECONDS + 30)
        last = server.metric("chat_gevent_messages_total")
        until(lambda: [each["value"][1] for each in query("chat_gevent_messages_total")] == [f"{last:.0f}"])
        names = {name for name, _ in counters(server)}
        assert len(names) > 15
        for name in names:
            resets = query(f"resets({name}[1h])")
            assert resets, name
            assert [each for each in resets if each["value"][1] != "0"] == []
        until(lambda: scraped() > SCRAPED_SECONDS)
    finally:
        prometheus.terminate()
        prometheus.wait(30)
