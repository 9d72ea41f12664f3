"""The real Locust command against real servers: modes, reports, conditions, several processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import gevent
import gevent.event
import gevent.lock
import pytest
from gevent import socket

from benchmarks.reports.figures import merged
from tests.conftest import require_tool, wait_until
from tests.loadtest import servers
from tests.loadtest.hosts import Hosts
from tests.loadtest.locust_command import LIMIT, LOCUST, LOCUSTFILE, ROOT, Run, run, start
from tests.loadtest.ports import reserved_port
from tests.loadtest.servers import ScriptedServer
from tests.operate import ServerProcess

# What a run counts in a second is judged, and runs take longer where the machine is busy.
pytestmark = [pytest.mark.alone, pytest.mark.timeout(300)]


@contextmanager
def server_process(name: str, address: str = "127.0.0.1", prefix: tuple[str, ...] = ()) -> Iterator[str]:
    """One of the servers that are benchmarked, in a process of its own; gives its host for Locust."""
    command = [*prefix, sys.executable, "-m", f"benchmarks.measure.servers.{name}", "--host", address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().removeprefix("ready ").strip()
        finally:
            server.kill()


def test_500_users_end_with_no_failure_and_two_reports_compare(
    operate: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """The whole way: our server, 500 users, checked replies, report and page; and two runs compared."""
    host = f"tcp://127.0.0.1:{operate('--port', '0').port}"
    page = tmp_path / "page.html"
    # Each user stays for 8 s at least, so all are there together, also where the machine is busy.
    load = ("-u", "500", "-r", "500", "-t", "120s", "--messages", "2", "--think-time", "4-5")
    common = (*load, "--fail-if", "errors>0", "--connect-timeout", "60", "--read-timeout", "60")
    first = run(tmp_path, host, *common, "--report-html", str(page), name="first")
    assert (first.status, first.total("failed")) == (0, 0), first.output
    assert first.total("messages") == 1000
    assert max(trial.values["connections"] for trial in first.report.trials) == 500
    assert "closed loop: not corrected" in first.output
    text = page.read_text()
    # That of the connects is drawn where they fell into several seconds, which takes a busy machine.
    assert text.count("<svg") == 5 + ("Connect time over the run" in text)
    assert "http://" not in text.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    second = run(tmp_path, host, *common, name="second")
    command = [sys.executable, "-m", "benchmarks", "compare", str(first._path), str(second._path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode in (0, 1), done.stderr
    assert "Messages a second" in done.stdout


def test_a_condition_that_holds_fails_the_run_with_status_3(tmp_path: Path) -> None:
    """The reason is a line of its own."""
    with ScriptedServer(servers.late) as server:
        options = ("-u", "2", "-r", "2", "-t", "60s", "--messages", "20", "--fail-if", "p50>20ms")
        done = run(tmp_path, server.host, *options)
    assert done.status == 3
    (line,) = [line for line in done.output.splitlines() if line.startswith("failed:")]
    assert float(line.removeprefix("failed: p50>20ms: p50 was ").split()[0]) > 20


def test_a_run_in_which_nothing_was_answered_fails(tmp_path: Path) -> None:
    """Status 1, though no request failed: all were in flight at the end. Who only holds, has to connect."""
    with ScriptedServer(servers.never) as server:
        done = run(tmp_path, server.host, "-u", "2", "-r", "2", "-t", "3s", "--read-timeout", "30")
        held = run(tmp_path, server.host, "-u", "2", "-r", "2", "-t", "3s", "--hold", "100000")
    assert (done.status, done.errors) == (1, {})
    assert "failed: nothing was answered\n" in done.output
    assert (held.status, held.errors) == (0, {}), held.output


SLOW_START = """
from gevent.monkey import get_original
from loadtest.locustfile import *
get_original("time", "sleep")(3)
"""


def test_a_slow_start_takes_nothing_of_the_run_time(tmp_path: Path) -> None:
    """A locustfile that takes 3 s to load has its 2 s to run all the same, and sends in most of them."""
    path = tmp_path / "locustfile.py"
    path.write_text(SLOW_START)
    with ScriptedServer(servers.confirm) as server:
        done = run(tmp_path, server.host, "-t", "2s", "--rate", "50", locustfile=path)
    assert done.status == 0, done.output
    assert done.total("messages") >= 20


HELD_UP = """
import gevent
from gevent.monkey import get_original
from locust import events, task
from loadtest.framing import Line
from loadtest.tcp_user import TcpUser

class Asks(TcpUser):
    framing = Line()
    @task
    def ask(self):
        self.client.request("a", name="ASK")

@events.test_stopping.add_listener
def hold_up(**_):
    gevent.spawn(get_original("time", "sleep"), 0.1)
"""


def test_no_request_begins_while_users_that_wait_are_stopped(tmp_path: Path) -> None:
    """All pauses end at once where the process is held up just then; each request has its reply counted."""
    came = 0

    def count(connection: Any, _: Any) -> None:
        nonlocal came
        for line in servers.lines(connection):
            came += 1
            connection.sendall(line)

    path = tmp_path / "locustfile.py"
    path.write_text(HELD_UP)
    with ScriptedServer(count) as server:
        options = ("-u", "20", "-r", "20", "-t", "2s", "--stop-timeout", "30", "--think-time", "0.05")
        done = run(tmp_path, server.host, *options, locustfile=path)
    assert done.status == 0, done.output
    assert done.total("messages") == came > 20


BAD_OPTIONS = [
    (("--rate", "fast"), "rate 'fast': write messages a second"),
    (("--hold", "5", "--rate", "5"), "--hold already says when messages are sent"),
    (("--linger", "0.5"), "--linger 0.5: the kernel counts whole seconds"),
    (("--linger", "-0.5"), "--linger -0.5: the kernel counts whole seconds"),
    (("--framing", "morse"), "framing morse: must be line"),
    (("--message-template", "{x}"), "unknown field {x}"),
    (("--framing", "length:1", "--message-size", "300"), "(300 bytes) or its confirmation is too long"),
    (("--framing", "delimiter:0"), "the message contains its own delimiter"),
    (("--framing", "delimiter:;", "--message-template", "a;b"), "the message contains its own delimiter"),
    (("--framing", "chunk", "--message-size", "0"), "an empty message can't be sent"),
    (("--fail-if", "p99>50"), "a percentile is compared with a time"),
    (("--source-addresses", "nowhere"), "source addresses 'nowhere'"),
    (("--host", "tcp://[::1]:1", "--source-addresses", "127.0.0.2"), "none of them is IPv6"),
    (("--shape", "steps", "--knee-p99", "5"), "--knee-p99"),
    (("--host", "tcp://nowhere"), "a host is written tcp://HOST:PORT"),
    (("--host", "tls://127.0.0.1:1", "--tls-ca", "absent.pem"), "absent.pem: No such file"),
    (("--report", "/proc/nowhere/report.json"), "/proc/nowhere: No such file"),
]


def test_a_bad_option_is_one_line_and_status_2() -> None:
    """Never a traceback, and nothing is sent."""
    started = [(start("tcp://127.0.0.1:1", "-t", "1s", *options), said) for options, said in BAD_OPTIONS]
    for process, said in started:
        output, _ = process.communicate(timeout=LIMIT)
        lines = [line for line in output.splitlines() if "locust.main: " not in line]
        assert process.returncode == 2, output
        assert len(lines) == 1
        assert said in lines[0]


def test_the_options_are_in_the_help() -> None:
    """All ways to drive are found without reading code, by the command that the locustfile names."""
    assert "``locust -f loadtest/locustfile.py --help-tcp``" in LOCUSTFILE.read_text()
    for command in (
        [*LOCUST, "-f", str(LOCUSTFILE), "--help-tcp"],
        [sys.executable, "-m", "loadtest", "--help-all"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        for option in (
            *(
                "--message-size",
                "--think-time",
                "--rate",
                "--pipeline",
                "--hold",
                "--messages-per-connection",
            ),
            *("--source-addresses", "--message-template", "--framing", "--shape", "--report", "--fail-if"),
        ):
            assert option in done.stdout


def test_servers_that_misbehave_never_pass(tmp_path: Path) -> None:
    """No reply that is hung, wrong or lost is ever a success; failures carry their class."""
    kinds = {
        servers.wrong: "CONFIRM WrongReply",
        servers.never: "CONFIRM ReadTimeout",
        servers.reset: "CONFIRM ConnectionBroken(ECONNRESET)",
        servers.twice: "CONFIRM UnexpectedData",
    }

    def load(handler: servers.Handler) -> Run:
        with ScriptedServer(handler) as server:
            timeout = "0.3" if handler is servers.never else "30"
            options = ("-u", "3", "-r", "3", "-t", "3s", "--read-timeout", timeout)
            return run(tmp_path, server.host, *options, name=handler.__name__)

    for (_, group), one in zip(
        kinds.items(), [gevent.spawn(load, handler) for handler in kinds], strict=True
    ):
        done = one.get()
        assert done.total("messages") == 0, done.output
        assert done.errors[group] > 0
        assert set(done.errors) <= {group, "CONFIRM UnexpectedData"}
        assert done.status == 1


def test_users_stopped_in_flight_are_aborted(tmp_path: Path) -> None:
    """Twenty users wait for replies when the run ends: twenty aborted, none passed or failed."""
    with ScriptedServer(servers.never) as server:
        done = run(tmp_path, server.host, "-u", "20", "-r", "20", "-t", "4s", "--read-timeout", "60")
    assert (done.total("messages"), done.total("failed"), done.total("aborted")) == (0, 0, 20)
    assert "in flight when stopped: 20" in done.output


SLOW_TO_STOP = """
from time import perf_counter
from locust import events, task
from loadtest.tcp_user import {base}

class Paced({base}):
    {body}

@events.test_stopping.add_listener
def block(**_):
    end = perf_counter() + 1
    while perf_counter() < end:  # a sleep would let the users go on
        pass
"""
OWN_TASK = """@task
    def ask(self):
        self.client.request("hello", name="ASK", expect="Received: hello")"""


def slow_to_stop(folder: Path, base: str) -> Path:
    """A locustfile that keeps Locust's loop busy for a second between the order to stop and the end."""
    path = folder / f"{base}.py"
    path.write_text(SLOW_TO_STOP.format(base=base, body=OWN_TASK if base == "TcpUser" else "pass"))
    return path


def backlog(done: Run) -> int:
    """The backlog that a run's summary tells."""
    found = re.search(r"backlog at the end ([\d,]+)", done.output)
    assert found is not None, done.output
    return int(found[1].replace(",", ""))


LATE_AT_MOST = 0.4
"""Seconds that a busy machine may be late with what was due when a test is stopped."""


def test_who_falls_due_while_locust_stops_is_not_sent(tmp_path: Path) -> None:
    """However long the stop takes: no request in flight, and no backlog, that the stop itself has made.

    All 20 users fall due within the second that it takes here. A busy machine may be late with those that
    were due before: as many as in :data:`LATE_AT_MOST` seconds.
    """
    kinds: dict[str, tuple[str, tuple[str, ...]]] = {
        "paced": ("ConfirmUser", ("--rate", "20")),
        "own": ("TcpUser", ("--rate", "20")),
        "graceful": ("ConfirmUser", ("--rate", "20", "--stop-timeout", "30")),
        "hold": ("ConfirmUser", ("--hold", "1")),
        "think": ("ConfirmUser", ("--think-time", "0.5-1")),
    }
    late = 20 * LATE_AT_MOST

    def load(name: str) -> Run:
        base, options = kinds[name]
        with ScriptedServer(servers.confirm) as server:
            common = ("-u", "20", "-r", "20", "-t", "3s")
            return run(
                tmp_path, server.host, *common, *options, locustfile=slow_to_stop(tmp_path, base), name=name
            )

    for name, one in [(name, gevent.spawn(load, name)) for name in kinds]:
        done = one.get()
        assert (done.status, done.total("failed")) == (0, 0), done.output
        assert done.total("messages") > 0
        assert done.total("aborted") <= late, (name, done.output)
        if name not in ("hold", "think"):
            assert backlog(done) <= late, (name, done.output)
            response = merged(done.report, done.report.servers[0].name, "response")
            assert response is not None
            assert done.total("intended") - response.get_total_count() <= late


def test_the_last_reports_of_workers_that_are_slow_to_stop_are_waited_for(tmp_path: Path) -> None:
    """Locust's master waits half a second, these take longer, and each message that came is in the report."""
    came = 0

    def confirm(connection: Any, _: Any) -> None:
        nonlocal came
        for line in servers.lines(connection):
            came += 1
            connection.sendall(b"Received: " + line)

    with ScriptedServer(confirm) as server:
        options = ("--processes", "2", "-u", "20", "-r", "20", "-t", "4s", "--rate", "20")
        done = run(tmp_path, server.host, *options, locustfile=slow_to_stop(tmp_path, "ConfirmUser"))
        assert (done.status, done.total("failed")) == (0, 0), done.output
        wait_until(lambda: came >= done.total("messages") + done.total("aborted"))
    assert done.total("messages") + done.total("aborted") == came > 0
    assert done.total("aborted") <= 20 * LATE_AT_MOST
    assert backlog(done) <= 20 * LATE_AT_MOST, done.output


def test_paced_users_of_a_server_that_never_answers_are_aborted(tmp_path: Path) -> None:
    """Each has one message in flight when the run ends, and what fell due behind it is backlog."""
    with ScriptedServer(servers.never) as server:
        options = ("-u", "20", "-r", "20", "-t", "4s", "--rate", "100", "--read-timeout", "60")
        done = run(tmp_path, server.host, *options)
    assert (done.total("messages"), done.total("failed"), done.total("aborted")) == (0, 0, 20), done.output
    assert 100 <= backlog(done) == done.total("intended")


def test_a_graceful_stop_waits_for_replies_and_not_for_turns(tmp_path: Path) -> None:
    """``--stop-timeout`` is for users with a message in flight; the next turns of these are 300 s away."""
    with ScriptedServer(servers.confirm) as server:
        begin = perf_counter()
        options = ("-u", "20", "-r", "20", "-t", "4s", "--rate", "0.003/user", "--stop-timeout", "300")
        done = run(tmp_path, server.host, *options)
    assert done.status == 0, done.output
    assert perf_counter() - begin < LIMIT


def test_an_interrupted_run_keeps_what_it_measured(tmp_path: Path) -> None:
    """Ctrl-C before the end: summary and report are written, and the report says that it is incomplete."""
    path = tmp_path / "report.json"
    answered = gevent.event.Event()

    def confirm(connection: Any, _: Any) -> None:
        for number, line in enumerate(servers.lines(connection)):
            connection.sendall(b"Received: " + line)
            if number == 100:
                answered.set()

    with ScriptedServer(confirm) as server:
        process = start(
            server.host, "-u", "2", "-r", "2", "-t", "600s", "--think-time", "0.001", "--report", str(path)
        )
        assert answered.wait(LIMIT)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=LIMIT)
    done = Run(process.returncode, output, path)
    assert (done.status, done.report.complete) == (0, False), output
    assert done.total("messages") >= 100
    assert "TCP requests in milliseconds" in output


def test_workers_that_are_interrupted_with_their_master_report_all_they_sent(tmp_path: Path) -> None:
    """Ctrl-C at a terminal reaches every process: no message that the server got is missing."""
    path = tmp_path / "report.json"
    came, enough = 0, gevent.event.Event()

    def confirm(connection: Any, _: Any) -> None:
        nonlocal came
        for line in servers.lines(connection):
            came += 1
            connection.sendall(b"Received: " + line)
            if came == 300:
                enough.set()

    with ScriptedServer(confirm) as server:
        options = ("--processes", "2", "-u", "20", "-r", "20", "-t", "600s", "--rate", "200")
        process = start(server.host, *options, "--report", str(path), own_group=True)
        assert enough.wait(LIMIT)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=LIMIT)
        done = Run(process.returncode, output, path)
        assert (done.status, done.report.complete) == (0, False), output
        wait_until(lambda: came >= done.total("messages") + done.total("aborted"))
    assert done.total("messages") + done.total("aborted") == came
    assert "20 opened, 0 open at the end" in output


def test_the_thread_per_client_server_is_driven_without_framing(tmp_path: Path) -> None:
    """What one ``recv(1024)`` returns is a message: no terminators, and ``/exit`` ends the connection."""
    with server_process("threads") as host:
        options = ("--framing", "chunk", "--messages", "10", "--messages-per-connection", "5", "-t", "60s")
        done = run(tmp_path, host, *options, "-u", "20", "-r", "20", "--read-timeout", "30")
    assert (done.status, done.errors) == (0, {}), done.output
    assert done.total("messages") == 200
    assert " EXIT " in done.output


def test_nc_answers_whatever_a_person_lets_it(tmp_path: Path) -> None:
    """``nc -lk`` with a shell behind it is a server like any other."""
    require_tool("nc")
    pipe = tmp_path / "pipe"
    with reserved_port() as port:
        script = f"mkfifo {pipe}; nc -lk 127.0.0.1 {port} < {pipe} | sed -u 's/^/Received: /' > {pipe}"
        server = subprocess.Popen(["sh", "-c", script], start_new_session=True)
        try:
            with gevent.Timeout(60):
                while True:
                    with socket.socket() as probe:
                        if probe.connect_ex(("127.0.0.1", port)) == 0:
                            break
                    gevent.sleep(0.05)
            done = run(tmp_path, f"tcp://127.0.0.1:{port}", "-u", "1", "-t", "60s", "--messages", "20")
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    assert (done.total("messages"), done.total("failed")) == (20, 0), done.output


def test_churn_pipelines_and_templates_each_count_every_message(tmp_path: Path) -> None:
    """Connections of 4 messages, 2 in a write; 10 users of 12 messages are 120, no more, no less."""
    options = ("--messages", "12", "--messages-per-connection", "4", "--pipeline", "2")
    with ScriptedServer(servers.confirm) as server:
        more = ("--message-template", "user {user} says {n} {random:5}", "-u", "10", "-r", "10", "-t", "60s")
        done = run(tmp_path, server.host, *options, *more)
    assert (done.status, done.total("messages"), done.total("failed")) == (0, 120, 0), done.output
    assert "connections: 30 opened, 0 open at the end" in done.output
    row = re.search(
        r"^TCP +CONFIRM +120 +0\(0\.00%\) \| +(\S+) +(\S+) +(\S+) +(\S+) \|", done.output, re.MULTILINE
    )
    assert row is not None, done.output
    average, least, most, median = map(float, row.groups())
    assert (
        0 < least <= min(average, median) <= most
    )  # Locust's own table, which would say 0 below half a millisecond
    assert "." in row[2]


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (("--messages", "10", "--pipeline", "4"), 100),
        (("--messages", "12", "--pipeline", "4", "--messages-per-connection", "6"), 120),
    ],
)
def test_a_paced_pipeline_intends_the_messages_that_it_has(
    tmp_path: Path, options: tuple[str, ...], messages: int
) -> None:
    """The last batch of a user, or of a connection, is shorter; all is sent, and nothing is left over."""
    with ScriptedServer(servers.confirm) as server:
        done = run(tmp_path, server.host, *options, "-u", "10", "-r", "10", "-t", "60s", "--rate", "200")
    assert (done.status, done.total("messages"), done.total("failed")) == (0, messages, 0), done.output
    assert (done.total("intended"), backlog(done)) == (messages, 0)


def test_holders_hold_and_send_in_turn(tmp_path: Path) -> None:
    """Idle connections with a message every second each, from two source addresses."""
    pauses: list[float] = []
    sources: set[str] = set()

    def handler(connection: Any, address: Any) -> None:
        answered = 0.0
        sources.add(address[0])
        for line in servers.lines(connection):
            if answered:
                pauses.append(perf_counter() - answered)
            answered = perf_counter()
            connection.sendall(b"Received: " + line)

    with ScriptedServer(handler) as server:
        load = ("-u", "50", "-r", "50", "-t", "60s", "--hold", "1", "--messages", "3")
        done = run(tmp_path, server.host, *load, "--source-addresses", "127.0.0.2-127.0.0.3")
    assert (done.status, done.total("failed")) == (0, 0), done.output
    assert (done.total("messages"), len(pauses)) == (150, 100)
    assert min(pauses) >= 1
    assert sources == {"127.0.0.2", "127.0.0.3"}
    assert "connections: 50 opened" in done.output


def test_steps_find_the_knee_and_say_it(tmp_path: Path) -> None:
    """A server that answers one client at a time gets slower with each step, until p99 crosses the limit.

    It is 0.3 s with three users, 0.6 s with six, 0.9 s with nine; a busy machine may only add to that.
    """
    turn = gevent.lock.BoundedSemaphore()

    def one_at_a_time(connection: Any, _: Any) -> None:
        for line in servers.lines(connection):
            with turn:
                gevent.sleep(0.1)
            connection.sendall(b"Received: " + line)

    with ScriptedServer(one_at_a_time) as server:
        options = ("--shape", "steps", "--step-users", "3", "--step-time", "4", "--knee-p99", "750ms")
        done = run(tmp_path, server.host, *options, "--shape-users", "12", "--read-timeout", "30")
    knee = [fired.message for fired in done.report.warnings if fired.check == "knee"]
    assert len(knee) == 1, done.output
    assert knee[0].startswith("highest rate that held p99 750 ms")
    held, broke = (
        (int(users), float(p99)) for users, p99 in re.findall(r"with (\d+) users \(p99 ([\d.]+) ms", knee[0])
    )
    assert broke[0] == held[0] + 3
    assert held[1] <= 750 < broke[1]


STEP = """
from argparse import Namespace
from time import time
from locust.env import Environment
from loadtest.count.health import Sample
from loadtest.run.load_test import load_test_of
from loadtest.run.options import own_options
from loadtest.run.shapes import Steps

environment = Environment(parsed_options=Namespace(**own_options()))
load_test = load_test_of(environment)
steps = Steps(load_test, environment.parsed_options)
now = int(time())
for second in range(now - 9, now - 1):
    load_test.counters.entry("CONFIRM").whole[100] += 510
    load_test.record.take("one", load_test.counters, Sample(second, 1.02, 1.02, 0.3, {}, 0, 0), 0)
steps._step_began = now - 10
print(steps._judge() or steps._held)
"""


def test_the_rate_of_a_knee_is_by_the_time_that_was_measured() -> None:
    """A step whose seconds were measured for 1.02 s each held 500 messages a second, not 510."""
    done = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.startswith("500 messages/s with 10 users (p99 0.100 ms")


def test_two_processes_are_one_report(tmp_path: Path) -> None:
    """``--processes 2``: every message of both, one histogram, the health of each, one rate shared by all."""
    with ScriptedServer(servers.confirm) as server:
        options = (
            "--processes",
            "2",
            "-u",
            "10",
            "-r",
            "10",
            "--rate",
            "100",
            "--messages",
            "20",
            "-t",
            "60s",
        )
        done = run(tmp_path, server.host, *options)
    assert (done.status, done.total("messages"), done.total("failed")) == (0, 200, 0), done.output
    histogram = merged(done.report, server.host, "response")
    assert histogram is not None
    assert histogram.get_total_count() == 200
    assert done.output.count("\ngenerator ") == 2
    assert done.total("intended") == 200


def test_a_master_and_two_workers_on_hosts_of_their_own_are_one_report(tmp_path: Path) -> None:
    """Each in a network namespace where the machine allows; what workers count adds up at the master."""
    path = tmp_path / "report.json"
    with (
        Hosts() as hosts,
        server_process("gevent_plain", hosts.address, hosts.on(0)) as host,
        reserved_port() as number,  # here; in a namespace all ports are free
    ):
        port = str(number)
        at = ("--master-bind-host", hosts.address, "--master-bind-port", port, "--report", str(path))
        wait = ("--master", "--expect-workers", "2", "--expect-workers-max-wait", "100")
        load = ("-u", "6", "-r", "6", "-t", "60s", "--messages", "10", "--rate", "60")
        master = start(host, *wait, *at, *load, prefix=hosts.on(0))
        to = ("--worker", "--master-host", hosts.address, "--master-port", port)
        workers = [start(host, *to, prefix=hosts.on(place)) for place in (1, 2)]
        output, _ = master.communicate(timeout=LIMIT)
        for worker in workers:
            worker.communicate(timeout=60)
    done = Run(master.returncode, output, path)
    assert (done.status, done.total("messages"), done.total("failed")) == (0, 60, 0), output
    assert done.total("intended") == 60
    assert output.count("\ngenerator ") == 2
