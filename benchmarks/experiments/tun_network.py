"""A network with a TUN device, on which a program plays very many clients, and the server's workers in it.

What the server's kernel sends to the clients comes out of the device as packets, and what is written to it
the server receives (``generator/many_connections.c``). Needs root, and ``ip``.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.experiments import ExperimentFailed
from benchmarks.measure.launch import environment, python
from benchmarks.measure.probe import cpu_ns, descendants

SERVER: Final = "10.0.0.1"
PORT: Final = 12345
DEVICE: Final = "clients0"
FILE_MAX: Final = Path("/proc/sys/fs/file-max")


class ConnectionsFailed(ExperimentFailed):
    """The run can't be made, or did not hold what it should; the message says why."""


@contextmanager
def network() -> Iterator[tuple[str, ...]]:
    """A namespace with the device, and ``fs.file-max`` as it must be; gives what commands are put behind."""
    name = f"connections-{os.getpid()}"
    before = FILE_MAX.read_text()

    def ip(*words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ConnectionsFailed(f"ip {' '.join(words)}: {done.stderr.strip()} (is this root?)")

    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "tuntap", "add", "dev", DEVICE, "mode", "tun")
        ip("-n", name, "addr", "add", f"{SERVER}/8", "dev", DEVICE)
        # As many packets as the kernel has a queue for: what does not fit is lost, and sent again much later.
        ip("-n", name, "link", "set", DEVICE, "txqueuelen", "400000", "up")
        # RFC 6298 has a segment sent again after a second at the earliest, Linux after 0.2 s: too soon for
        # clients that share their cores with all of the server's processes.
        ip("-n", name, "route", "change", "10.0.0.0/8", "dev", DEVICE, "src", SERVER, "rto_min", "1s")
        yield "ip", "netns", "exec", name
    finally:
        FILE_MAX.write_text(before)
        subprocess.run(["ip", "netns", "delete", name], check=False)


class Workers:
    """The server's processes: gunicorn's arbiter and its workers, all of which listen once this is made.

    :param answers: handler or service, as gunicorn takes it.
    :param variables: of their environment.

    Raises ConnectionsFailed: they don't within ``seconds``.
    """

    def __init__(
        self, prefix: tuple[str, ...], count: int, answers: str, variables: Mapping[str, str], seconds: float
    ) -> None:
        command = f"-m gunicorn -k chat_gevent.workers.ChatWorker -w {count} --reuse-port"
        command += f" -b {SERVER}:{PORT} --timeout 300 --graceful-timeout 5 --log-level warning"
        self._process = subprocess.Popen(
            [*prefix, *python(*command.split(), answers)],
            env=environment(variables),
        )
        deadline = time.monotonic() + seconds
        while self.listening() < count:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise ConnectionsFailed(f"the {count} workers did not start within {seconds:.0f} s")
            time.sleep(0.1)
        self.pids = descendants(self._process.pid)

    def listening(self) -> int:
        """How many sockets listen in the server's namespace."""
        try:
            table = Path(f"/proc/{self._process.pid}/net/tcp").read_text()
        except OSError:
            return 0
        return len(re.findall(rf":{PORT:04X} 00000000:0000 0A ", table))

    def connections(self) -> int:
        """The server's sockets that are connected, as the kernel counts them."""
        table = Path(f"/proc/{self._process.pid}/net/sockstat").read_text()
        found = re.search(r"TCP: inuse (\d+)", table)
        assert found
        return int(found[1]) - len(self.pids) + 1

    def wait_until_left(self, seconds: float) -> None:
        """Wait until no client is connected, or ``seconds`` are over."""
        deadline = time.monotonic() + seconds
        while self.connections() and time.monotonic() < deadline:
            time.sleep(0.1)

    def cpu(self) -> float:
        """CPU seconds of all of them."""
        return sum(map(cpu_ns, self.pids)) / 1e9

    def resent(self) -> int:
        """Segments that the server has sent again, as the kernel counts them."""
        heads, values = re.findall(
            r"^Tcp: (.*)$", Path(f"/proc/{self._process.pid}/net/snmp").read_text(), re.M
        )
        return int(values.split()[heads.split().index("RetransSegs")])

    def close(self) -> None:
        """End them."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(120)
        except subprocess.TimeoutExpired:
            for pid in descendants(self._process.pid):
                os.kill(pid, signal.SIGKILL)
            self._process.wait()
