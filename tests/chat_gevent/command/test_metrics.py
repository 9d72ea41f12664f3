"""What Prometheus reads, checked by its own parser against what clients did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gevent
from prometheus_client.parser import text_string_to_metric_families

from chat_gevent.command.metrics import LAG_BUCKETS, LoopLag
from tests.operate import ServerProcess, exchange, receive, rest, until

Operate = Callable[..., ServerProcess]


def scrape(server: ServerProcess) -> dict[str, float]:
    """All samples by name and labels."""
    status, text = server.ask("/metrics")
    assert status == 200
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_the_counters_count_what_clients_did(operate: Operate) -> None:
    """Connections, messages, bytes, errors, refusals and closes, of live clients and of those that left."""
    server = operate("--port", "0", "--admin", ":0", "--framing", "line", "--max-connections", "3")
    before = scrape(server)
    for name in ("refused_total{reason=server-full}", "errors_total{code=handler-failed}"):
        assert before[f"chat_gevent_{name}"] == 0, "or the first event would be no increase"
    with server.connect() as stays, server.connect() as bad:
        exchange(stays, b"one")
        exchange(stays, b"two")
        bad.sendall(b"\xff\n")
        assert bad.recv(100).startswith(b"Error: invalid-utf8: ")
        with server.connect() as leaves:
            exchange(leaves, b"three")
            with server.connect() as refused:
                told = rest(refused)
            assert told.startswith(b"Error: server-full: ")
            leaves.sendall(b"/exit\n")
            assert rest(leaves) == b""
        until(lambda: server.metric("chat_gevent_connections") == 2)
        found = scrape(server)
    assert found["chat_gevent_accepted_total"] == 4
    assert found["chat_gevent_connections_limit"] == 3
    assert found["chat_gevent_messages_total"] == 3
    assert found["chat_gevent_received_bytes_total"] == len("one\ntwo\n\xff\nthree\n/exit\n")
    assert found["chat_gevent_refused_total{reason=server-full}"] == 1
    assert found["chat_gevent_closed_total{reason=exit}"] == 1
    assert found["chat_gevent_closed_total{reason=server-full}"] == 1
    assert found["chat_gevent_errors_total{code=invalid-utf8}"] == 1
    assert found["chat_gevent_errors_total{code=server-full}"] == 1
    replies = len("Received: one\nReceived: two\nReceived: three\n")
    assert found["chat_gevent_sent_bytes_total"] > replies + len(told)
    assert found["chat_gevent_greenlets{state=leased}"] == 0
    assert found["chat_gevent_greenlets{state=free}"] >= 1
    assert found["process_open_fds"] < found["process_max_fds"]
    assert found["process_resident_memory_bytes"] > 2**20
    assert found["process_cpu_seconds_total"] > 0
    until(lambda: scrape(server)["chat_gevent_loop_lag_seconds_count"] > 0)


def test_a_handlers_time_is_counted(operate: Operate, tmp_path: Path) -> None:
    """Calls and seconds of a custom handler, waiting and failures included."""
    (tmp_path / "mine.py").write_text(
        "import gevent\ndef answer(text, client):\n    gevent.sleep(0.05)\n    return {'a': 'b'}[text]\n"
    )
    server = operate("--port", "0", "--admin", ":0", "--handler", "mine:answer", cwd=tmp_path)
    with server.connect() as client:
        client.sendall(b"a\nx\na\n")
        failed = b"Error: handler-failed: the server could not handle the message\n"
        assert receive(client, len(failed) + 4) == b"b\n" + failed + b"b\n"
    found = scrape(server)
    assert found["chat_gevent_handler_calls_total"] == 3
    assert found["chat_gevent_handler_seconds_total"] >= 0.15
    assert found["chat_gevent_handler_running"] == 0
    assert found["chat_gevent_errors_total{code=handler-failed}"] == 1
    assert "KeyError: 'x'" in server.log
    server.logged("ERROR handler failed for ")


def test_open_metrics_on_request(operate: Operate) -> None:
    """A scraper that asks for OpenMetrics gets it."""
    import http.client

    server = operate("--port", "0", "--admin", ":0")
    host, port = server.logged(r"admin pages at http://(\S+):(\d+)").groups()
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    answer = connection.getresponse()
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert answer.read().endswith(b"# EOF\n")
    connection.close()


def test_any_accept_header_gets_an_answer(operate: Operate) -> None:
    """A version that is none, or stands in quotes as HTTP allows: the plain format, and no traceback."""
    import http.client

    server = operate("--port", "0", "--admin", ":0")
    host, port = server.logged(r"admin pages at http://(\S+):(\d+)").groups()
    for accept in (
        *("text/plain;version=x", 'text/plain; version="0.0.4"', "text/plain;version=1.x"),
        *("application/openmetrics-text;version=x", "text/plain;version", ";;=,=", "*/*;q=x"),
    ):
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        connection.request("GET", "/metrics", headers={"Accept": accept})
        answer = connection.getresponse()
        assert (accept, answer.status) == (accept, 200)
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert b"\nchat_gevent_connections 0.0\n" in answer.read()
        connection.close()
    assert "Traceback" not in server.log


def test_loop_lag_is_what_a_blocked_loop_costs() -> None:
    """A loop that is held up for 120 ms shows that in the histogram."""
    import time

    lag = LoopLag(0.01)
    holds = gevent.spawn_later(0.005, time.sleep, 0.12)
    lag.sample()
    holds.join()
    assert lag.last > 0.1
    assert sum(lag.counts) == 1
    assert sum(lag.counts[: LAG_BUCKETS.index(0.1) + 1]) == 0
