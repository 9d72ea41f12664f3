"""The load generator, the C program and the one in Python: what it sends, checks, counts and times."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from benchmarks.measure.generator import Generator, GeneratorFailed, program
from benchmarks.measure.launch import pinned
from benchmarks.measure.probe import cpu_ns
from benchmarks.measure.servers import find
from benchmarks.measure.servers.process import ServerProcess
from benchmarks.reports.histograms import decode, encode_counts
from tests.conftest import require_tool, wait_until

Answer = Callable[[bytes, socket.socket], bytes | None]


@pytest.fixture(params=["c", "python"])
def start(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Generator]]:
    """Start a generator of either kind with options; it is ended with the test."""
    if request.param == "python":
        monkeypatch.setenv("BENCHMARKS_GENERATOR", "python")
    else:
        require_tool("cc")
    running: list[Generator] = []

    def begin(**options: object) -> Generator:
        running.append(Generator(program(), options))
        return running[-1]

    yield begin
    for generator in running:
        generator.close()


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A real server of the line protocol."""
    with ServerProcess(find("asyncio_protocol")) as process:
        yield process


@contextmanager
def peer(answer: Answer) -> Iterator[tuple[int, list[str]]]:
    """A server that answers as the test wants, line by line; yields its port and who called."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    callers: list[str] = []

    def serve(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            try:
                for line in lines:
                    reply = answer(line, connection)
                    if reply is None:
                        return
                    connection.sendall(reply)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                connection, address = listener.accept()
            except OSError:
                return
            callers.append(address[0])
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1], callers
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def confirm(line: bytes, connection: socket.socket) -> bytes:
    """The right answer."""
    return b"Received: " + line


def load(generator: Generator, connections: int, seconds: float = 0.2) -> dict[str, Any]:
    """Open connections, load them for a while, and return what was counted."""
    generator.ask(f"grow {connections}", "grown")
    generator.ask("start", "started")
    generator.ask("mark", "marked")
    time.sleep(seconds)
    return generator.ask("stop", "stopped")


def test_closed_loop_confirms_and_times_every_message(
    start: Callable[..., Generator], server: ServerProcess
) -> None:
    """All replies are right, each has its latency, none is left open, and the generator tells its own CPU."""
    result = load(start(port=server.port), 20)
    assert result["confirmed"] >= 20  # each has sent one when the load begins
    assert result["errors"] == {}
    assert result["open"] == 20
    assert sum(count for _, count in result["latency_us"]) == result["confirmed"]
    assert result["confirmed"] - result["confirmed_in_window"] <= 20  # what was under way when it was stopped
    assert result["user_us"] + result["system_us"] > 0
    assert sum(result["slots"]) <= result["confirmed_in_window"]


def test_server_cpu_is_read_with_the_counters(start: Callable[..., Generator], server: ServerProcess) -> None:
    """mark and stop read the CPU clock of the processes that they are given, when they are given them."""
    generator = start(port=server.port)
    generator.ask("grow 5", "grown")
    generator.ask("start", "started")
    read = [cpu_ns(server.pid)]
    read.append(generator.ask(f"mark {server.pid}", "marked")["server_cpu_ns"])
    read.append(cpu_ns(server.pid))
    wait_until(lambda: cpu_ns(server.pid) > read[-1] + 10_000_000, 30)  # the load goes on
    read.append(cpu_ns(server.pid))
    read.append(generator.ask(f"stop {server.pid}", "stopped")["server_cpu_ns"])
    read.append(cpu_ns(server.pid))
    assert read == sorted(read)


@pytest.mark.parametrize(("size", "depth"), [(1, 1), (15, 3), (32, 16), (65_536, 16)])
def test_sizes_and_depths(
    start: Callable[..., Generator], server: ServerProcess, size: int, depth: int
) -> None:
    """Messages of any size, pipelined, also when the socket takes only a part of a write."""
    result = load(start(port=server.port, size=size, depth=depth), 3)
    assert result["confirmed"] >= 3
    assert result["errors"] == {}


def test_grow_holds_connections_that_were_confirmed_once(start: Callable[..., Generator]) -> None:
    """Each new connection says one message, and stays open without another."""
    lines: list[bytes] = []

    def note(line: bytes, connection: socket.socket) -> bytes:
        lines.append(line)
        return b"Received: " + line

    with peer(note) as (port, callers):
        generator = start(port=port, window=4)
        assert generator.ask("grow 30", "grown")["open"] == 30
        assert generator.ask("grow 10", "grown")["open"] == 40
        assert generator.ask("grow 0", "grown")["open"] == 40
        assert len(callers) == len(lines) == len(set(lines)) == 40


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda line, _: b"Received: " + line.replace(b"m", b"n", 1), "mismatch"),
        (lambda line, _: b"Received: " + line + b"x", "mismatch"),
        (lambda line, _: b"Error: server-full: come back later\n", "error-reply"),
        (lambda line, _: None, "ended"),
    ],
    ids=["wrong byte", "more than asked for", "error reply", "end of stream"],
)
def test_wrong_answers_are_counted_by_class(
    start: Callable[..., Generator], answer: Answer, error: str
) -> None:
    """A reply that differs in a byte, an error, an early end: each is a failure of its own class."""
    right = threading.Event()  # the first message of each connection is answered rightly

    def late(line: bytes, connection: socket.socket) -> bytes | None:
        return answer(line, connection) if right.is_set() else confirm(line, connection)

    with peer(late) as (port, _):
        generator = start(port=port)
        generator.ask("grow 2", "grown")
        right.set()
        generator.ask("start", "started")
        generator.ask("mark", "marked")
        time.sleep(0.1)
        result = generator.ask("stop", "stopped")
    assert set(result["errors"]) <= {error, "reset"}
    assert result["errors"][error] >= 1


def test_reset_and_refusal_are_told_apart(start: Callable[..., Generator]) -> None:
    """A reset is no end of stream, and a port where nobody listens refuses."""

    def reset(line: bytes, connection: socket.socket) -> bytes | None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        return None

    with peer(reset) as (port, _):
        generator = start(port=port)
        assert set(generator.ask("grow 1", "grown")["errors"]) == {"reset"}
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        generator = start(port=unused.getsockname()[1])
        assert generator.ask("grow 3", "grown")["errors"] == {"refused": 3}


def test_missing_replies_are_counted(start: Callable[..., Generator]) -> None:
    """A message that is never answered is an error once the generator has waited long enough."""
    silent = threading.Event()

    def answer(line: bytes, connection: socket.socket) -> bytes:
        return b"" if silent.is_set() else b"Received: " + line

    with peer(answer) as (port, _):
        generator = start(port=port, drain=0.3)
        generator.ask("grow 4", "grown")
        silent.set()
        generator.ask("start", "started")
        assert generator.ask("stop", "stopped")["errors"] == {"unanswered": 4}


def test_churn_lives_whole_sessions(start: Callable[..., Generator], server: ServerProcess) -> None:
    """Connect, three messages, /exit, end of stream: sessions follow one another and are timed."""
    for seconds in (0.3, 1, 5, 20):  # as long as it takes on a busy machine
        result = load(start(port=server.port, mode="churn", messages=3), 5, seconds)
        assert result["errors"] == {}
        if result["sessions"] > 10:
            break
    assert result["sessions"] > 10
    assert sum(count for _, count in result["service_us"]) == result["sessions"]
    # of a session that was open at the mark some messages came before it; those open at the stop are not over
    assert abs(result["confirmed"] - 3 * result["sessions"]) <= 5 * 3


def test_arrivals_keep_their_rate(server: ServerProcess) -> None:
    """Sessions begin when they are due, however long those before them take; each is timed from then on.

    Those that were due but not begun yet are told as unsent, as messages of ``paced`` are.
    """
    require_tool("cc")
    generator = Generator(program(), {"port": server.port, "mode": "arrivals", "messages": 2, "rate": 200})
    try:
        generator.ask("grow 50", "grown")
        generator.ask("start", "started")
        before = time.monotonic()
        generator.ask("mark", "marked")
        after = time.monotonic()
        time.sleep(1)
        least = time.monotonic() - after
        result = generator.ask("stop", "stopped")
        most = time.monotonic() - before
    finally:
        generator.close()
    assert result["errors"] == {}
    assert sum(count for _, count in result["service_us"]) == result["sessions"]
    # Up to 50 are under way at either end of the window.
    assert least * 200 - 50 - 2 <= result["sessions"] + result["unsent"] <= most * 200 + 50 + 2


def test_an_arrival_waits_where_all_are_under_way() -> None:
    """With one connection and a server that takes its time, a session's time counts from when it was due."""
    require_tool("cc")

    def slow(line: bytes, connection: socket.socket) -> bytes | None:
        if line == b"/exit\n":
            return None
        time.sleep(0.05)
        return b"Received: " + line

    with peer(slow) as (port, _):
        generator = Generator(program(), {"port": port, "mode": "arrivals", "rate": 1000, "size": 32})
        try:
            generator.ask("grow 1", "grown")
            generator.ask("start", "started")
            generator.ask("mark", "marked")
            time.sleep(0.5)
            result = generator.ask("stop", "stopped")
        finally:
            generator.close()
    assert result["unsent"] > 100
    assert result["sessions"] >= 1
    assert max(value for value, _ in result["latency_us"]) >= 150_000


def test_paced_keeps_its_rate(start: Callable[..., Generator], server: ServerProcess) -> None:
    """An open schedule sends what is due: the rate is the one asked for, and can be changed.

    What was due but not sent yet is told as unsent; both together are what the rate makes of the time that
    the generator has had, which lies between two spans that are measured here.
    """
    generator = start(port=server.port, mode="paced", rate=1000)
    generator.ask("grow 10", "grown")
    for rate in (1000, 200):
        generator.send(f"rate {rate}")
        generator.ask("mark", "marked")
        early = time.monotonic()
        generator.ask("start", "started")
        late = time.monotonic()
        time.sleep(0.5)
        least = time.monotonic() - late
        result = generator.ask("stop", "stopped")
        most = time.monotonic() - early
        assert least * rate - 1 <= result["confirmed"] + result["unsent"] <= most * rate + 1
        assert result["confirmed"] > 0
        assert result["errors"] == {}


def test_a_stall_is_seen_by_all_messages_that_it_delays(start: Callable[..., Generator]) -> None:
    """A stall of 0.3 s delays every message due meanwhile, also those not yet sent.

    Eight connections would show eight slow messages, were latency counted from the sending.
    """
    stall, over = threading.Event(), threading.Event()
    lock = threading.Lock()
    stalled = 0.0

    def answer(line: bytes, connection: socket.socket) -> bytes:
        nonlocal stalled
        with lock:
            if stall.is_set():
                stall.clear()
                began = time.monotonic()
                time.sleep(0.3)
                stalled = time.monotonic() - began
                over.set()
        return b"Received: " + line

    with peer(answer) as (port, _):
        generator = start(port=port, mode="paced", rate=400)
        generator.ask("grow 8", "grown")
        generator.ask("mark", "marked")
        began = time.monotonic()
        generator.ask("start", "started")
        stall.set()
        assert over.wait(30)
        result = generator.ask("stop", "stopped")
        most = time.monotonic() - began
    assert result["errors"] == {}
    for least in (0.03, 0.15, 0.25):  # what was due so long before the end of the stall, or longer
        late = sum(count for value, count in result["latency_us"] if value >= 0.99 * least * 1e6)
        assert late >= (stalled - least) * 400 - 1
    assert max(value for value, _ in result["latency_us"]) <= most * 1e6


def test_what_could_not_be_sent_counts(start: Callable[..., Generator]) -> None:
    """With every connection full, messages stay due: unsent, and their wait so far is recorded."""
    quiet = threading.Event()
    kept: list[bytes] = []

    def answer(line: bytes, connection: socket.socket) -> bytes:
        if not quiet.is_set():
            return b"Received: " + line
        kept.append(line)
        return b""

    with peer(answer) as (port, _):
        generator = start(port=port, mode="paced", rate=2000, drain=0.1)
        generator.ask("grow 1", "grown")
        quiet.set()
        early = time.monotonic()
        generator.ask("start", "started")
        late = time.monotonic()
        generator.ask("mark", "marked")
        wait_until(lambda: len(kept) == 64, 30)
        time.sleep(0.3)
        least = time.monotonic() - late
        result = generator.ask("stop", "stopped")
        most = time.monotonic() - early
    assert least * 2000 - 64 - 1 <= result["unsent"] <= most * 2000 - 64 + 1
    assert sum(count for _, count in result["latency_us"]) >= result["unsent"]
    assert result["errors"]["unanswered"] == 64


def test_source_addresses(start: Callable[..., Generator]) -> None:
    """Connections come from as many addresses as asked for, beginning where asked."""
    with peer(confirm) as (port, callers):
        start(port=port, sources=3, first_source=7).ask("grow 9", "grown")
        assert sorted(set(callers)) == ["127.0.0.7", "127.0.0.8", "127.0.0.9"]


def test_latencies_are_hdr_buckets(start: Callable[..., Generator]) -> None:
    """Values are lower ends of HDR buckets with 3 digits, so that encoding them loses nothing."""
    numbers = itertools.count()

    def answer(line: bytes, connection: socket.socket) -> bytes:
        time.sleep(0.004 * (next(numbers) % 3))
        return b"Received: " + line

    with peer(answer) as (port, _):
        generator = start(port=port)
        generator.ask("grow 2", "grown")
        for _ in range(20):  # a bucket is one microsecond wide below 2048, and wider above: both are wanted
            result = load(generator, 0)
            counts = dict(result["latency_us"])
            if min(counts) < 2048 < max(counts):
                break
    assert min(counts) < 2048 < max(counts)
    histogram = decode(encode_counts(counts), "here")
    assert histogram.get_total_count() == sum(counts.values()) == result["confirmed"]
    for value, count in counts.items():
        assert histogram.get_lowest_equivalent_value(value) == value
        assert histogram.get_count_at_value(value) == count


@pytest.mark.parametrize("argument", ["nonsense", "colour=blue"])
def test_wrong_arguments_end_it(argument: str) -> None:
    """An argument that it does not know: one line on standard error, status 2."""
    for command in (program(), [sys.executable, "-m", "benchmarks.measure.generator.fallback"]):
        done = subprocess.run([*command, argument], capture_output=True, text=True, timeout=50, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("generator: ")
        assert done.stderr.count("\n") == 1


def test_a_generator_that_ends_is_reported(start: Callable[..., Generator]) -> None:
    """Talking to one that has ended raises GeneratorFailed with its status; so does silence."""
    generator = start(port=1)
    with pytest.raises(GeneratorFailed, match=r"has not said 'grown' within 0\.1 s"):
        generator.expect("grown", 0.1)
    generator.send("quit")
    with pytest.raises(GeneratorFailed, match="ended with status 0"):
        generator.ask("start", "started")


def test_pinned_is_inherited_and_undone() -> None:
    """Processes started inside run on the cores; this one is as before afterwards."""
    import os

    before = os.sched_getaffinity(0)
    one = {min(before)}
    with pinned(one):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        wait_until(lambda: os.sched_getaffinity(child.pid) == one)
        assert os.sched_getaffinity(0) == before
    finally:
        child.communicate(b"\n")
