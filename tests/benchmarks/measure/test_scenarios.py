"""Every scenario runs, briefly, and gives what it promises; the checks fire where they should."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest
from hdrh.histogram import HdrHistogram

from benchmarks.measure.scenarios import SCENARIOS
from benchmarks.measure.scenarios.base import Bench, Load, Window, check_window
from benchmarks.measure.scenarios.memory import slope
from benchmarks.measure.scenarios.paced import search
from benchmarks.measure.servers import SERVERS, find
from benchmarks.measure.servers.process import ServerProcess
from benchmarks.reports.report import Trial
from tests.conftest import require_tool

BRIEF: dict[str, dict[str, Any]] = {
    "confirm": {"connections": 10, "seconds": 0.2, "warmup": 0.0},
    "pipelined": {"connections": 5, "seconds": 0.2, "warmup": 0.0},
    "handler": {"connections": 5, "depth": 4, "seconds": 0.2, "warmup": 0.0},
    "paced": {"connections": 10, "seconds": 0.2, "warmup": 0.0, "rate": 500.0, "bound_ms": 0.0},
    "connections": {"connections": 300},
    "memory": {"connections": 400, "settle": 0.0},
    "churn": {"connections": 5, "seconds": 0.2, "warmup": 0.0},
    "idle": {"connections": 5, "idle": 50, "seconds": 0.2, "warmup": 0.0},
    "push": {"connections": 20, "seconds": 0.2, "warmup": 0.0},
    "rooms": {"connections": 20, "room": 5, "seconds": 0.2, "warmup": 0.0},
    "stuck": {"connections": 20, "seconds": 0.4, "warmup": 0.0, "rate": 100.0},
    "tls": {"connections": 5, "seconds": 0.2, "warmup": 0.0},
}


def bench() -> Bench:
    """A bench without pinning that shows nothing."""
    return Bench(None, None, lambda text: None)


def run(scenario: str, server: str, **more: Any) -> tuple[Trial, Bench]:
    """One brief trial."""
    place = bench()
    parameters = SCENARIOS[scenario].defaults | BRIEF[scenario] | more
    prepared = SCENARIOS[scenario].prepared([find(server)])[-1]
    return SCENARIOS[scenario].trial(place, prepared, parameters), place


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_scenario_gives_what_it_promises(name: str) -> None:
    """A brief trial has no errors, and every metric, histogram and series that the scenario declares."""
    if name == "tls":
        require_tool("openssl")
    scenario = SCENARIOS[name]
    optional = {
        "gc_pause_max_ms",
        "highest_rate",
    }  # a pause may not happen in so short a time; the search is off
    for stretch in (1, 5, 25):  # as long as it takes on a busy machine
        more = {"seconds": BRIEF[name]["seconds"] * stretch} if "seconds" in BRIEF[name] else {}
        trial, _ = run(name, "asyncio_protocol", **more)
        assert trial.errors == {}
        if set(scenario.metrics) - set(trial.values) <= optional:
            break
    assert trial.messages > 0
    assert trial.seconds > 0
    assert set(scenario.metrics) - set(trial.values) <= optional
    assert set(trial.histograms) == set(scenario.histograms)
    assert all(HdrHistogram.decode(text).get_total_count() for text in trial.histograms.values())
    assert set(trial.series) <= set(scenario.series)


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_scenario_is_described(name: str) -> None:
    """It asks one question, explains each parameter, and has presets only for parameters it has."""
    from benchmarks.running import HELP

    scenario = SCENARIOS[name]
    assert scenario.question.endswith("?")
    assert set(scenario.defaults) <= set(HELP)
    assert set(scenario.quick) | set(scenario.full) <= set(scenario.defaults)
    assert any(metric.primary for metric in scenario.metrics.values())


@pytest.mark.parametrize("limit", [2.0, 99.0, 100.0, 101.0, 12_345.0, 900_000.0])
def test_search_finds_the_limit(limit: float) -> None:
    """Wherever the limit is, below or above the start, the search ends at most 4.4% below it."""
    found = search(lambda rate: rate <= limit, 100.0)
    assert found is not None
    assert limit / 2 ** (1 / 16) * 0.999 <= found <= limit


def test_search_gives_up() -> None:
    """Where nothing holds there is no rate."""
    assert search(lambda rate: False, 100.0) is None


def test_highest_rate_of_a_real_server() -> None:
    """A server slowed to 2 ms a read reads 500 times a second, 64 messages at most: the search ends below."""
    # The bound is one that a busy machine keeps: what a rate above the limit shows is messages left unsent.
    trial, _ = run("paced", "asyncio_protocol+2000000ns", rate=200.0, bound_ms=5000.0, seconds=0.4)
    assert 0 < trial.values["highest_rate"] <= 500 * 64


def test_slowed_server_is_slower_by_its_length() -> None:
    """A busy loop of 2 ms shows as 2 ms more CPU a message: the measurement's scale is right.

    The loop is long, so that what a message costs besides, which varies with the machine, is little of it.
    At either end of the window one message may be paid for and not confirmed yet, as there is one client."""
    for seconds in (0.5, 5, 25):  # until both have been served for a while on a busy machine
        plain, _ = run("confirm", "asyncio_protocol", connections=1, seconds=seconds)
        slowed, _ = run("confirm", "asyncio_protocol+2000000ns", connections=1, seconds=seconds)
        if min(plain.messages, slowed.messages) > 50:
            break
    name = "server_cpu_us_per_message"
    assert slowed.values[name] - plain.values[name] == pytest.approx(2000, rel=0.1 + 2 / slowed.messages)


def test_memory_slope_is_the_memory_per_connection() -> None:
    """A line through the plateaus: exact for exact figures, and of the right size for a real server."""
    assert slope(
        [{"connections": n, "user_bytes": 7e6 + 512.0 * n} for n in (10, 20, 40, 80)], "user_bytes"
    ) == (pytest.approx(512))
    trial, _ = run("memory", "asyncio_streams", connections=1200)
    assert [plateau["connections"] for plateau in trial.memory] == [300, 600, 900, 1200]
    assert 2 < trial.values["user_kib_per_connection"] < 20


def test_memory_over_tls() -> None:
    """A client costs several times as much as without, and a server that does not speak TLS is refused."""
    plain, _ = run("memory", "chat_gevent", connections=400)
    encrypted, place = run("memory", "chat_gevent", connections=400, tls=1)
    assert encrypted.values["user_kib_per_connection"] > 5 + plain.values["user_kib_per_connection"]
    assert [fired.check for fired in place.warnings] == []
    memory = SCENARIOS["memory"]
    assert memory.refuses(find("c_epoll"), {**memory.defaults, "tls": 1}) == "it does not speak TLS here"
    assert memory.refuses(find("c_epoll"), dict(memory.defaults)) is None


def test_memory_adds_what_its_generators_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures that two generators saw, over their whole lives, are added."""
    answers: list[list[dict[str, Any]]] = []
    grow = Load.grow

    def noted(load: Load, shares: Any = None) -> list[dict[str, Any]]:
        answers.append(grow(load, shares))
        return answers[-1]

    monkeypatch.setattr(Load, "grow", noted)
    monkeypatch.setattr("benchmarks.measure.scenarios.base.CONNECTIONS_PER_PROCESS", 20)
    trial, place = run("memory", "chat_gevent --max-connections 20", connections=40)
    counts = [answer["errors"]["error-reply"] for answer in answers[-1]]
    assert len(counts) == 2
    assert min(counts) > 0
    assert trial.errors == {"error-reply": sum(counts)}
    assert [fired.check for fired in place.warnings] == ["errors"]


def test_idle_scenario_times_collections() -> None:
    """The garbage collector's pauses in a Python server are seen from within it."""
    trial, _ = run("idle", "asyncio_streams", idle=3000, seconds=0.5)
    assert 0 < trial.values["gc_pause_max_ms"] < 2000


def test_servers_without_framing_are_refused_what_they_cannot_do() -> None:
    """Where one read is a message, pipelining, long messages and an open schedule would measure nonsense."""
    threads = SERVERS["threads"]
    confirm = SCENARIOS["confirm"]
    assert confirm.refuses(threads, confirm.defaults) is None
    assert confirm.refuses(threads, confirm.defaults | {"size": 2000})
    assert SCENARIOS["pipelined"].refuses(threads, SCENARIOS["pipelined"].defaults)
    assert SCENARIOS["paced"].refuses(threads, SCENARIOS["paced"].defaults)
    assert SCENARIOS["tls"].refuses(SERVERS["c_epoll"], SCENARIOS["tls"].defaults)
    assert SCENARIOS["tls"].refuses(replace(SERVERS["go"], tls=None), {})


def window(**cpu: float) -> Window:
    """A window with the given shares of a core."""
    shares = {"server": 1.0, "generator": 0.5, "machine": 1.5, "steal": 0.0, "ksoftirqd": 0.0} | cpu
    return Window(1.0, 1000, 1.0, 0.5, shares, {}, {}, {})


@pytest.mark.parametrize(
    ("shown", "check"),
    [
        (window(), None),
        (window(server=0.8, generator=0.95, machine=1.75), "generator-busy"),
        (window(server=0.5, machine=1.0), "not-saturated"),
        (replace(window(), server_cores=2), "not-saturated"),
        (replace(window(server=1.95, machine=2.45), server_cores=2), None),
        (replace(window(server=0.5, generator=1.7, machine=2.2), generator_cores=2), "not-saturated"),
        (replace(window(server=0.5, generator=1.9, machine=2.4), generator_cores=2), "generator-busy"),
        (window(steal=0.1), "steal"),
        (window(machine=1.9), "other-load"),
        (window(machine=1.9, ksoftirqd=0.4), None),
        (replace(window(), errors={"reset": 2}), "errors"),
    ],
)
def test_checks_fire(shown: Window, check: str | None) -> None:
    """Each doubt about a measurement has its check, and a sound one has none."""
    place = bench()
    check_window(place, "some server", shown)
    assert [fired.check for fired in place.warnings] == ([check] if check else [])


@pytest.mark.parametrize(("server", "cores"), [("asyncio_protocol", 1), ("threads", 2)])
def test_a_server_is_judged_by_the_cores_it_can_use(server: str, cores: int) -> None:
    """On two cores one thread can use up one, many threads both; one generator process uses one at most."""
    place = Bench((0, 1), None, lambda text: None)
    with ServerProcess(find(server)) as process, Load(place, process, 10, size=32) as load:
        load.grow()
        shown = load.measure(0.0, 0.05)
    assert (shown.server_cores, shown.generator_cores) == (cores, 1)


def test_histograms_are_portable() -> None:
    """They are base64 of the V2 compressed encoding, which HDR libraries in other languages read."""
    trial, _ = run("confirm", "asyncio_protocol")
    assert base64.b64decode(trial.histograms["latency"])[:4] == b"\x1c\x84\x93\x14"
