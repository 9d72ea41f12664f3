"""Reading processes and the machine from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.measure import probe
from benchmarks.measure.runner import harness
from benchmarks.reports import environment


@contextmanager
def child(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python that runs ``code`` after each line that it is sent, and answers with a line."""
    program = f"import sys\nfor line in sys.stdin:\n    {code}\n    print('done', flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield process
        assert process.stdin
        process.stdin.close()


def tell(process: subprocess.Popen[bytes]) -> None:
    """Let the child run its code once."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"done\n"


def test_cpu_of_another_process() -> None:
    """The CPU clock of a busy child agrees with the scheduler's own count; user and system add up to it."""

    def scheduler(pid: int) -> float:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9

    with child("sum(range(10_000_000))") as process:
        tell(process)
        before, counted = probe.read_processes([process.pid]), scheduler(process.pid)
        tell(process)
        used = probe.read_processes([process.pid]).since(before)
        counted = scheduler(process.pid) - counted
    assert counted > 0.05
    assert used["seconds"] == pytest.approx(counted, abs=0.01)
    assert used["user"] + used["system"] == pytest.approx(used["seconds"])
    assert used["user"] > used["system"]
    assert used["threads"] == 1


def test_context_switches() -> None:
    """A process that sleeps ten times gives the CPU away at least ten times."""
    with child("t = __import__('time'); [t.sleep(0.001) for _ in range(10)]") as process:
        tell(process)
        before = probe.read_processes([process.pid])
        tell(process)
        assert probe.read_processes([process.pid]).since(before)["voluntary_switches"] >= 10


def test_ended_process() -> None:
    """A process that has gone: its clock raises, a group's reading leaves it out."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(ProcessLookupError):
        probe.cpu_ns(process.pid)
    assert probe.read_processes([process.pid]).cpu == 0


@pytest.mark.parametrize("read", [probe.pss_bytes, probe.anonymous_bytes])
def test_memory_grows_with_what_is_touched(read: Callable[[list[int]], int]) -> None:
    """A child that fills 100 MiB has that much more, whatever its share of the interpreter's pages is."""
    with child(
        "kept = globals().setdefault('kept', []); kept.append(bytearray(b'x') * (100 << 20))"
    ) as process:
        tell(process)
        before = read([process.pid])
        tell(process)
        assert read([process.pid]) - before == pytest.approx(100 << 20, rel=0.1)


def test_anonymous_memory_is_shared_with_nobody() -> None:
    """Another process that runs the same interpreter changes a PSS, and nothing of this."""
    with child("pass") as process:
        tell(process)
        before = probe.anonymous_bytes([process.pid])
        with child("pass") as other:
            tell(other)
            assert probe.anonymous_bytes([process.pid]) == before
        assert 0 < before < probe.pss_bytes([process.pid])


def test_descendants() -> None:
    """Children and grandchildren count; others do not."""
    start = "p = __import__('subprocess').Popen(['sleep', '30']); globals().setdefault('p', p)"
    with child(start) as process:
        tell(process)
        found = probe.descendants(process.pid)
        try:
            assert found[0] == process.pid
            assert len(found) == 2
            assert os.getpid() not in found
        finally:
            os.kill(found[1], 15)


def test_machine_shares() -> None:
    """A core was busy for as long as one process used it at least; no core for longer than the time."""
    core = min(os.sched_getaffinity(0))
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        began = time.monotonic()
        before = probe.read_machine()
        end = time.thread_time() + 0.3
        while time.thread_time() < end:
            pass
        after = probe.read_machine()
        most = time.monotonic() - began
    finally:
        os.sched_setaffinity(0, allowed)
    shares, seconds = after.since(before), after.at - before.at
    assert len(shares) == os.cpu_count()
    ticks = 5 * probe.TICK  # the kernel counts in ticks
    assert shares[core]["busy"] * seconds >= 0.3 - ticks
    assert all(0 <= share * seconds <= most + ticks for shares_ in shares for share in shares_.values())


def test_kernel_memory_has_its_parts() -> None:
    """Slab, page tables, stacks and socket buffers are all read, in bytes."""
    found = probe.kernel_bytes()
    assert set(found) == {"SUnreclaim", "SReclaimable", "PageTables", "KernelStack", "SocketBuffers"}
    assert found["SUnreclaim"] > 1 << 20


def test_environment_names_what_comparisons_need() -> None:
    """Kernel, CPU, cores, Python, pinning, versions and limits are there."""
    found = environment.describe({"server": [0], "generator": [1]})
    assert found["kernel"].startswith("Linux ")
    assert found["cores"] == os.cpu_count()
    assert found["pinning"] == {"server": [0], "generator": [1]}
    assert found["packages"]["gevent"]
    assert found["limits"]["files"] > 0
    assert found["memory_bytes"] > 1 << 28
    assert len(harness()) == 16
