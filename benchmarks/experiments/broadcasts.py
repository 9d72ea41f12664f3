"""One message to all of very many clients: the rounds of ``many-connections --broadcasts N``.

In each round one client sends a message, its worker passes it on to its own clients and, over the backplane,
to those of all other workers, and each client must get it once, byte for byte. The rounds come one after the
other. The backplane is a Redis of the run's own on a UNIX socket, which network namespaces do not separate.
The workers run ``programs/broadcast_service.py``, which leaves its figures in a folder.

Beside the rounds a thread samples the memory that is in use on the machine, and how many processes run or
wait for a core (``/proc/loadavg``, without the thread itself).

Needs ``redis-server`` and the extra ``redis``.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

from benchmarks.experiments import ExperimentFailed
from benchmarks.experiments.programs.broadcast_service import FOLDER
from benchmarks.measure.generator import Generator
from benchmarks.measure.probe import in_use
from benchmarks.reports.histograms import quantile, quantile_of
from benchmarks.show.wording import number

SERVICE: Final = "benchmarks.experiments.programs.broadcast_service:Broadcaster"
CHANNEL: Final = "chat-gevent:all"
"""Of broadcasts to all clients, with the default of ``backplane_prefix``."""
PATIENCE_SECONDS: Final = 120
"""A round ends so long after its last delivery, if some are missing."""
LONGEST_ROUND_SECONDS: Final = 3600
QUIET_SECONDS: Final = 1.0
"""Nothing happens for so long after the last round: the workers' timers come to their end, and what is sent
twice shows."""
SAMPLE_SECONDS: Final = 0.02
COUNTS: Final = ("pushes", "dropped", "slow", "write_timeout", "backplane_dropped")
"""What the workers count, to be added up."""


class RedisServer:
    """``redis-server`` on a UNIX socket in ``folder``.

    Raises ExperimentFailed: it, or the client library, is not installed, or it does not start within 10 s.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import redis
        except ImportError:
            raise ExperimentFailed(
                "broadcasts need the extra redis: pip install 'chat-gevent[redis]'"
            ) from None
        program = shutil.which("redis-server")
        if program is None:
            raise ExperimentFailed("broadcasts need redis-server, which is not installed")
        path = folder / "redis.sock"
        self.variables = {"CHAT_GEVENT_BACKPLANE": f"unix://{path}", FOLDER: str(folder)}
        """What the workers' environment has to have."""
        options = ("--unixsocket", str(path), "--port", "0", "--save", "", "--dir", str(folder))
        self._client = redis.Redis(unix_socket_path=str(path))
        self._process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not path.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise ExperimentFailed("redis-server does not start")
            time.sleep(0.02)

    def wait_for(self, workers: int, seconds: float) -> None:
        """Wait until so many workers hear broadcasts. Raises ExperimentFailed: they don't in time."""
        deadline = time.monotonic() + seconds
        while (there := int(self._client.pubsub_numsub(CHANNEL)[0][1])) < workers:
            if time.monotonic() > deadline:
                raise ExperimentFailed(f"{there} of {workers} workers are connected with Redis")
            time.sleep(0.1)

    def close(self) -> None:
        """End it."""
        self._client.close()
        self._process.terminate()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Beside:
    """What the machine does, sampled in a thread while a ``with`` lasts."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._before = in_use()
        self.memory_bytes = 0
        """The most memory in use, over what was at first."""
        self.running: Counter[int] = Counter()
        """How many processes ran or waited for a core: how often."""

    def _sample(self) -> None:
        while True:
            self.memory_bytes = max(self.memory_bytes, in_use() - self._before)
            self.running[int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]) - 1] += 1
            if self._ended.wait(SAMPLE_SECONDS):
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()


def measure(clients: Generator, count: int, total: int, cpu: Callable[[], float]) -> dict[str, Any]:
    """Send ``count`` messages to ``total`` clients each, one after the other; ``cpu`` is the server's, in s.

    The first round in which some are missing is the last: what is late would be taken for the next message.
    """
    rounds: list[dict[str, Any]] = []
    with Beside() as beside:
        used = cpu()
        for _ in range(count):
            done = clients.ask(f"broadcast {PATIENCE_SECONDS}", "delivered", LONGEST_ROUND_SECONDS)
            before, used = used, cpu()
            rounds.append(round_of(done, used - before))
            print(
                f"{done['deliveries']:11,} of {total:,} had the message after {done['ns'] / 1e9:.2f} s",
                flush=True,
            )
            if done["missing"]:
                break
    time.sleep(QUIET_SECONDS)
    return {
        "rounds": rounds,
        "memory_bytes": beside.memory_bytes,
        "running_median": quantile(beside.running, 0.5),
        "running_most": max(beside.running),
    }


def round_of(done: dict[str, Any], cpu_seconds: float) -> dict[str, Any]:
    """The figures of a round, from the clients' answer and the server's CPU time."""
    times = dict(done["latency_us"])
    figures = {name: done[name] for name in ("confirmed", "deliveries", "missing", "duplicates", "mismatch")}
    figures |= {"seconds": done["ns"] / 1e9, "server_cpu_seconds": cpu_seconds}
    if times:
        figures |= {f"p{q}_seconds": quantile(times, q / 100) / 1e6 for q in (50, 99)}
    return figures


def workers_figures(folder: Path) -> dict[str, Any]:
    """What the workers have left in the folder: sums of counts, the longest times, and the lag of all."""
    found = [json.loads(each.read_text()) for each in folder.glob("worker-*.json")]
    figures: dict[str, Any] = {"processes": len(found)}
    for name in COUNTS:
        figures[name] = sum(each[name] for each in found)
    for name in ("slices", "begins"):
        times = sum((tenths(each[f"{name}_100us"]) for each in found), Counter())
        if times:
            figures[f"{name}_p999_ms"] = quantile(times, 0.999) / 10
            figures[f"{name}_most_ms"] = max(times) / 10
    lags: Counter[int] = Counter()
    worst = []
    for each in found:
        counts = tenths(each["lag_100us"])
        lags.update(counts)
        if counts:
            worst.append(quantile(counts, 0.99) / 10)
    if lags:
        figures["lag_p99_ms"] = quantile(lags, 0.99) / 10
        figures |= {"lag_most_ms": max(lags) / 10, "lag_samples": sum(lags.values())}
        figures["lag_p99_worker_ms"] = {"median": quantile_of(worst, 0.5), "most": max(worst)}
    return figures


def tenths(counts: dict[str, int]) -> Counter[int]:
    """Counts by tenths of a millisecond, which are strings in JSON."""
    return Counter({int(value): count for value, count in counts.items()})


def complete(figures: dict[str, Any], count: int, total: int) -> bool:
    """Whether all rounds were made, each of ``total`` clients got each message once, and all are there."""
    made = [each for each in figures["rounds"] if each["confirmed"] == 1 and not each["missing"]]
    return len(made) == count and figures["held"] == total and not any(figures["failures"].values())


def show(figures: dict[str, Any], line: Callable[[str, str], None]) -> None:
    """Tell the outcome, by ``line(title, text)``."""
    rounds, workers = figures["rounds"], figures["workers"]
    seconds = [each["seconds"] for each in rounds]
    delivered = sum(each["deliveries"] for each in rounds)
    cpu = sum(each["server_cpu_seconds"] for each in rounds)
    line("broadcasts", f"{len(rounds)}, {delivered:,} deliveries")
    line(
        "until the last had it",
        f"{spread(seconds)} s, {delivered / max(sum(seconds), 1e-9):,.0f} deliveries/s",
    )
    for title, key in (("until half of them had it", "p50_seconds"), ("until 99% had it", "p99_seconds")):
        line(title, f"{spread([each[key] for each in rounds if key in each])} s")
    line("server CPU", f"{number(cpu / max(delivered, 1) * 1e6)} µs a delivery")
    line("whole machine, grown by", f"{figures['memory_bytes'] / 2**20:,.1f} MiB at most")
    running = f"{figures['running_median']:,} (median), {figures['running_most']:,} at most"
    line("want a core, or have it", f"{running}, of the whole machine")
    for title, name in (("a slice of pushes", "slices"), ("to begin a broadcast", "begins")):
        if f"{name}_most_ms" in workers:
            p999, most = number(workers[f"{name}_p999_ms"]), number(workers[f"{name}_most_ms"])
            line(title, f"{p999} ms of CPU (99.9% of them), {most} ms at most")
    if "lag_p99_ms" in workers:
        each = workers["lag_p99_worker_ms"]
        lag = f"{number(workers['lag_p99_ms'])} ms, most {number(workers['lag_most_ms'])} ms"
        one = f"{number(each['median'])} ms (median), {number(each['most'])} ms at most"
        line("lag of the loops, p99", f"{lag}; p99 of one worker {one}")
    missing = sum(each["missing"] for each in rounds)
    line(
        "missing",
        f"{missing:,}; " + ", ".join(f"{name} {count:,}" for name, count in figures["failures"].items()),
    )
    counts = ", ".join(f"{name.replace('_', ' ')} {workers[name]:,}" for name in COUNTS)
    line("the kernel sent again", f"{figures['resent']:,} segments")
    line(f"counted by {workers['processes']} workers", counts)


def spread(values: list[float]) -> str:
    """``median (smallest to largest)``."""
    if not values:
        return "-"
    return f"{number(statistics.median(values))} ({number(min(values))} to {number(max(values))})"
