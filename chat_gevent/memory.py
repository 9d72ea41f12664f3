"""How much memory this process may still have: of the machine, and of the control groups that it is in.

A container's or service's limit stands in a control group, in the process's own or in one above it; the
machine's ``MemAvailable`` knows nothing of it. Both versions of control groups are read, as the kernel
documents them (cgroup-v2.rst, cgroup-v1/memory.rst). Cached file contents count as used there, and as left
here: the kernel drops them first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

GROUPS: Final = Path("/sys/fs/cgroup")

V1: Final = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
V2: Final = "memory.max", "memory.current", "inactive_file"
"""A group's limit, what is used, and in ``memory.stat`` the part of that which can be had back."""


def available_memory() -> int:
    """Bytes this process may still use, by the narrowest limit. Raises OSError: there is no /proc."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    return max(0, min([available, *left_in_groups(Path("/proc/self/cgroup").read_text())]))


def left_in_groups(membership: str, groups: Path = GROUPS) -> Iterator[int]:
    """Bytes left in each group with a limit that a process is in, by its ``/proc/PID/cgroup``."""
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _left(groups, path, V2)
        elif "memory" in controllers.split(","):
            yield from _left(groups / "memory", path, V1)


def _left(root: Path, path: str, names: tuple[str, str, str]) -> Iterator[int]:
    """Of the group and those above. In a container the path may be the host's, and only the root be there."""
    limit, used, cached = names
    group = root / path.lstrip("/")
    for each in (group, *group.parents):
        with contextlib.suppress(OSError):  # there is no such group, or it has no limit
            allowed = (each / limit).read_text().strip()
            if allowed.isdecimal():
                statistics = dict(map(str.split, (each / "memory.stat").read_text().splitlines()))
                yield int(allowed) - int((each / used).read_text()) + int(statistics.get(cached, 0))
        if each == root:
            return
