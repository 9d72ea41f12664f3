"""Memory that is left: of control groups of both versions, in the process's own group and in those above."""

from __future__ import annotations

from pathlib import Path

from chat_gevent import files
from chat_gevent.memory import available_memory, left_in_groups


def _group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text + "\n")


def test_groups_of_version_2(tmp_path: Path) -> None:
    """The own group, and those above that have a limit; cached files count as left."""
    service = tmp_path / "system.slice" / "chat.service"
    _group(service, memory_max="1000000", memory_current="400000", memory_stat="anon 1\ninactive_file 100000")
    _group(tmp_path / "system.slice", memory_max="max", memory_current="1", memory_stat="anon 1")
    _group(tmp_path, memory_max="800000", memory_current="300000", memory_stat="anon 1")
    assert list(left_in_groups("0::/system.slice/chat.service\n", tmp_path)) == [700_000, 500_000]


def test_groups_of_version_1(tmp_path: Path) -> None:
    """The memory controller's, whatever stands beside it."""
    _group(
        tmp_path / "memory" / "docker" / "x",
        memory_limit_in_bytes="1000000",
        memory_usage_in_bytes="400000",
        memory_stat="total_inactive_file 50000",
    )
    assert list(left_in_groups("5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n", tmp_path)) == [650_000]


def test_a_path_that_is_the_hosts(tmp_path: Path) -> None:
    """In a container only the root may be there: it is the container's own group."""
    _group(tmp_path, memory_max="800000", memory_current="300000", memory_stat="anon 1")
    assert list(left_in_groups("0::/docker/abc\n", tmp_path)) == [500_000]


def test_this_machine() -> None:
    """It is no more than the machine has, and each bound on clients carries one at least."""
    [total] = [
        line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:")
    ]
    assert 0 < available_memory() <= int(total.split()[1]) * 1024
    bounds = files.connection_bounds()
    assert set(bounds) == {"the limit of open files", "fs.file-max", "fs.epoll.max_user_watches", "memory"}
    assert files.default_max_connections() == min(files.connection_bounds().values())
