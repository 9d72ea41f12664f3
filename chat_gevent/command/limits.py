"""The ``limits`` command: what this machine allows, the clients that follow from it, and how to raise it.

Each limit is read from the kernel. The memory of one connection is measured at the start: some thousand
clients connect to a server in this process over the loopback interface, and are confirmed once.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from chat_gevent.command.standard import complain, say
from chat_gevent.files import CLIENT_BYTES, MEMORY_SHARE, RESERVED_FILES, raise_file_limit
from chat_gevent.memory import available_memory

KIB: Final = 1024
MEASURED_CLIENTS: Final = 4000

KERNEL_OBJECTS: Final = {
    "TCP": 2368,
    "sock_inode_cache": 832,
    "filp": 192,
    "dentry": 192,
    "eventpoll_epi": 128,
}
"""What the kernel keeps of one idle, registered TCP connection: slab caches and the size of an object in
bytes, from /proc/slabinfo of Linux 6.18 on x86-64. Where that file can be read its own sizes count.
Buffers come on top while data is under way."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the kernel allows; memory in bytes."""

    cores: int
    memory_available: int
    files_per_process: int
    files_per_process_most: int
    files_in_all: int
    files_in_use: int
    accept_queue: int
    syn_queue: int
    ports: tuple[int, int]
    memory_maps: int
    user_bytes_per_connection: int
    kernel_bytes_per_connection: int
    epoll_watches: int = 2**62
    """Of all processes of one user."""

    @classmethod
    def read(cls, user_bytes: int) -> Machine:
        """This machine, with what a connection was measured to take in the server's process."""
        low, high = (int(each) for each in _sysctl("net/ipv4/ip_local_port_range").split())
        return cls(
            cores=len(os.sched_getaffinity(0)),
            memory_available=available_memory(),
            files_per_process=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
            files_per_process_most=int(_sysctl("fs/nr_open")),
            files_in_all=int(_sysctl("fs/file-max")),
            files_in_use=int(_sysctl("fs/file-nr").split()[0]),
            accept_queue=int(_sysctl("net/core/somaxconn")),
            syn_queue=int(_sysctl("net/ipv4/tcp_max_syn_backlog")),
            ports=(low, high),
            memory_maps=int(_sysctl("vm/max_map_count")),
            user_bytes_per_connection=user_bytes,
            kernel_bytes_per_connection=_kernel_bytes(),
            epoll_watches=int(_sysctl("fs/epoll/max_user_watches")),
        )

    @property
    def bytes_per_connection(self) -> int:
        """Of an idle client, server and kernel; no less than the default of max_connections counts."""
        return max(CLIENT_BYTES, self.user_bytes_per_connection + self.kernel_bytes_per_connection)

    def connections(self, workers: int) -> tuple[int, str]:
        """Most clients that ``workers`` processes carry, and the limit that says so."""
        bounds = {
            "open files per process": workers * max(0, self.files_per_process - RESERVED_FILES),
            "open files in all (fs.file-max)": max(0, self.files_in_all - self.files_in_use - RESERVED_FILES),
            "epoll watches (fs.epoll.max_user_watches)": self.epoll_watches,
            "memory": int(self.memory_available * MEMORY_SHARE / self.bytes_per_connection),
        }
        limit = min(bounds, key=lambda name: bounds[name])
        return bounds[limit], limit


def _sysctl(name: str) -> str:
    return Path("/proc/sys", name).read_text()


def _kernel_bytes() -> int:
    sizes = dict(KERNEL_OBJECTS)
    try:
        lines = Path("/proc/slabinfo").read_text().splitlines()
    except OSError:  # only root may read it
        lines = []
    for words in (line.split() for line in lines):
        if words and words[0] in sizes:
            sizes[words[0]] = int(words[3])
    return sum(sizes.values())


def measure_connection(clients: int = MEASURED_CLIENTS) -> int:
    """Bytes of this process's memory that one idle client takes which has been served once.

    Raises OSError: there are no files left for so many clients.
    """
    from _socket import socket as RawSocket

    from gevent import sleep

    from chat_gevent.connection import Connection
    from chat_gevent.framing import LINE
    from chat_gevent.server import ChatServer
    from chat_gevent.settings import Settings

    held: list[int] = []
    with ChatServer(("127.0.0.1", 0), settings=Settings(framing=LINE)) as server:
        server.start()
        core = server.core

        def connect(count: int) -> None:
            for _ in range(count):
                client = socket.socket()
                client.setblocking(False)
                client.connect_ex(server.address)
                held.append(client.detach())  # a bare descriptor: the objects here must not be measured
                if len(held) % 100 == 0:
                    sleep(0.001)
            for fd in held[-count:]:
                while not _sent(fd):
                    sleep(0.001)
            while core.registry.totals(core.engine.all())[0] < len(held):
                sleep(0.001)

        try:
            connect(clients // 4)  # what grows in steps has grown, and shared memory is there
            gc.collect()
            before = _resident()
            connect(clients)
            gc.collect()
            least = (
                Connection.__basicsize__ + RawSocket.__basicsize__
            )  # few clients fit into pages that are there
            return max(least, (_resident() - before) // clients)
        finally:
            server.stop(0)  # nobody is there who could be told to leave
            for fd in held:
                os.close(fd)


def _sent(fd: int) -> bool:
    try:
        return os.write(fd, b"x\n") > 0
    except BlockingIOError:  # not connected yet
        return False


def _resident() -> int:
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * KIB
    raise OSError("no Pss in /proc/self/smaps_rollup")


def advice(machine: Machine, wanted: int, workers: int) -> list[str]:
    """Lines to paste that raise what stands in the way of ``wanted`` clients over ``workers`` processes."""
    files = -(-wanted // workers) + RESERVED_FILES
    in_all = wanted + machine.files_in_use + workers * RESERVED_FILES
    sysctls = {}
    if files > machine.files_per_process_most:
        sysctls["fs.nr_open"] = str(files)
    if in_all > machine.files_in_all:
        sysctls["fs.file-max"] = str(in_all)
    if machine.accept_queue < 4096:
        sysctls["net.core.somaxconn"] = "4096"
    if machine.syn_queue < 4096:
        sysctls["net.ipv4.tcp_max_syn_backlog"] = "4096"
    lines = []
    if sysctls:
        lines.append("# as root: sysctls, now and at every start")
        lines.append("cat > /etc/sysctl.d/90-chat-gevent.conf <<'END'")
        lines += [f"{name} = {value}" for name, value in sysctls.items()]
        lines += ["END", "sysctl --system"]
    if files > machine.files_per_process:
        lines.append("# open files: one of these, for whatever starts the server")
        lines.append(f"ulimit -Hn {files} && ulimit -Sn {files}   # as root, in the shell")
        lines.append(f"LimitNOFILE={files}   # systemd, in [Service]")
        lines.append(f"docker run --ulimit nofile={files}:{files} ...")
    return lines


def report(machine: Machine, workers: list[int], wanted: int | None) -> str:
    """The whole text for a person."""
    low, high = machine.ports
    memory = machine.memory_available / 2**30
    each, user = machine.bytes_per_connection, machine.user_bytes_per_connection
    rows = [
        ("cores", f"{machine.cores}", ""),
        ("memory available", f"{memory:.1f} GiB", ""),
        (
            "open files, one process",
            f"{machine.files_per_process:,}",
            "the hard limit; serve raises the soft one",
        ),
        ("  the most it may be set to", f"{machine.files_per_process_most:,}", "fs.nr_open"),
        ("open files, in all", f"{machine.files_in_all:,}", f"fs.file-max; {machine.files_in_use:,} in use"),
        ("accept queue", f"{machine.accept_queue:,}", "net.core.somaxconn; --backlog can't go beyond"),
        ("SYN queue", f"{machine.syn_queue:,}", "net.ipv4.tcp_max_syn_backlog"),
        (
            "ports of one client address",
            f"{high - low + 1:,}",
            f"{low} to {high}; binds proxies and load tests",
        ),
        (
            "memory maps, one process",
            f"{machine.memory_maps:,}",
            "vm.max_map_count; greenlets that ended leave holes",
        ),
        (
            "memory of an idle client",
            f"{each / KIB:.1f} KiB",
            f"server {user / KIB:.2f}, measured; kernel {(each - user) / KIB:.1f}",
        ),
    ]
    lines = [f"{name:<28} {value:>14}  {note}".rstrip() for name, value, note in rows]
    lines += ["", "workers   clients at once  limited by"]
    for count in workers:
        most, limit = machine.connections(count)
        lines.append(f"{count:>7} {most:>17,}  {limit}")
    count = workers[-1]
    if wanted is None:
        wanted = min(10**6 * count, int(machine.memory_available * MEMORY_SHARE / each))
    wanted = max(wanted, 1)
    lines += ["", f"For {wanted:,} clients over {count} worker{'s' * (count > 1)}:"]
    needed = wanted * each
    if needed > machine.memory_available * MEMORY_SHARE:
        lines.append(
            f"# more memory: {needed / 2**30 / MEMORY_SHARE:.1f} GiB available, where {memory:.1f} are"
        )
    lines += advice(machine, wanted, count) or ["# nothing has to be raised"]
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` what ``chat-gevent limits`` takes."""
    parser.add_argument("--workers", type=int, metavar="N", help="processes to count with (default: cores)")
    parser.add_argument(
        "--clients", type=int, metavar="N", help="clients to be carried (default: what the memory carries)"
    )
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  chat-gevent limits --clients 100000     what to raise for so many"


def run(arguments: argparse.Namespace) -> int:
    """``chat-gevent limits``; returns its exit status."""
    for name in ("workers", "clients"):
        value = getattr(arguments, name)
        if value is not None and not 1 <= value <= 10**9:
            problem = f"--{name} = {value}: must be from 1 to 1000000000"
            return complain(f"chat-gevent limits: error: {problem}", 2)
    files = raise_file_limit()
    clients = min(MEASURED_CLIENTS, max(8, (files - RESERVED_FILES) // 3))
    try:
        machine = Machine.read(measure_connection(clients))
    except OSError as error:
        return complain(f"chat-gevent limits: error: can't measure a connection: {error}", 1)
    last = arguments.workers or machine.cores
    workers = sorted({1, last} | {count for count in (2, 4, 8) if count < last})
    if arguments.json:
        found: Mapping[str, object] = {
            **asdict(machine),
            "connections": {count: machine.connections(count)[0] for count in workers},
        }
        say(json.dumps(found, indent=2))
    else:
        say(report(machine, workers, arguments.clients))
    return 0
