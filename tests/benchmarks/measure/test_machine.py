"""The machine as it is: siblings, kinds of cores, quotas and limits, read from a made-up /sys and /proc."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.measure import machine

GIB = 1 << 30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root folder of a machine with nothing to say."""
    return tmp_path


def put(root: Path, path: str, text: str) -> None:
    """One file of the made-up machine."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")


def cpu(root: Path, number: int, **files: str) -> None:
    """One core's files."""
    for name, text in files.items():
        put(root, f"{machine.CPUS}/cpu{number}/{name.replace('__', '/')}", text)


def checks(root: Path, server: int = 0, generator: int = 1) -> dict[str, str]:
    """The caveats with their messages."""
    return {fired.check: fired.message for fired in machine.caveats((server,), (generator,), 8 * GIB, root)}


def test_a_plain_machine_has_no_caveats(root: Path) -> None:
    """Where nothing is said of cores and groups the first two cores are taken, without a caveat."""
    assert machine.choose([2, 0, 1], root) == ((0,), (1,))
    assert machine.choose([3], root) == (None, None)
    assert checks(root) == {}
    assert machine.describe([0], root) == {
        "siblings": {"0": [0]}, "capacity": {"0": None}, "cpu_quota": None, "memory_limit_bytes": None,
        "clock_source": None,
    }  # fmt: skip


def test_hyper_threads_of_one_core_are_not_two_cores(root: Path) -> None:
    """The load generator gets another core where there is one; else the two are named."""
    for core, shared in enumerate(["0,1", "0-1", "2-3", "2,3"]):
        cpu(root, core, topology__thread_siblings_list=shared)
    assert machine.choose(range(4), root) == ((0,), (2,))
    assert checks(root, 0, 2) == {}
    assert machine.choose([0, 1], root) == ((0,), (1,))
    assert "cores 0 and 1 are hyper-threads of one core" in checks(root)["siblings"]


def test_the_capable_cores_are_taken(root: Path) -> None:
    """Of big and little cores two big ones; where there is one big one only, that they differ is said."""
    for core, size in enumerate(["400", "400", "1024", "1024"]):
        cpu(root, core, cpu_capacity=size)
    assert machine.choose(range(4), root) == ((2,), (3,))
    assert machine.choose([0, 1, 3], root) == ((3,), (0,))
    assert "0: 400, 3: 1024" in checks(root, 3, 0)["kinds-of-cores"]


def test_kinds_by_frequency(root: Path) -> None:
    """Where the kernel has no capacity the highest frequency tells."""
    cpu(root, 0, cpufreq__cpuinfo_max_freq="3000000")
    cpu(root, 1, cpufreq__cpuinfo_max_freq="5000000")
    cpu(root, 2, cpufreq__cpuinfo_max_freq="5000000")
    assert machine.choose(range(3), root) == ((1,), (2,))


@pytest.mark.parametrize("version", [1, 2])
def test_a_quota_and_a_memory_limit(root: Path, version: int) -> None:
    """Those of the own group and of the groups above it: the least counts, and both are named."""
    if version == 2:
        put(root, "proc/self/cgroup", "0::/outer/inner")
        put(root, "sys/fs/cgroup/outer/cpu.max", "50000 100000")
        put(root, "sys/fs/cgroup/outer/inner/cpu.max", "max 100000")
        put(root, "sys/fs/cgroup/outer/memory.max", "max")
        put(root, "sys/fs/cgroup/outer/inner/memory.max", str(GIB))
    else:
        put(root, "proc/self/cgroup", "4:memory:/outer/inner\n3:cpu,cpuacct:/outer/inner")
        for folder, quota, limit in (("outer", "50000", str(1 << 63)), ("outer/inner", "-1", str(GIB))):
            put(root, f"sys/fs/cgroup/cpu,cpuacct/{folder}/cpu.cfs_quota_us", quota)
            put(root, f"sys/fs/cgroup/cpu,cpuacct/{folder}/cpu.cfs_period_us", "100000")
            put(root, f"sys/fs/cgroup/memory/{folder}/memory.limit_in_bytes", limit)
    assert (machine.quota(root), machine.memory_limit(root)) == (0.5, GIB)
    assert checks(root)["cpu-quota"] == "a control group gives 0.5 of the 2 cores' time that are used"
    assert checks(root)["memory-limit"] == "a control group gives 1,024 MiB of the machine's 8,192 MiB"
    assert machine.describe([0], root)["cpu_quota"] == 0.5


@pytest.mark.parametrize(("name", "unit"), [("throttled_usec", 1e6), ("throttled_time", 1e9)])
def test_throttling_during_the_run(root: Path, name: str, unit: float) -> None:
    """What the quota held back while the run went on is a caveat, what it did before is none."""
    if name == "throttled_usec":
        put(root, "proc/self/cgroup", "0::/a")
        file = "sys/fs/cgroup/a/cpu.stat"
    else:
        put(root, "proc/self/cgroup", "3:cpu:/a")
        file = "sys/fs/cgroup/cpu/a/cpu.stat"
    put(root, file, f"nr_throttled 3\n{name} {int(7 * unit)}")
    assert machine.During([0], root).end()[1] == []
    during = machine.During([0], root)
    put(root, file, f"nr_throttled 9\n{name} {int(9.5 * unit)}")
    facts, (fired,) = during.end()
    assert facts["throttled_seconds"] == 2.5
    assert (fired.check, "for 2.50 s" in fired.message) == ("throttled", True)


def test_a_change_of_frequency(root: Path) -> None:
    """More than 5% between begin and end is a caveat."""
    cpu(root, 0, cpufreq__scaling_cur_freq="3000000")
    during = machine.During([0], root)
    cpu(root, 0, cpufreq__scaling_cur_freq="2900000")
    assert during.end()[1] == []
    cpu(root, 0, cpufreq__scaling_cur_freq="2000000")
    (fired,) = during.end()[1]
    assert fired.message == "core 0 ran at 3,000 MHz at first, 2,000 at the end"


def test_a_slow_clock(root: Path) -> None:
    """A clock source that is slow to read is named; a fast one is not."""
    path = "sys/devices/system/clocksource/clocksource0/current_clocksource"
    put(root, path, "tsc")
    assert checks(root) == {}
    put(root, path, "acpi_pm")
    assert "acpi_pm" in checks(root)["clock-source"]


def test_this_machine_is_described() -> None:
    """The real one has all of it, and cores of its own are chosen."""
    import os

    facts = machine.describe(os.sched_getaffinity(0))
    assert all(int(core) in found for core, found in facts["siblings"].items())
    assert set(facts) == {"siblings", "capacity", "cpu_quota", "memory_limit_bytes", "clock_source"}
