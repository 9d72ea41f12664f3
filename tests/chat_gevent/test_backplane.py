"""Broadcasts between processes over Redis: whom they reach, in which order, and what a lost Redis costs."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from chat_gevent.backplane import HEADER, MOST_QUEUED, VERSION, Backplane
from chat_gevent.broadcast import Group
from chat_gevent.command.backplane import needs_backplane
from chat_gevent.command.config import ServeSettings
from chat_gevent.confirm import confirm
from chat_gevent.core import Core
from tests.conftest import wait_until
from tests.operate import ServerProcess, certificate, kept_port, until
from tests.redis_server import RedisServer
from tests.relay import Relay

ROOT = Path(__file__).parents[2]

Operate = Callable[..., ServerProcess]


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A redis-server on a UNIX socket."""
    server = RedisServer(tmp_path)
    yield server
    server.kill()


def relay(operate: Operate, url: str, *arguments: str, env: dict[str, str] | None = None) -> ServerProcess:
    """A process that serves :class:`tests.relay.Relay` with that backplane."""
    fixed = ("--port", "0", "--admin", ":0", "--handler", "tests.relay:Relay")
    return operate(*fixed, "--backplane", url, *arguments, cwd=ROOT, env=env)


def linked(operate: Operate, url: str, *arguments: str, env: dict[str, str] | None = None) -> ServerProcess:
    """As :func:`relay`, once it is connected to its backplane: its start waits for that two seconds only."""
    server = relay(operate, url, *arguments, env=env)
    shows(server, "ready", 1)
    return server


class Member:
    """A client of the relay; :meth:`read` gives it one line."""

    def __init__(self, server: ServerProcess) -> None:
        self._socket = server.connect()
        self._file = self._socket.makefile("r", encoding="utf-8", newline="\n")
        self.tell("join ready")
        assert self.read() == "joined"
        self.tell("leave ready")
        assert self.read() == "left"

    def tell(self, order: str) -> None:
        """Send an order."""
        self._socket.sendall(order.encode() + b"\n")

    def read(self) -> str:
        """The next line; empty at the end."""
        return self._file.readline().rstrip("\n")

    def collect(self, into: list[str]) -> threading.Thread:
        """Read lines until ``halted`` or the end, in a thread."""

        def run() -> None:
            while (line := self.read()) and line != "halted":
                into.append(line)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """Leave, and have what reads end."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._file.close()
        self._socket.close()


@pytest.fixture
def join() -> Iterator[Callable[[ServerProcess], Member]]:
    """Make members that leave with the test."""
    made: list[Member] = []

    def make(server: ServerProcess) -> Member:
        made.append(Member(server))
        return made[-1]

    yield make
    for each in made:
        each.close()


Join = Callable[[ServerProcess], Member]


# -- whom broadcasts reach -----------------------------------------------------------------------------


def test_a_broadcast_reaches_all_clients_of_three_processes_once(
    operate: Operate, redis_server: RedisServer, join: Join
) -> None:
    """Each client of each process gets it, nobody twice; the sender is told the number of local clients."""
    servers = [linked(operate, redis_server.url) for _ in range(3)]
    members = [join(server) for server in servers for _ in range(2)]
    for number, member in enumerate(members):
        member.tell(f"all hello {number}")
        # Who speaks reads its own broadcast first, as its handler's reply comes after it.
        assert [member.read(), member.read()] == [f"hello {number}", "told 2"]
        others = [each for each in members if each is not member]
        assert [each.read() for each in others] == [f"hello {number}"] * 5
    assert [each.metric("chat_gevent_backplane_published_total") for each in servers] == [2, 2, 2]
    assert [each.metric("chat_gevent_backplane_received_total") for each in servers] == [4, 4, 4]
    assert [each.metric("chat_gevent_backplane_dropped_total") for each in servers] == [0, 0, 0]
    assert servers[0].ask("/readyz") == (200, "ready\n")


@pytest.mark.parametrize("name", ["lobby", "*", "grüße:[a-z]?", "x" * 3000, "all"])
def test_a_group_has_members_in_several_processes(
    operate: Operate, redis_server: RedisServer, join: Join, name: str
) -> None:
    """A group of any name is reached wherever its members are; others don't get what it is sent."""
    channel = f"chat-gevent:group:{name}"
    servers = [linked(operate, redis_server.url) for _ in range(2)]
    speaker, near, far, other = (join(servers[index]) for index in (0, 0, 1, 1))
    for each in (near, far):
        each.tell(f"join {name}")
        assert each.read() == "joined"
    until(lambda: redis_server.subscribers(channel) == 2)
    speaker.tell(f"group {name} psst")
    assert speaker.read() == "told 1"
    assert [near.read(), far.read()] == ["psst", "psst"]
    speaker.tell("all heard")
    assert [near.read(), far.read(), other.read()] == ["heard"] * 3


def test_a_group_is_subscribed_to_only_while_it_has_members(
    operate: Operate, redis_server: RedisServer, join: Join
) -> None:
    """The last one to leave, or to be disconnected, ends the subscription; one who comes later renews it."""
    channel = "chat-gevent:group:lobby"
    server = linked(operate, redis_server.url)
    first, second = join(server), join(server)
    for each in (first, second):
        each.tell("join lobby")
        assert each.read() == "joined"
    until(lambda: channel in redis_server.channels())
    first.tell("leave lobby")
    assert first.read() == "left"
    assert channel in redis_server.channels()
    second.close()
    until(lambda: redis_server.channels() == {"chat-gevent:all"})
    first.tell("join lobby")
    until(lambda: channel in redis_server.channels())


def test_but_and_an_iterable_are_of_one_process(
    operate: Operate, redis_server: RedisServer, join: Join
) -> None:
    """``but`` leaves out a client here and nobody elsewhere; an iterable of clients goes nowhere else."""
    servers = [linked(operate, redis_server.url) for _ in range(2)]
    speaker, near, far = (join(servers[index]) for index in (0, 0, 1))
    speaker.tell("but of me")
    assert [speaker.read(), near.read(), far.read()] == ["told 1", "of me", "of me"]
    speaker.tell("local whisper")
    assert [speaker.read(), near.read()] == ["told 1", "whisper"]
    speaker.tell("but end")
    assert [near.read(), far.read()] == ["end", "end"]


def test_a_farewell_reaches_the_other_processes(
    operate: Operate, redis_server: RedisServer, join: Join
) -> None:
    """What ``stopping`` broadcasts is handed to Redis before the process ends."""
    servers = [linked(operate, redis_server.url) for _ in range(2)]
    far = join(servers[1])
    assert servers[0].stop() == 0
    assert far.read() == "stopping"


def test_services_with_other_prefixes_share_a_redis(
    operate: Operate, redis_server: RedisServer, join: Join
) -> None:
    """They hear nothing of each other."""
    servers = [linked(operate, redis_server.url, "--backplane-prefix", each) for each in ("a:", "b:", "a:")]
    speaker, other, same = (join(each) for each in servers)
    speaker.tell("but for a")
    assert same.read() == "for a"
    other.tell("all for b")
    assert [other.read(), other.read()] == ["for b", "told 1"]


def test_separate_rooms_on_purpose(operate: Operate) -> None:
    """``--backplane none`` is none: there are no metrics of it, and the server is ready."""
    server = relay(operate, "none")
    assert server.ask("/readyz") == (200, "ready\n")
    assert "backplane" not in server.ask("/metrics")[1]


def test_workers_of_gunicorn_share_a_backplane(redis_server: RedisServer, tmp_path: Path) -> None:
    """Each worker connects by itself, with the settings from the environment."""
    (tmp_path / "relay_app.py").write_text("from tests.relay import Relay\nrelay = Relay\n")
    address = f"unix:{tmp_path / 'gunicorn.sock'}"
    options = ["-k", "chat_gevent.workers.ChatWorker", "--workers", "2", "--bind", address, "relay_app:relay"]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{tmp_path}",
        "CHAT_GEVENT_BACKPLANE": redis_server.url,
        "CHAT_GEVENT_BACKPLANE_PREFIX": "g:",
    }
    process = subprocess.Popen([sys.executable, "-m", "gunicorn", *options], env=environment)
    try:
        until(lambda: redis_server.subscribers("g:all") == 2)
    finally:
        process.terminate()
        process.wait(30)


# -- order -------------------------------------------------------------------------------------------


def test_the_order_of_one_sender_is_kept(operate: Operate, redis_server: RedisServer, join: Join) -> None:
    """A thousand broadcasts, to all and to a group in turn, arrive everywhere in the order of the calls."""
    servers = [linked(operate, redis_server.url) for _ in range(2)]
    members = [join(server) for server in servers]
    for each in members:
        each.tell("join counted")
        assert each.read() == "joined"
    until(lambda: redis_server.subscribers("chat-gevent:group:counted") == 2)
    members[0].tell("count 1000")
    for each in members:
        assert [each.read() for _ in range(1000)] == [f"n {number}" for number in range(1000)]


def shows(server: ServerProcess, word: str, connected: int) -> None:
    """Wait until ``/readyz`` and the metrics say so."""
    until(lambda: server.ask("/readyz") == (200, f"{word}\n"))
    until(lambda: server.metric("chat_gevent_backplane_connected") == connected)


def grows(lines: list[str], count: int) -> None:
    """Wait until there are so many more lines."""
    before = len(lines)
    until(lambda: len(lines) > before + count, what=f"{count} more lines")


@pytest.mark.parametrize("how", ["killed", "held"])
def test_redis_is_lost_and_comes_back_under_load(
    operate: Operate, redis_server: RedisServer, join: Join, how: str
) -> None:
    """Local delivery misses nothing, the loss is told, remote delivery is back soon, in order, none twice.

    Held, Redis keeps its connections and answers nothing, as behind a network that drops everything.
    """
    servers = [linked(operate, redis_server.url) for _ in range(2)]
    near, far = (join(each) for each in servers)
    at_home: list[str] = []
    away: list[str] = []
    threads = [near.collect(at_home), far.collect(away)]
    near.tell("stream")
    until(lambda: len(away) > 50)
    for _ in range(2):
        redis_server.kill() if how == "killed" else redis_server.hold()
        for each in servers:
            shows(each, "backplane lost", 0)
        grows(at_home, 100)
        redis_server.start() if how == "killed" else redis_server.go_on()
        grows(away, 50)
        for each in servers:
            shows(each, "ready", 1)
    near.tell("halt")
    for thread in threads:
        thread.join(30)
    assert at_home == [f"n {number}" for number in range(len(at_home))]
    numbers = [int(each.removeprefix("n ")) for each in away]
    assert all(first < second for first, second in itertools.pairwise(numbers))
    assert servers[0].metric("chat_gevent_backplane_dropped_total") > 0
    for each in servers:
        assert 1 <= each.log.count("backplane lost") <= 2  # a line that repeats within a second is held back
        assert 1 <= each.log.count("backplane is back") <= 2
        assert "Traceback" not in each.log
        lag = re.findall(r'loop_lag_seconds_bucket{le="(?:1.0|\+Inf)"} (\S+)', each.ask("/metrics")[1])
        # Nothing that waits for Redis holds the loop: it would have done so each time. Once may be chance.
        assert float(lag[1]) - float(lag[0]) <= 1


# -- the start -----------------------------------------------------------------------------------------


def test_a_start_without_redis_serves_and_says_so(operate: Operate, tmp_path: Path, join: Join) -> None:
    """It says that the backplane is lost, serves its own clients, and connects once Redis is there."""
    server = relay(operate, f"unix://{tmp_path / 'redis.sock'}")
    server.logged(r"backplane lost: \S*redis\.sock: .*No such file")
    assert server.ask("/readyz") == (200, "backplane lost\n")
    assert server.metric("chat_gevent_backplane_connected") == 0
    member = join(server)
    member.tell("all here")
    assert [member.read(), member.read()] == ["here", "told 1"]
    redis_server = RedisServer(tmp_path)
    try:
        until(lambda: server.ask("/readyz") == (200, "ready\n"))
    finally:
        redis_server.kill()


def test_readyz_is_503_where_the_backplane_is_required(operate: Operate, tmp_path: Path) -> None:
    """With that setting a balancer takes out who has lost it."""
    server = relay(operate, f"unix://{tmp_path / 'none'}", "--backplane-required")
    assert server.ask("/readyz") == (503, "backplane lost\n")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 70])
def test_a_host_that_does_not_exist_is_a_lost_redis(operate: Operate, host: str) -> None:
    """A name may be known later; the server starts."""
    server = relay(operate, f"redis://{host}:1")
    server.logged(f"backplane lost: {host}:1: ")
    assert server.ask("/readyz") == (200, "backplane lost\n")


def test_a_wrong_password_is_a_lost_redis(operate: Operate, tmp_path: Path) -> None:
    """The log says why, and shows no password; once Redis takes it, the backplane is there."""
    port = kept_port()
    arguments = ("--port", str(port), "--bind", "127.0.0.1", "--requirepass", "right")
    redis_server = RedisServer(tmp_path, *arguments)
    try:
        server = relay(operate, f"redis://:wr0ng@127.0.0.1:{port}")
        server.logged(rf"backplane lost: 127\.0\.0\.1:{port}: (invalid username-password|WRONGPASS)")
        assert "wr0ng" not in server.log
        with redis_server.client(password="right") as client:
            client.config_set("requirepass", "wr0ng")
        until(lambda: server.ask("/readyz") == (200, "ready\n"))
    finally:
        redis_server.kill()


@pytest.mark.parametrize("patched", ["", "from gevent import monkey; monkey.patch_all()"])
def test_tls_and_a_password(operate: Operate, tmp_path: Path, join: Join, patched: str) -> None:
    """``rediss://`` verifies the server by the CA that is named; without it, Redis is lost.

    It is the same where a handler's module has patched the standard library.
    """
    (tmp_path / "patches.py").write_text(f"{patched}\nfrom tests.relay import Relay\n")
    handler = ("--handler", "patches:Relay")
    path = {"PYTHONPATH": str(tmp_path)}
    made = certificate(tmp_path, "redis")
    port = kept_port()
    tls = (
        "--tls-port",
        str(port),
        "--tls-cert-file",
        str(made),
        "--tls-key-file",
        str(made.with_suffix(".key")),
    )
    redis_server = RedisServer(
        tmp_path, *tls, "--tls-auth-clients", "no", "--bind", "127.0.0.1", "--requirepass", "p@ss"
    )
    url = f"rediss://:p%40ss@localhost:{port}"
    try:
        servers = [linked(operate, f"{url}?ssl_ca_certs={made}", *handler, env=path) for _ in range(2)]
        near, far = (join(each) for each in servers)
        near.tell("but over tls")
        assert far.read() == "over tls"
        assert relay(operate, url, *handler, env=path).logged("backplane lost: .*certificate verify failed")
    finally:
        redis_server.kill()


# -- what does not arrive --------------------------------------------------------------------------------


def test_a_full_queue_drops_the_newest(serve: Callable[..., Any], redis_server: RedisServer) -> None:
    """Publishing never waits: what does not fit is counted, and what was there before reaches Redis."""
    server = serve(Relay())
    backplane = Backplane(redis_server.url, server.core)
    backplane.start(wait=30)
    assert backplane.connected
    for number in range(MOST_QUEUED + 300):
        server.broadcast(str(number))
    assert backplane.dropped == 300
    wait_until(lambda: backplane.published == MOST_QUEUED)
    server.broadcast("after")
    wait_until(lambda: backplane.published == MOST_QUEUED + 1)
    assert backplane.dropped == 300


def test_a_stop_hands_over_what_is_queued(serve: Callable[..., Any], redis_server: RedisServer) -> None:
    """What was broadcast just before is published, not dropped."""
    server = serve(Relay())
    backplane = Backplane(redis_server.url, server.core)
    backplane.start(wait=30)
    server.broadcast("farewell")
    backplane.stop()
    assert (backplane.published, backplane.dropped, backplane.connected) == (1, 0, False)


def test_silence_is_no_loss_and_a_held_redis_is_one(
    serve: Callable[..., Any], redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """With nothing to carry, both connections are kept by signs of life, and are lost when there are none."""
    server = serve(Relay())
    backplane = Backplane(redis_server.url, server.core)
    backplane.start(wait=30)
    with redis_server.client() as client:
        wait_until(lambda: client.info("commandstats")["cmdstat_ping"]["calls"] >= 10)
    assert backplane.connected
    redis_server.hold()
    wait_until(lambda: not backplane.connected)
    redis_server.go_on()
    wait_until(lambda: backplane.connected)
    assert caplog.text.count("backplane lost") == 1


def test_nothing_is_kept_for_later(
    serve: Callable[..., Any], redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """What is broadcast while Redis is lost is dropped, not sent to those who are back first.

    The loss is told once, however often it is tried again.
    """
    caplog.set_level(logging.DEBUG, logger="chat_gevent")
    server = serve(Relay())
    redis_server.kill()
    backplane = Backplane(redis_server.url, server.core)
    backplane.start(wait=30)
    server.broadcast("lost")
    assert (backplane.connected, backplane.dropped) == (False, 1)

    def told() -> list[str]:  # of this one: those of earlier tests may have a last word as well
        return [each.levelname for each in caplog.records if backplane.name in each.getMessage()]

    wait_until(lambda: len(told()) >= 4)
    assert told()[:4] == ["WARNING", "DEBUG", "DEBUG", "DEBUG"]
    redis_server.start()
    wait_until(lambda: backplane.connected)
    server.broadcast("kept")
    wait_until(lambda: backplane.published == 1)


def test_what_is_older_or_strange_is_dropped(
    serve: Callable[..., Any], redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A sequence that is not above its sender's last one, or a header of no known version, reaches nobody."""
    server = serve(Relay())
    backplane = Backplane(redis_server.url, server.core)
    backplane.start(wait=30)
    sequences = [(b"sender-1", 1), (b"sender-1", 3), (b"sender-1", 2), (b"sender-1", 3), (b"sender-2", 2)]
    with caplog.at_level(logging.WARNING), redis_server.client() as client:
        for payload in (b"", b"hello", HEADER.pack(VERSION + 1, b"sender-1", 9) + b"later"):
            client.publish("chat-gevent:all", payload)
        for sender, sequence in sequences:
            client.publish("chat-gevent:all", HEADER.pack(VERSION, sender, sequence) + b"x")
        wait_until(lambda: (b"sender-2") in backplane._heard)
    assert backplane.received == 3
    assert caplog.text.count("not of this version") == 1


def test_a_group_of_ones_own_stays_here(serve: Callable[..., Any], redis_server: RedisServer) -> None:
    """A Group that ``server.group`` did not make has no channel; earlier ones that it made get theirs."""
    server = serve(Relay())
    early = server.group("early")
    with socket.create_connection(server.address[:2]) as client:
        client.sendall(b"join early\n")
        wait_until(lambda: len(early) == 1)
        backplane = Backplane(redis_server.url, server.core)
        backplane.start(wait=30)
        assert "chat-gevent:group:early" in redis_server.channels()
        assert server.broadcast("x", to=Group("early")) == 0
        assert server.broadcast("y", to=early) == 1
        wait_until(lambda: backplane.published == 1)
        gevent.sleep(0)
        assert backplane.published == 1


def test_many_groups_come_and_go(serve: Callable[..., Any], redis_server: RedisServer) -> None:
    """Thousands of subscriptions are made in one go at a connect, and follow the groups afterwards."""
    server = serve(Relay())
    with socket.create_connection(server.address[:2]):
        wait_until(lambda: len(server.clients) == 1)
        (client,) = server.clients
        groups = [server.group(str(number)) for number in range(3000)]
        for each in groups:
            each.add(client)
        Backplane(redis_server.url, server.core).start(wait=5)
        assert len(redis_server.channels()) == 3001
        for each in groups[1:]:
            each.discard(client)
        wait_until(lambda: len(redis_server.channels()) == 2)


# -- settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("redis://", "must be redis://HOST:PORT, rediss://HOST:PORT, unix:///PATH or none"),
        ("localhost:6379", "must be redis://HOST:PORT"),
        ("http://localhost", "must be redis://HOST:PORT"),
        ("redis://:s3cret@h:port", "--backplane = redis://:***@h:port: must be redis://HOST:PORT"),
        ("redis://h/rooms", "backplane: what follows the host must be the number of a database"),
        ("redis://h?tiemout=3", "backplane: no such option in a URL: 'tiemout'"),
        ("rediss://h?ssl_cert_reqs=maybe", "backplane: Invalid SSL Certificate Requirements Flag: maybe"),
    ],
)
def test_a_wrong_url_is_one_line_and_exit_2(operate: Operate, url: str, complaint: str) -> None:
    """Nothing is served, and no password is shown."""
    server = operate("--port", "0", "--backplane", url, ready=False)
    assert server.process.wait(30) == 2
    assert complaint in server.log
    assert server.log.count("\n") == 1


def test_without_the_extra_one_line_says_what_to_install(operate: Operate, tmp_path: Path) -> None:
    """The library is asked for only where there is a backplane."""
    (tmp_path / "redis.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'redis'\", name='redis')\n"
    )
    path = {"PYTHONPATH": str(tmp_path)}
    server = operate("--port", "0", "--backplane", "redis://localhost", ready=False, env=path)
    assert server.process.wait(30) == 1
    assert server.log == "chat-gevent serve: error: backplane needs redis: pip install 'chat-gevent[redis]'\n"
    assert operate("--port", "0", env=path).stop() == 0


@pytest.mark.parametrize(
    ("workers", "backplane", "service", "refused"),
    [
        (2, "", Relay, True),
        (2, "", Relay(), True),
        (1, "", Relay, False),
        (2, "none", Relay, False),
        (2, "redis://localhost", Relay, False),
        (2, "", confirm, False),
        (2, "", None, False),
    ],
)
def test_a_service_in_several_workers_needs_a_backplane(
    workers: int, backplane: str, service: Any, refused: bool
) -> None:
    """A handler does not; ``none`` says that the rooms are meant to be separate."""
    why = needs_backplane(ServeSettings(backplane=backplane), workers, service)
    assert (why is not None) is refused
    if why is not None:
        assert "--backplane redis://HOST:PORT" in why
        assert "--backplane none" in why
        assert "\n" not in why


def test_without_a_backplane_nothing_of_it_is_loaded() -> None:
    """A core has none by default."""
    assert Core().backplane is None
