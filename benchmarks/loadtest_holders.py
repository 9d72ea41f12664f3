"""How many connections can Locust users hold, and what does each cost the generator in memory?

``python -m benchmarks.loadtest_holders`` holds 15,000 in one process, in four steps, and fits the growth of
its PSS (the memory that is its own, and its share of what is shared: /proc/PID/smaps_rollup) per user. With
``--processes 3 --users 50000`` it runs the real command, spread over worker processes, and says how many were
open at a time and how many messages on them were confirmed. The server is as small as one can be,
in several processes that share a port (SO_REUSEPORT), since each may have 20,000 files only.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.probe import pss_bytes
from chat_gevent.files import raise_file_limit

STEPS: Final = 4
ME: Final = (sys.executable, "-m", "benchmarks.loadtest_holders")


def serve(port: int) -> None:
    """Confirm whole lines, one process of several on the same port."""
    raise_file_limit()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(65_535)
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    print(listener.getsockname()[1], flush=True)
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                client, _ = listener.accept()
                client.setblocking(False)
                clients[client.fileno()] = client
                poll.register(client, select.EPOLLIN)
                continue
            try:
                data = clients[number].recv(4096)
            except ConnectionError:
                data = b""
            if data:
                clients[number].send(b"Received: " + data)
            else:
                clients.pop(number).close()


class Servers:
    """Server processes on one port."""

    def __init__(self, count: int) -> None:
        self.processes: list[subprocess.Popen[str]] = []
        self.port = 0
        for _ in range(count):
            process = subprocess.Popen([*ME, "--serve", str(self.port)], stdout=subprocess.PIPE, text=True)
            self.processes.append(process)
            assert process.stdout is not None
            self.port = int(process.stdout.readline())

    def close(self) -> None:
        """End them."""
        for process in self.processes:
            process.kill()
            process.communicate()


def hold(port: int, users: int, pause: float) -> None:
    """Hold users in this process and print its PSS at each step."""
    from locust.env import Environment
    from locust.event import Events

    from loadtest.options import own_options
    from loadtest.tcp_user import ConfirmUser

    import gevent  # isort: skip - Locust patches first

    from loadtest.kit import kit_of

    ConfirmUser.host = f"tcp://127.0.0.1:{port}"
    options = argparse.Namespace(
        **{**own_options(), "hold": pause, "source_addresses": "127.0.0.2-127.0.0.3"}
    )
    events = Events()  # type: ignore[no-untyped-call]
    environment = Environment(user_classes=[ConfirmUser], events=events, parsed_options=options)
    runner = environment.create_local_runner()
    kit = kit_of(environment)
    kit.attach()
    steps = []
    for step in range(1, STEPS + 1):
        wanted = users * step // STEPS
        runner.start(wanted, spawn_rate=1500)
        while kit.measures.open < wanted:
            gevent.sleep(0.2)
        gevent.sleep(1.5 * pause)  # every user has had its turn to send
        steps.append({"open": kit.measures.open, "pss": pss_bytes([os.getpid()])})
    kit.collect()
    messages = kit.tally.messages()
    failed = sum(kept.failed for kept in kit.tally.entries.values())
    print(json.dumps({"steps": steps, "messages": messages.passed, "failures": failed}), flush=True)
    os._exit(0)  # closing so many users one by one proves nothing


def one_process(users: int, pause: float) -> dict[str, Any]:
    """Memory per user in one process. Raises RuntimeError."""
    servers = Servers(users // 18_000 + 1)
    try:
        command = [*ME, "--hold", str(servers.port), "--users", str(users), "--pause", str(pause)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    finally:
        servers.close()
    if done.returncode:
        raise RuntimeError(f"the generator ended with exit status {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    steps = found["steps"]
    slope = statistics.linear_regression([s["open"] for s in steps], [s["pss"] for s in steps]).slope
    return {**found, "open": steps[-1]["open"], "kib_per_user": slope / 1024}


def many_processes(users: int, processes: int, seconds: int) -> dict[str, Any]:
    """The real command over several processes. Raises RuntimeError."""
    from benchmarks.reports.report import Report

    servers = Servers(users // 15_000 + 1)
    locustfile = Path(__file__).parent.parent / "loadtest" / "locustfile.py"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "report.json")
        command = [sys.executable, "-m", "locust", "-f", str(locustfile), "--headless", "--only-summary"]
        command += ["--host", f"tcp://127.0.0.1:{servers.port}", "--processes", str(processes)]
        command += ["-u", str(users), "-r", "2000", "-t", f"{seconds}s", "--hold", "20"]
        command += [
            "--source-addresses",
            "127.0.0.2-127.0.0.5",
            "--connect-timeout",
            "20",
            "--report",
            str(path),
        ]
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
            )
        finally:
            servers.close()
        if done.returncode:
            raise RuntimeError(f"Locust ended with exit status {done.returncode}:\n{done.stdout}")
        report = Report.load(path)
    return {
        "open": int(max(trial.values["connections"] for trial in report.trials)),
        "messages": sum(trial.messages for trial in report.trials),
        "failures": sum(sum(trial.errors.values()) for trial in report.trials),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loadtest_holders", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--users", type=int, default=15_000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=75, help="length of a run over several processes")
    parser.add_argument("--pause", type=float, default=5.0, help="seconds between two messages of a user")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", type=int, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--hold", type=int, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        return serve(options.serve)
    if options.hold is not None:
        return hold(options.hold, options.users, options.pause)
    if options.processes > 1:
        found = many_processes(options.users, options.processes, options.seconds)
    else:
        found = one_process(options.users, options.pause)
    if options.json:
        print(json.dumps(found))
        return None
    print(f"{found['open']:,} connections held in {options.processes} process(es)")
    print(f"{found['messages']:,} messages confirmed on them, {found['failures']:,} requests failed")
    if "kib_per_user" in found:
        print(f"{found['kib_per_user']:.1f} KiB of the generator's memory (PSS) for each user")
    return None


if __name__ == "__main__":
    main()
