"""What does a request cost the load generator: its own CPU time, for several kinds of Locust user.

``python -m benchmarks experiment loadtest-cost`` runs each kind in a fresh process, in turn and in several blocks,
against equally trivial servers on another core, and prints the CPU time per request of each and the ratios:

``bare``   the leanest hand-written socket user: ``send``, ``recv``, ``request.fire`` in a loop
``task``   the same as one Locust task per request, as people write it
``tcp``    ``loadtest.tcp_user.ConfirmUser`` with all it does: every reply compared, time-outs, histograms
``http``   Locust's ``FastHttpUser`` and an HTTP server that answers as much

Latency and rate play no part: CPU time per request is how many requests a core can make.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any, Final

KINDS: Final = ("bare", "task", "tcp", "http")
MESSAGE: Final = b"0123456789abcdef0123456789abcdef\n"
USERS: Final = 100


def serve(kind: str) -> None:
    """A trivial server on a free port: one confirmation, or one HTTP response, for each read."""
    import asyncio

    class Server(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            if kind == "http":
                body = b"Received: " + MESSAGE
                head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: text/plain\r\n\r\n" % len(
                    body
                )
                self.transport.write(head + body)
            else:
                self.transport.write(b"Received: " + data)

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(main())


def generate(kind: str, port: int, seconds: float) -> None:
    """Run one kind of user in this process and print requests and CPU seconds of the steady part."""
    from locust import FastHttpUser, User, constant, task
    from locust.env import Environment
    from locust.event import Events

    from loadtest.tcp_user import ConfirmUser

    import gevent  # isort: skip - Locust patches first
    import socket  # isort: skip
    from time import perf_counter, process_time  # isort: skip

    class Bare(User):
        wait_time = constant(0)

        def on_start(self) -> None:
            self.socket = socket.create_connection(("127.0.0.1", port))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def request(self) -> None:
            begin = perf_counter()
            self.socket.send(MESSAGE)
            reply = self.socket.recv(1024)
            self.environment.events.request.fire(
                request_type="TCP",
                name="CONFIRM",
                response_time=(perf_counter() - begin) * 1000,
                response_length=len(reply),
                exception=None,
                context={},
            )

        @task
        def drive(self) -> None:
            while True:
                self.request()

    class Task(Bare):
        tasks = [Bare.request]  # noqa: RUF012 - Locust's own convention

    class Http(FastHttpUser):
        wait_time = constant(0)
        host = f"http://127.0.0.1:{port}"

        @task
        def drive(self) -> None:
            while True:
                self.client.get("/")

    ConfirmUser.host = f"tcp://127.0.0.1:{port}"
    user: Any = {"bare": Bare, "task": Task, "tcp": ConfirmUser, "http": Http}[kind]
    environment = Environment(user_classes=[user], events=Events())  # type: ignore[no-untyped-call]
    runner = environment.create_local_runner()
    if kind == "tcp":
        from loadtest.kit import kit_of

        kit_of(environment).attach()
    runner.start(USERS, spawn_rate=USERS)
    gevent.sleep(1.5)
    before, cpu = environment.stats.num_requests, process_time()
    gevent.sleep(seconds)
    requests, cpu = environment.stats.num_requests - before, process_time() - cpu
    failures = environment.stats.num_failures
    runner.quit()
    print(json.dumps({"requests": requests, "cpu": cpu, "failures": failures}), flush=True)


def measure(kind: str, seconds: float) -> float:
    """Microseconds of the generator's CPU per request, in a fresh pair of processes. Raises RuntimeError."""
    cores = sorted(os.sched_getaffinity(0))
    me = [sys.executable, "-m", "benchmarks.experiments.loadtest_cost"]
    server_kind = "http" if kind == "http" else "tcp"
    with subprocess.Popen([*me, "--serve", server_kind], stdout=subprocess.PIPE, text=True) as server:
        os.sched_setaffinity(server.pid, {cores[0]})
        try:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            command = [*me, "--generate", kind, "--port", port, "--seconds", str(seconds)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as generator:
                os.sched_setaffinity(generator.pid, {cores[-1]})
                output, _ = generator.communicate(timeout=seconds + 60)
        finally:
            server.kill()
    if generator.returncode:
        raise RuntimeError(f"{kind} ended with exit status {generator.returncode}")
    found = json.loads(output.splitlines()[-1])
    if found["failures"] or not found["requests"]:
        raise RuntimeError(f"{kind}: {found['failures']} failures, {found['requests']} requests")
    return float(found["cpu"] / found["requests"] * 1e6)


def main() -> None:
    """Measure in blocks and print medians, and ratios taken block by block."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks experiment loadtest-cost", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--generate", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve)
    if options.generate:
        return generate(options.generate, options.port, options.seconds)
    kinds = options.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"unknown kinds: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    costs: dict[str, list[float]] = {kind: [] for kind in kinds}
    for block in range(options.blocks):
        for kind in kinds if block % 2 == 0 else kinds[::-1]:
            costs[kind].append(measure(kind, options.seconds))
            print(f"block {block}: {kind:<5} {costs[kind][-1]:6.2f} µs a request", file=sys.stderr)
    for kind in kinds:
        median = statistics.median(costs[kind])
        row = f"{kind:<5} {median:6.2f} µs a request, {1e6 / median:9,.0f} requests a second and core"
        if "bare" in costs:
            ratios = [one / bare for one, bare in zip(costs[kind], costs["bare"], strict=True)]
            row += f", {statistics.median(ratios):.2f} of bare ({min(ratios):.2f} to {max(ratios):.2f})"
        print(row)
    return None


if __name__ == "__main__":
    main()
