"""Faults of the process and of the machine that it runs on."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
from gevent import socket

from benchmarks.experiments.faults import NotHere
from benchmarks.experiments.faults.served import (
    Served,
    WellBehaved,
    hold,
    reset,
    rest,
    same_counts,
    settle,
    until,
)
from benchmarks.measure import launch
from benchmarks.measure.servers.process import free_port

LINE = ("--framing", "line")


def killed(scale: float) -> str:
    """SIGKILL under load, again and again, with the addresses taken by the next server at once."""
    times = max(2, int(20 * scale))
    confirmed = broken = 0
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        for _ in range(times):
            listen = f"tcp://127.0.0.1:{port},unix://{folder}/socket"
            with Served(*LINE, "--listen", listen) as server:
                load = WellBehaved(server, 30, pause=0)
                load.goes_on("before the kill")
                with socket.socket(socket.AF_UNIX) as local:
                    local.connect(f"{folder}/socket")
                    local.sendall(b"hello\n")
                    hold(
                        local.recv(100) == b"Received: hello\n",
                        "the UNIX socket of a killed server is taken over",
                    )
                    os.kill(server.pid, signal.SIGKILL)
                    lost = load.lost
                    until(lambda lost=lost: len(lost) == 30, "all clients see the end")  # type: ignore[misc]
                wrong = [each for each in load.lost if "was answered" in each]
                hold(not wrong, f"a reply was wrong: {wrong[:1]}")
                confirmed, broken = confirmed + load.confirmed, broken + len(load.lost)
    return (
        f"{times} kills, {broken} clients saw the end at once, all {confirmed} replies before it were right"
    )


def stopped(scale: float) -> str:
    """SIGSTOP for longer than the idle time-out, with messages waiting, and SIGCONT."""
    idle = 3  # more than all that is before the stop takes, for nobody may be idle so long by then
    seconds = max(idle + 1, 5 * scale)
    with Served(*LINE, "--idle-timeout", f"{idle}", "--write-timeout", f"{idle}") as server:
        load = WellBehaved(server, 50)
        waiting = [server.connect() for _ in range(50)]
        for each in waiting:
            each.sendall(b"first\n")
            hold(each.recv(100) == b"Received: first\n", "the first reply")
        load.goes_on("before the stop")
        os.kill(server.pid, signal.SIGSTOP)
        for each in waiting:
            each.sendall(b"meanwhile\n")
        gevent.sleep(seconds)
        os.kill(server.pid, signal.SIGCONT)
        for each in waiting:
            reply = each.recv(200)
            hold(
                reply == b"Received: meanwhile\n",
                f"a message that came while it was stopped was answered {reply!r}",
            )
            each.close()
        load.goes_on("after the stop")
        sent = load.end() + 2 * len(waiting)
        same_counts(server, sent)
        server.stop()
    kept = f"100 clients kept, {sent} confirmations on both sides"
    return f"stopped for {seconds:g} s, idle time-out {idle} s: {kept}"


def clock(scale: float) -> str:
    """The wall clock of the server's process jumps; libfaketime leaves the monotonic one alone."""
    libraries = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")  # noqa: PTH207
    if not libraries:
        raise NotHere("libfaketime (Debian's faketime)")
    jumps = max(4, int(40 * scale))
    with tempfile.NamedTemporaryFile("w") as times:

        def jump(offset: str) -> None:
            times.seek(0)
            times.truncate()
            times.write(offset)
            times.flush()

        jump("+0d")
        variables = {
            "LD_PRELOAD": libraries[0],
            "FAKETIME_TIMESTAMP_FILE": times.name,
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        options = ("--idle-timeout", "2", "--access-log", "--message-rate", "1000")
        with Served(*LINE, *options, environment=variables) as server:
            load = WellBehaved(server, 20)
            load.goes_on("before the jumps")
            for number in range(jumps):
                jump(("+1d", "-1d", "+400d", "+0d")[number % 4])
                load.goes_on(f"jump {number}")
                gevent.sleep(0.1)
            jump("-1d")
            began = time.monotonic()
            with server.connect() as idle:
                idle.sendall(b"hello\n")
                said = rest(idle)
            took = time.monotonic() - began
            hold(b"idle-timeout" in said and 1.5 < took < 20, f"idle for 2 s was {took:.1f} s: {said!r}")
            hold(load.slowest < 20, f"a reply took {load.slowest:.1f} s")
            sent = load.end() + 1
            same_counts(server, sent)
            days = {line[:10] for line in server.log.splitlines() if re.match(r"\d{4}-", line)}
            hold(len(days) > 1, "the clock of the server did not jump")
            server.stop()
    counts = f"{sent} confirmations on both sides"
    return f"{jumps} jumps by up to 400 days: {counts}, idle time-out of 2 s after {took:.1f} s"


@contextlib.contextmanager
def _small_disk() -> Iterator[Path]:
    """A file system of 64 KiB; raises NotHere without root."""
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
        if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
            raise NotHere("root, to mount a small file system")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=False)


def disk_full(scale: float) -> str:
    """The access log fills its disk; when there is room again, lines are written again."""
    clients = max(600, int(5000 * scale))
    with _small_disk() as disk, (disk / "log").open("ab") as log:  # noqa: SIM117 - the server ends first
        with Served(*LINE, "--access-log", log=log) as server:
            load = WellBehaved(server, 10)
            ballast = 0
            for number in range(clients):
                with server.connect() as each:
                    each.sendall(b"hello\n")
                    hold(each.recv(100) == b"Received: hello\n", f"client {number} beside a full disk")
                ballast += 1
            load.goes_on("with a full disk")
            until(lambda: (disk / "log").stat().st_size > 50_000, "the disk is full")
            os.truncate(log.fileno(), 0)
            with server.connect() as each:
                each.sendall(b"hello\n")
                each.recv(100)
            until(lambda: b"closed client=" in (disk / "log").read_bytes(), "the log goes on")
            confirmed = load.end()
            server.stop()
            said = (disk / "log").read_text()
            hold("Traceback" not in said, said[-500:])
    return f"{ballast} clients logged on a disk of 64 KiB, {confirmed} confirmations beside; the log went on"


def files(scale: float) -> str:
    """Fewer files than clients want."""
    clients = max(300, int(5000 * scale))
    limited = ("sh", "-c", 'ulimit -n 200 && exec "$@"', "sh")
    with Served(*LINE, prefix=limited) as server:
        before = server.files()
        load = WellBehaved(server, 20)
        inside = refused = 0
        there = []
        for _ in range(clients):
            each = server.connect()
            each.sendall(b"hello\n")
            try:
                said = each.recv(200)
            except ConnectionResetError:
                said = b"Error: server-full"  # told, and then reset because of what it had sent
            if said == b"Received: hello\n":
                inside += 1
                there.append(each)
            else:
                hold(said.startswith(b"Error: server-full"), f"a client was told {said!r}")
                refused += 1
                each.close()
        load.goes_on("out of files")
        for each in there:
            each.close()
        hold(inside > 50 and refused > 50, f"{inside} inside, {refused} refused")
        settle(server, 20, before + 25)
        load.end()
        server.stop()
    return (
        f"{clients} clients and 200 files: {inside} served, {refused} told server-full; 20 beside were served"
    )


def memory(scale: float) -> str:
    """An address space that is used up by clients that send messages without an end."""
    clients = max(40, int(400 * scale))
    options = ("--max-message-bytes", "64MiB", "--input-total-bytes", "0", "--write-timeout", "2")
    with Served(*LINE, *options) as server:
        load = WellBehaved(server, 10)
        load.goes_on("before")
        used = int(Path(f"/proc/{server.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        limit = used + 64 * 2**20
        resource.prlimit(server.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        piece = b"x" * 2**16
        sent = 0
        hogs = []
        for _ in range(clients):
            each = server.connect()
            hogs.append(each)
            each.settimeout(2)
            with contextlib.suppress(OSError):
                for _ in range(64):
                    each.sendall(piece)
                    sent += len(piece)
        hold(server.process.poll() is None, f"the server ended: {server.log[-1000:]}")
        load.goes_on("without memory")
        for each in hogs:
            reset(each)
        load.goes_on("with memory again")
        load.end()
        resource.prlimit(server.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        until(lambda: server.metric("chat_gevent_connections") == 0, "all clients are gone")
        closed = server.metric('chat_gevent_closed_total{reason="no-memory"}')
        hold(closed > 0 and "ERROR out of memory" in server.log, "nobody was closed for want of memory")
        server.stop()
    return f"{sent / 2**20:.0f} MiB sent to a server with room for 64; {closed:.0f} closed, 10 others served"


def ports(scale: float) -> str:
    """No port is free: the range that the kernel takes them from has one, and that is taken."""
    if os.geteuid() or not shutil.which("unshare") or not shutil.which("ip"):
        raise NotHere("root, unshare and ip")
    script = 'ip link set lo up && echo 40000 40000 > /proc/sys/net/ipv4/ip_local_port_range && exec "$@"'
    two = "tcp://127.0.0.1:0,tcp://127.0.0.1:0"
    command = launch.python("-m", "chat_gevent", "serve", "--listen", two)
    isolated = ["unshare", "--net", "sh", "-c", script, "sh", *command]
    done = subprocess.run(
        isolated, capture_output=True, text=True, timeout=60, env=launch.environment(), check=False
    )
    hold(done.returncode == 1, f"status {done.returncode}: {done.stderr[-500:]}")
    hold(
        "Traceback" not in done.stderr and not done.stdout, f"it said {done.stdout!r} {done.stderr[-500:]!r}"
    )
    lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    hold(len(lines) == 1, f"not one line: {done.stderr!r}")
    return f"status 1, `{lines[0]}`"
