"""What the tests of the deploy files share: their texts with other addresses, and programs that run."""

from __future__ import annotations

import random
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chat_gevent.command.deploy import FOLDER


def adapted(name: str, changes: dict[str, str]) -> str:
    """The file ``name`` with each text of ``changes`` replaced by the other; each has to be there."""
    text = (FOLDER / name).read_text()
    for old, new in changes.items():
        assert old in text, f"{old!r} is not in {name}"
        text = text.replace(old, new)
    return text


def free_port() -> int:
    """A port of the loopback interface for a program that can't be given a socket, and takes no port 0.

    It is below those that the kernel gives to others, so until the program has it no other test gets it.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(max(1024, lowest // 2), lowest) if lowest > 2048 else 0
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(free.getsockname()[1])


def checked(*words: str | Path, ok: bool = True) -> str:
    """Run a program to its end, without a shell; returns all that it says. It must succeed, or must not."""
    done = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=250, check=False
    )
    assert (done.returncode == 0) is ok, f"{words}: status {done.returncode}\n{done.stdout}"
    return done.stdout


@contextmanager
def running(*words: str | Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs, and is ended after that; what it says is in the file ``log``."""
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
