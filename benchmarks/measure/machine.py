"""What the machine is really: which cores are which, and what limits this process beyond their number.

Two hyper-threads of a core share it, cores of one chip may be of different kinds, and a control group may
give less CPU time or memory than the machine has. The cores for server and load generator are chosen by
that, what interferes all the same is a caveat, and all of it is in the report. Everything is read below a
root folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.reports.report import Fired

ROOT: Final = Path("/")
CPUS: Final = "sys/devices/system/cpu"
UNLIMITED: Final = 1 << 60
"""From so many bytes on a limit of control groups v1 means that there is none."""
FAST_CLOCKS: Final = (
    "tsc",
    "kvm-clock",
    "arch_sys_counter",
    "hyperv_clocksource_tsc_page",
    "riscv_clocksource",
)
FREQUENCY_CHANGE: Final = 0.05

Cores = tuple[int, ...]


def _text(path: Path) -> str | None:
    with contextlib.suppress(OSError):
        return path.read_text().strip() or None
    return None


def _number(path: Path) -> int | None:
    with contextlib.suppress(ValueError):
        return int(_text(path) or "")
    return None


def _list(text: str) -> Iterator[int]:
    """The numbers of ``0-2,5``."""
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def siblings(core: int, root: Path = ROOT) -> Cores:
    """The hyper-threads of the physical core that ``core`` is one of; itself alone where nobody says."""
    topology = root / CPUS / f"cpu{core}" / "topology"
    text = _text(topology / "core_cpus_list") or _text(topology / "thread_siblings_list")
    return tuple(_list(text)) if text else (core,)


def capacity(core: int, root: Path = ROOT) -> int | None:
    """How much a core can do beside the others: the kernel's figure, or its highest frequency in kHz."""
    cpu = root / CPUS / f"cpu{core}"
    known = _number(cpu / "cpu_capacity")
    return known if known is not None else _number(cpu / "cpufreq" / "cpuinfo_max_freq")


def choose(allowed: Iterable[int], root: Path = ROOT) -> tuple[Cores | None, Cores | None]:
    """The cores for server and load generator; None for both where there is one core only.

    The most capable ones, and of these two that are no hyper-threads of one core where there are such.
    """
    ordered = sorted(allowed, key=lambda core: (-(capacity(core, root) or 0), core))
    if len(ordered) < 2:
        return None, None
    first = ordered[0]
    best = capacity(first, root)
    shared = set(siblings(first, root))
    alike = [core for core in ordered[1:] if capacity(core, root) == best]
    others = [core for core in ordered[1:] if core not in shared]
    second = next((core for core in alike if core not in shared), (others or ordered[1:])[0])
    return (first,), (second,)


@dataclass(frozen=True, slots=True)
class Group:
    """The folders of this process's control group and those above it, for one controller."""

    folders: tuple[Path, ...]
    version: int


def _group(controller: str, root: Path) -> Group | None:
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        number, controllers, path = line.split(":", 2)
        base = root / "sys/fs/cgroup"
        if number == "0" and not controllers and not (base / controller).is_dir():
            version = 2
        elif controller in controllers.split(","):
            version = 1
            base /= controllers if (base / controllers).is_dir() else controller
        else:
            continue
        parts = [part for part in path.split("/") if part and part != ".."]
        steps = (base.joinpath(*parts[:count]) for count in range(len(parts), -1, -1))
        return Group(tuple(step for step in steps if step.is_dir()), version)
    return None


def quota(root: Path = ROOT) -> float | None:
    """How many cores' time this process's control groups give it; None: as much as there is."""
    found = []
    group = _group("cpu", root)
    for folder in group.folders if group else ():
        if group and group.version == 2:
            words = (_text(folder / "cpu.max") or "max").split()
            if words[0] != "max":
                found.append(int(words[0]) / int(words[1] if len(words) > 1 else 100_000))
        else:
            allowed, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
            if allowed and allowed > 0 and period:
                found.append(allowed / period)
    return min(found, default=None)


def throttled(root: Path = ROOT) -> float:
    """Seconds that the control groups have held this process back since they were made."""
    seconds = 0.0
    group = _group("cpu", root)
    for folder in group.folders if group else ():
        for line in (_text(folder / "cpu.stat") or "").splitlines():
            name, _, value = line.partition(" ")
            if name in ("throttled_usec", "throttled_time"):
                seconds = max(seconds, int(value) / (1e6 if name == "throttled_usec" else 1e9))
    return seconds


def memory_limit(root: Path = ROOT) -> int | None:
    """How many bytes this process's control groups let it have; None: as many as there are."""
    found = []
    group = _group("memory", root)
    for folder in group.folders if group else ():
        limit = _number(folder / ("memory.max" if group and group.version == 2 else "memory.limit_in_bytes"))
        if limit is not None and limit < UNLIMITED:
            found.append(limit)
    return min(found, default=None)


def frequencies(cores: Iterable[int], root: Path = ROOT) -> dict[str, int]:
    """The present frequency of cores, in kHz, where the kernel tells."""
    read = {core: _number(root / CPUS / f"cpu{core}" / "cpufreq" / "scaling_cur_freq") for core in cores}
    return {str(core): frequency for core, frequency in read.items() if frequency}


def describe(cores: Iterable[int], root: Path = ROOT) -> dict[str, Any]:
    """What does not change during a run, for the report."""
    used = sorted(set(cores))
    clock = root / "sys/devices/system/clocksource/clocksource0/current_clocksource"
    return {
        "siblings": {str(core): list(siblings(core, root)) for core in used},
        "capacity": {str(core): capacity(core, root) for core in used},
        "cpu_quota": quota(root),
        "memory_limit_bytes": memory_limit(root),
        "clock_source": _text(clock),
    }


def caveats(server: Cores, generator: Cores, physical_memory: int, root: Path = ROOT) -> list[Fired]:
    """What of that interferes with a run on these cores."""
    found = []
    between = [(one, two) for one in server for two in generator if one != two and two in siblings(one, root)]
    if between:
        one, two = between[0]
        found.append(
            ("siblings", f"cores {one} and {two} are hyper-threads of one core: server and load share it")
        )
    kinds = {core: capacity(core, root) for core in (*server, *generator)}
    if len(set(kinds.values())) > 1:
        said = ", ".join(f"{core}: {value}" for core, value in sorted(kinds.items()))
        found.append(("kinds-of-cores", f"the cores differ in what they can do ({said})"))
    allowed = quota(root)
    wanted = len({*server, *generator})
    if allowed is not None and allowed < wanted:
        found.append(
            ("cpu-quota", f"a control group gives {allowed:g} of the {wanted} cores' time that are used")
        )
    limit = memory_limit(root)
    if limit is not None and limit < physical_memory:
        found.append(
            (
                "memory-limit",
                f"a control group gives {limit / 2**20:,.0f} MiB of the machine's "
                f"{physical_memory / 2**20:,.0f} MiB",
            )
        )
    clock = describe((), root)["clock_source"]
    if clock and clock not in FAST_CLOCKS:
        found.append(("clock-source", f"the clock source is {clock}: reading the time is slow"))
    return [Fired(check=check, message=message) for check, message in found]


class During:
    """What happens to the machine while a run goes on: throttling, and a change of frequency."""

    def __init__(self, cores: Iterable[int], root: Path = ROOT) -> None:
        self._cores, self._root = sorted(set(cores)), root
        self._throttled, self._frequencies = throttled(root), frequencies(self._cores, root)

    def end(self) -> tuple[dict[str, Any], list[Fired]]:
        """For the report's environment, and the caveats."""
        held = throttled(self._root) - self._throttled
        now = frequencies(self._cores, self._root)
        found = []
        if held > 0:
            message = f"a control group's quota held processes back for {held:.2f} s during the run"
            found.append(Fired(check="throttled", message=message))
        for core, before in self._frequencies.items():
            after = now.get(core, before)
            if abs(after / before - 1) > FREQUENCY_CHANGE:
                message = (
                    f"core {core} ran at {before / 1000:,.0f} MHz at first, {after / 1000:,.0f} at the end"
                )
                found.append(Fired(check="frequency-changed", message=message))
        facts = {"throttled_seconds": round(held, 3), "khz_before": self._frequencies, "khz_after": now}
        return facts, found
