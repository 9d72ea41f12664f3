"""What a run says as a whole: workers lost, clocks, options that nobody uses, back-off, several hosts."""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
import pytest
from gevent import subprocess as gevent_subprocess

from tests.conftest import wait_until
from tests.loadtest import servers
from tests.loadtest.locust_command import HASTY, LIMIT, LOCUST, LOCUSTFILE, PATIENT, ROOT, Run, run, start
from tests.loadtest.ports import reserved_port
from tests.loadtest.servers import ScriptedServer, lines

# What a run counts in a second is judged, and runs take longer where the machine is busy.
pytestmark = [pytest.mark.alone, pytest.mark.timeout(300)]

OWN = """
from locust import task, constant
from loadtest.tcp_user import TcpUser
from loadtest.framing import Line, Delimiter

class Own(TcpUser):
    {body}

    @task
    def ask(self):
        self.client.request("hello", name="ASK", expect="Received: hello")
        self.client.request("again", name="AGAIN", expect="Received: again")
"""


def own(folder: Path, body: str = "pass", more: str = "") -> Path:
    """A locustfile with a class of one's own."""
    path = folder / "own.py"
    path.write_text(OWN.format(body=body) + more)
    return path


class Counting:
    """A server that notes when each message came."""

    def __init__(self) -> None:
        self.came: list[float] = []

    def __call__(self, connection: Any, _: Any) -> None:
        """Serve a client."""
        for line in lines(connection):
            self.came.append(monotonic())
            connection.sendall(b"Received: " + line)

    def rates(self, first: float, last: float, width: float) -> list[float]:
        """Messages a second in windows ``width`` seconds wide, one every quarter of a second."""
        begins = [first + step / 4 for step in range(int((last - width - first) * 4))]
        return [sum(begin <= moment < begin + width for moment in self.came) / width for begin in begins]


@contextmanager
def distributed(
    folder: Path,
    host: str,
    workers: int,
    *options: str,
    shifted: float = 0.0,
    locust: tuple[str, ...] = PATIENT,
) -> Iterator[tuple[Any, list[Any], Path]]:
    """A master and its workers; the first one's clock is ``shifted`` seconds ahead."""
    path = folder / "report.json"
    with reserved_port() as port:
        wait = ("--master", "--expect-workers", str(workers), "--expect-workers-max-wait", "100")
        master = start(
            host, *wait, "--master-bind-port", str(port), "--report", str(path), *options, locust=locust
        )
        to = ("--worker", "--master-host", "127.0.0.1", "--master-port", str(port))
        started = [start(host, *to) for _ in range(workers - 1)]
        code = (
            f"import time; real = time.time; time.time = lambda: real() + {shifted}; "
            "import sys; from locust.main import main; sys.argv[0] = 'locust'; main()"
        )
        started.append(
            subprocess.Popen(
                [
                    sys.executable,
                    "-W",
                    "ignore",
                    "-c",
                    code,
                    "-f",
                    str(LOCUSTFILE),
                    "--host",
                    host,
                    "--headless",
                    *to,
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=ROOT,
            )
        )
        try:
            yield master, started, path
        finally:
            for process in (master, *started):
                process.kill()
                process.wait()


def test_a_lost_worker_is_named_and_its_rate_taken_over(tmp_path: Path) -> None:
    """Killed with -9: the others send at the whole rate soon, and the report says what is missing.

    It takes about 4 s until Locust finds out. A busy machine is late with some messages and sends them after
    others, so the rates are those of many windows of time.
    """
    counting = Counting()
    load = ("-u", "12", "-r", "12", "-t", "20s", "--rate", "120", "--fail-if", "workers<3")
    with (
        ScriptedServer(counting) as server,
        distributed(tmp_path, server.host, 3, *load, locust=LOCUST) as (master, workers, path),
    ):
        wait_until(lambda: len(counting.came) > 240, 120)
        killed = monotonic()
        os.kill(workers[0].pid, signal.SIGKILL)
        output, _ = master.communicate(timeout=LIMIT)
        done = Run(master.returncode, output, path)
    assert min(counting.rates(killed, killed + 5, 2)) < 100  # without it they send 80
    assert statistics.median(counting.rates(killed + 7, killed + 14, 4)) == pytest.approx(120, rel=0.1)
    assert done.status == 3, output
    assert "failed: workers<3: workers was 2" in output
    assert not done.report.complete
    first = done.report.warnings[0]
    assert first.check == "worker-lost"
    assert re.search(
        r"worker \S+ was lost \d+\.\d s into the test, with 4 users: .* was given to the others",
        first.message,
    )
    assert re.search(r"connections: [\d,]+ opened, 0 open at the end", output), output  # its own are gone too
    top = output[output.index("WARNING worker ") :]
    assert top.index("WARNING worker ") < top.index("TCP requests in milliseconds")


@pytest.mark.parametrize(
    ("locust", "options"),
    [(LOCUST, ("--enable-rebalancing",)), (HASTY, ())],
    ids=["rebalanced", "given-up"],
)
def test_users_of_a_lost_worker_that_are_started_elsewhere_share_the_rate_again(
    tmp_path: Path, locust: tuple[str, ...], options: tuple[str, ...]
) -> None:
    """Once Locust finds the worker missing, or gives it up: all send what was asked for, and no more."""
    counting = Counting()
    load = ("-u", "12", "-r", "12", "-t", "30s", "--rate", "120", *options)
    with (
        ScriptedServer(counting) as server,
        distributed(tmp_path, server.host, 3, *load, locust=locust) as (master, workers, path),
    ):
        wait_until(lambda: len(counting.came) > 240, 120)
        killed = monotonic()
        os.kill(workers[0].pid, signal.SIGKILL)
        output, _ = master.communicate(timeout=LIMIT)
        done = Run(master.returncode, output, path)
    # With the interval of the 8 users that were left, the 12 would send 180.
    assert statistics.median(counting.rates(killed + 12, killed + 20, 4)) == pytest.approx(120, rel=0.1)
    told = [fired.message for fired in done.report.warnings if fired.check == "worker-lost"]
    assert len(told) == 1, output
    assert re.search(r"; its users were started elsewhere \d+\.\d s later$", told[0])


BESIDE = """
from locust import User, constant, task
from loadtest.tcp_user import ConfirmUser

class Other(User):
    {body}
    wait_time = constant(1)

    @task
    def nothing(self):
        pass
"""


@pytest.mark.parametrize(
    ("body", "options"),
    [("weight = 3", ()), ("fixed_count = 6", ()), ("weight = 3", ("--processes", "2"))],
    ids=["weight", "fixed", "workers"],
)
def test_users_that_are_none_of_ours_have_no_share_of_a_rate(
    tmp_path: Path, body: str, options: tuple[str, ...]
) -> None:
    """Two of eight users keep to the rate in all, and send all of it."""
    counting = Counting()
    path = tmp_path / "beside.py"
    path.write_text(BESIDE.format(body=body))
    with ScriptedServer(counting) as server:
        load = ("-u", "8", "-r", "8", "-t", "8s", "--rate", "100", *options)
        done = run(tmp_path, server.host, *load, locustfile=path)
    assert (done.status, done.total("failed")) == (0, 0), done.output
    first = counting.came[0]
    # Divided by all users, it would be 25.
    assert statistics.median(counting.rates(first + 1, first + 6, 2)) == pytest.approx(100, rel=0.1)


@pytest.mark.parametrize("shifted", [0.0, 3.0])
def test_a_distributed_run_is_complete_unless_its_clocks_differ(tmp_path: Path, shifted: float) -> None:
    """A clock that is 3 s ahead is measured and told; a run of workers is complete otherwise."""
    load = ("-u", "4", "-r", "4", "-t", "5s", "--rate", "40")
    with (
        ScriptedServer(servers.confirm) as server,
        distributed(tmp_path, server.host, 2, *load, shifted=shifted) as (master, _, path),
    ):
        output, _ = master.communicate(timeout=LIMIT)
        done = Run(master.returncode, output, path)
    assert done.report.complete is (shifted == 0), output
    told = [fired.message for fired in done.report.warnings if fired.check == "clocks"]
    assert len(told) == (1 if shifted else 0)
    if shifted:
        (ahead,) = re.findall(r"is (\d+\.\d) s ahead of the master's", told[0])
        assert shifted - 0.5 <= float(ahead) <= shifted  # a report that took long makes it less
        assert f"WARNING {told[0]}" in output


REFUSED = [
    ("pass", ("--message-size", "10"), "--message-size: Own does not use it"),
    ("pass", ("--hold", "10"), "--hold: Own does not use it"),
    ("framing = Line()", ("--framing", "chunk"), "--framing: Own has a framing of its own"),
    ("wait_time = constant(1)", ("--rate", "5"), "--rate: Own has a wait_time of its own"),
    ("wait_time = constant(1)", ("--think-time", "5"), "--think-time: Own has a wait_time of its own"),
    ("pass", ("--fail-if", "GET.workers>1"), "workers are those of the whole run"),
]


def test_options_that_nobody_uses_are_refused(tmp_path: Path) -> None:
    """One line, and nothing is sent."""
    started = []
    for number, (body, options, said) in enumerate(REFUSED):
        folder = tmp_path / str(number)
        folder.mkdir()
        started.append((start("tcp://127.0.0.1:1", "-t", "1s", *options, locustfile=own(folder, body)), said))
    for process, said in started:
        output, _ = process.communicate(timeout=LIMIT)
        assert process.returncode == 2, output
        assert said in output


def test_own_classes_back_off_and_a_failed_connect_is_counted_once(tmp_path: Path) -> None:
    """Nobody listens: a handful of CONNECT failures in 4 s, with growing pauses, and no other failure.

    Without pauses there are thousands, with the first one each time 40 at least.
    """
    with reserved_port() as port:
        done = run(tmp_path, f"tcp://127.0.0.1:{port}", "-u", "1", "-t", "4s", locustfile=own(tmp_path))
    assert set(done.errors) == {"CONNECT ConnectFailed(ECONNREFUSED)"}, done.output
    assert 2 <= done.errors["CONNECT ConnectFailed(ECONNREFUSED)"] <= 20


def test_a_server_that_comes_back_is_logged_in_to_again(tmp_path: Path) -> None:
    """The server drops a connection with its 50th message: one failure, whatever the users do then."""
    came = 0

    def handler(connection: Any, _: Any) -> None:
        nonlocal came
        for line in lines(connection):
            came += 1
            if came == 50:
                return
            connection.sendall(b"Received: " + line)

    with ScriptedServer(handler) as server:
        options = ("-u", "2", "-r", "2", "-t", "4s", "--think-time", "0.02", "--read-timeout", "30")
        done = run(tmp_path, server.host, *options, locustfile=own(tmp_path))
    assert sum(done.errors.values()) == 1, done.output
    assert came > 60


def test_every_request_of_a_paced_class_is_judged(tmp_path: Path) -> None:
    """The second request of each task too has a response time, and a condition finds it."""

    def handler(connection: Any, _: Any) -> None:
        for line in lines(connection):
            gevent.sleep(0.4 if line == b"again\n" else 0)
            connection.sendall(b"Received: " + line)

    with ScriptedServer(handler) as server:
        options = ("-u", "20", "-r", "20", "-t", "5s", "--rate", "20", "--stop-timeout", "30")
        conditions = ("--fail-if", "AGAIN.response.p50>350ms", "--fail-if", "ASK.response.p50>350ms")
        done = run(tmp_path, server.host, *options, *conditions, locustfile=own(tmp_path))
    assert done.status == 3, done.output
    failed = [line for line in done.output.splitlines() if line.startswith("failed:")]
    assert len(failed) == 1
    figure = failed[0].removeprefix("failed: AGAIN.response.p50>350ms: AGAIN.response.p50 was ")
    assert float(figure.split()[0]) > 350


def test_several_hosts_of_one_run_are_told_apart(tmp_path: Path) -> None:
    """Each class has its host: their entries bear it, and a condition may name both at once, or one."""
    more = """
class Other(Own):
    host = "{second}"
"""

    def slow(connection: Any, _: Any) -> None:
        for line in lines(connection):
            gevent.sleep(0.3)
            connection.sendall(b"Received: " + line)

    with ScriptedServer(servers.confirm) as first, ScriptedServer(slow) as second:
        path = own(tmp_path, f'host = "{first.host}"', more.format(second=second.host))
        conditions = [f"ASK @{each.host}.p50>250ms" for each in (first, second)]
        process = gevent_subprocess.Popen(
            [
                *LOCUST,
                "-f",
                str(path),
                "--headless",
                "--only-summary",
                "-u",
                "20",
                "-r",
                "20",
                "-t",
                "6s",
                "--think-time",
                "0.1",
                "--fail-if",
                conditions[0],
                "--fail-if",
                conditions[1],
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        )
        output, _ = process.communicate(timeout=LIMIT)
    failed = [line for line in output.splitlines() if line.startswith("failed:")]
    assert process.returncode == 3, output
    assert len(failed) == 1, output
    found = re.search(rf"ASK @{re.escape(second.host)}\.p50 was (\S+)", failed[0])
    assert found is not None, output
    assert float(found[1]) > 250
    assert f"ASK @{first.host}" in output


def test_options_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``LOCUST_RATE`` and the like, as Locust's own."""
    monkeypatch.setenv("LOCUST_RATE", "40")
    monkeypatch.setenv("LOCUST_MESSAGE_SIZE", "100")
    monkeypatch.setenv("LOCUST_FAIL_IF", "errors>0")
    with ScriptedServer(servers.confirm) as server:
        done = run(tmp_path, server.host, "-u", "2", "-r", "2", "-t", "3s")
    assert done.status == 0, done.output
    assert "target 40.0/s" in done.output
    assert done.report.parameters["message_size"] == 100
