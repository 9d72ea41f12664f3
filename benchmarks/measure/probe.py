"""Looks at processes and the machine from outside: CPU, memory, context switches, kernel memory.

CPU time of another process comes from its CPU clock, in nanoseconds: clock id ``(~pid << 3) | 2``,
which is what clock_getcpuclockid(3) returns. The split into user and system time is from
``/proc/PID/stat``; the kernel scales it from samples, so it is good to a percent or so over a second.
Memory is PSS, the proportional set size of ``/proc/PID/smaps_rollup``: pages shared by several
processes count once in all. Growth of memory is that of its anonymous part. Kernel memory is the growth
of slab and page tables and sockets' buffers in ``/proc/meminfo`` and ``/proc/net/sockstat``.
"""

from __future__ import annotations

import functools
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
"""Seconds a tick of /proc/PID/stat."""


def descendants(pid: int) -> list[int]:
    """``pid`` and all processes under it."""
    found = [pid]
    for parent in found:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def cpu_ns(pid: int) -> int:
    """CPU time that the process has used, all its threads, in nanoseconds. Raises ProcessLookupError."""
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError as error:
        raise ProcessLookupError(pid) from error


@functools.cache
def softirq_threads() -> tuple[int, ...]:
    """The kernel's threads that take over network work when there is much; containers see none."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if (directory / "comm").read_text().startswith("ksoftirqd/"):
                found.append(int(directory.name))
        except OSError:
            continue
    return tuple(found)


@dataclass(frozen=True)
class ProcessReading:
    """What a group of processes has used up to now."""

    cpu: float
    user: float
    system: float
    voluntary_switches: int
    involuntary_switches: int
    threads: int

    def since(self, earlier: ProcessReading) -> dict[str, float]:
        """The differences, in seconds and counts. ``user`` and ``system`` are scaled to add up to ``cpu``."""
        cpu = self.cpu - earlier.cpu
        user, system = self.user - earlier.user, self.system - earlier.system
        scale = cpu / (user + system) if user + system else 0.0
        return {
            "seconds": cpu,
            "user": user * scale,
            "system": system * scale,
            "voluntary_switches": self.voluntary_switches - earlier.voluntary_switches,
            "involuntary_switches": self.involuntary_switches - earlier.involuntary_switches,
            "threads": self.threads,
        }


def read_processes(pids: list[int]) -> ProcessReading:
    """Read all of ``pids``; those that have ended count nothing. Switches are summed over threads."""
    cpu = user = system = 0.0
    voluntary = involuntary = threads = 0
    for pid in pids:
        try:
            cpu += cpu_ns(pid) / 1e9
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            user += int(fields[11]) * TICK
            system += int(fields[12]) * TICK
            threads += int(fields[17])
            # One file per thread: beyond a few hundred, reading them all would disturb what is measured.
            tasks = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208
            for task in tasks if len(tasks) <= 200 else []:
                for line in Path(f"/proc/{pid}/task/{task}/status").read_text().splitlines():
                    if line.startswith("voluntary"):
                        voluntary += int(line.split()[1])
                    elif line.startswith("nonvoluntary"):
                        involuntary += int(line.split()[1])
        except (OSError, ProcessLookupError):
            continue
    return ProcessReading(cpu, user, system, voluntary, involuntary, threads)


def pss_bytes(pids: list[int]) -> int:
    """Memory of the processes in bytes; shared pages count once."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def anonymous_bytes(pids: list[int]) -> int:
    """The part of :func:`pss_bytes` that is no file's: heaps and stacks, and what was written to.

    It does not change when other processes that run the same programs and libraries come and go, so growth
    is measured by it. Where the kernel does not tell (Linux before 5.4) it is all of PSS.
    """
    total = 0
    for pid in pids:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        sizes: dict[str, str] = dict(re.findall(r"^(Pss\w*): +(\d+)", rollup, re.MULTILINE))
        total += int(sizes.get("Pss_Anon") or sizes["Pss"]) * 1024
    return total


def kernel_bytes() -> dict[str, int]:
    """The kernel's memory that connections may take, in bytes: slab, page tables, socket buffers, stacks."""
    found = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("SUnreclaim", "SReclaimable", "PageTables", "KernelStack"):
            found[name] = int(value.split()[0]) * 1024
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            found["SocketBuffers"] = int(line.split()[-1]) * os.sysconf("SC_PAGE_SIZE")
    return found


def in_use() -> int:
    """Bytes of the machine's memory that hold something other than files' contents.

    Not the kernel's MemAvailable: it takes sockets' inodes for something that can be had back.
    """
    found = dict(re.findall(r"(\w+): +(\d+) kB", Path("/proc/meminfo").read_text()))
    free = sum(int(found[name]) for name in ("MemFree", "Buffers", "Cached"))
    return (int(found["MemTotal"]) - free) * 1024


@dataclass(frozen=True)
class MachineReading:
    """Seconds that each core has spent, by kind, since the machine started."""

    at: float
    cores: tuple[tuple[float, ...], ...]
    """user, nice, system, idle, iowait, irq, softirq, steal"""

    def since(self, earlier: MachineReading) -> list[dict[str, float]]:
        """For each core the share of the time that it was busy, in softirq, and stolen by the host."""
        wall = self.at - earlier.at
        shares = []
        for now, then in zip(self.cores, earlier.cores, strict=True):
            used = [b - a for a, b in zip(then, now, strict=True)]
            busy = used[0] + used[1] + used[2] + used[5] + used[6]
            shares.append({"busy": busy / wall, "softirq": used[6] / wall, "steal": used[7] / wall})
        return shares


def read_machine() -> MachineReading:
    """Read /proc/stat."""
    cores = []
    for line in Path("/proc/stat").read_text().splitlines():
        name, *values = line.split()
        if name.startswith("cpu") and name != "cpu":
            cores.append(tuple(int(value) * TICK for value in values[:8]))
    return MachineReading(time.monotonic(), tuple(cores))
