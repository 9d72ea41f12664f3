"""Where a report was measured: machine, kernel, versions, settings, limits; and the revision of the code."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import resource
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from benchmarks.reports.report import Revision

PACKAGES: Final = ("gevent", "greenlet", "uvloop", "tornado", "trio", "twisted", "locust", "chat-gevent")
SYSCTLS: Final = (
    "net/core/somaxconn",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/tcp_rmem",
    "net/ipv4/tcp_wmem",
    "net/ipv4/tcp_mem",
    "net/ipv4/tcp_tw_reuse",
    "fs/file-max",
    "vm/max_map_count",
)


def _line(command: list[str]) -> str | None:
    if not shutil.which(command[0]):
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0].strip() or None


def _field(path: str, name: str) -> str | None:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _virtualisation() -> str:
    found = _line(["systemd-detect-virt"])
    if found:
        return found
    flags = _field("/proc/cpuinfo", "flags") or ""
    return "virtual machine" if "hypervisor" in flags.split() else "none"


def _governor() -> str | None:
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return path.read_text().strip() if path.exists() else None


def describe(pinning: dict[str, Any]) -> dict[str, Any]:
    """The environment part of a report."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    sysctls = {}
    for name in SYSCTLS:
        path = Path("/proc/sys") / name
        if path.exists():
            sysctls[name.replace("/", ".")] = " ".join(path.read_text().split())
    return {
        "kernel": f"{platform.system()} {platform.release()}",
        "cpu": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": os.cpu_count() or 1,
        "virtualisation": _virtualisation(),
        "governor": _governor(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "python_build": " ".join([*platform.python_build(), platform.python_compiler()]),
        "compiler": _line(["cc", "--version"]),
        "go": _line(["go", "version"]),
        "packages": packages,
        "sysctls": sysctls,
        "limits": {"files": resource.getrlimit(resource.RLIMIT_NOFILE)[1]},
        "pinning": pinning,
    }


def revision() -> Revision:
    """The commit of the working tree that this file is in, and whether tracked files differ from it."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        if not shutil.which("git"):
            return None
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if not commit:
        return Revision(commit="", dirty=False)
    return Revision(commit=commit, dirty=bool(git("status", "--porcelain", "--untracked-files=no")))


def source_hash(files: Iterable[Path]) -> str:
    """SHA-256 over the contents of ``files``, in this order; the first 16 digits."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
