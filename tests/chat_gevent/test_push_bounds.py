"""What bounds pushes and keeps their order where the limits, slices and endings meet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event

from chat_gevent.broadcast import AT_ONCE, MOST_RUNNING
from chat_gevent.framing import LengthPrefix
from chat_gevent.service import Client, Service
from tests.conftest import wait_until
from tests.peers import Peer
from tests.timing import seconds

Serve = Callable[..., Any]
Join = Callable[..., list[Peer]]


class Kept(Service):
    """Keeps its clients, and why they went."""

    def __init__(self) -> None:
        self.here: list[Client[Any]] = []
        self.reasons: list[str] = []

    def connected(self, client: Client[Any]) -> str | None:
        """Keep it."""
        self.here.append(client)
        return None

    def disconnected(self, client: Client[Any], reason: str) -> None:
        """Note why."""
        self.reasons.append(reason)


@pytest.fixture
def join() -> Iterator[Callable[..., list[Peer]]]:
    """Clients that the service knows; they are closed with the test."""
    peers: list[Peer] = []

    def joined(server: Any, service: Kept, count: int, **options: Any) -> list[Peer]:
        peers.extend(Peer(server.address, **options) for _ in range(count))
        wait_until(lambda: len(service.here) == count)
        return peers

    yield joined
    for peer in peers:
        peer.close()


def test_one_who_reads_all_the_time_is_not_given_up(serve: Serve, join: Join) -> None:
    """Its outbox is never empty for longer than ``write_timeout``, and it takes something all the time.

    What it has not taken grows with each refill and shrinks with each read: that no look of the server's
    finds less than ever before does not mean that it takes nothing.
    """
    service = Kept()
    limit = 1.0
    server = serve(service, write_timeout=limit, slow_consumer="drop-newest", outbox_bytes=400_000)
    [peer] = join(server, service, 1, receive_buffer=20_000)
    [client] = service.here
    line = "x" * 9_999
    until = time.monotonic() + 5 * limit
    got = 0
    while time.monotonic() < until:
        while client.send(line):
            pass
        assert not client.closed, service.reasons
        got += len(peer.receive(6_000))
        gevent.sleep(0.01)
    assert service.reasons == []
    assert server.stats().pushes_dropped > 5
    assert got > 100_000


def test_one_who_reads_too_slowly_is_closed_though_it_reads(serve: Serve, join: Join) -> None:
    """``min_read_rate`` holds where each refill finds more untaken than before."""
    service = Kept()
    server = serve(
        service,
        write_timeout=1.0,
        min_read_rate=2_000_000,
        slow_consumer="drop-newest",
        outbox_bytes=400_000,
    )
    [peer] = join(server, service, 1, receive_buffer=20_000)
    [client] = service.here
    line = "x" * 9_999
    until = time.monotonic() + seconds(20)
    while not service.reasons and time.monotonic() < until:
        while client.send(line):
            pass
        if peer.silent(0.01):
            continue
        try:
            peer.receive(6_000)
        except OSError:
            break
        gevent.sleep(0.02)
    wait_until(lambda: service.reasons == ["write-timeout"])


@pytest.mark.parametrize("count", [AT_ONCE, AT_ONCE + 1])
@pytest.mark.parametrize("policy", ["close", "drop-newest"])
def test_a_message_larger_than_an_outbox_is_refused_to_few_and_to_many(
    serve: Serve, join: Join, count: int, policy: str
) -> None:
    """The same limit holds for a broadcast that is put into outboxes and one that is sent in slices."""
    service = Kept()
    server = serve(service, outbox_bytes=10_000, slow_consumer=policy)
    peers = join(server, service, count)
    server.broadcast("x" * 10_000)
    if policy == "close":
        wait_until(lambda: service.reasons == ["slow"] * count)
    else:
        wait_until(lambda: server.stats().pushes_dropped == count)
        assert service.here[-1].send("small")
        peers[-1].expect(b"small\n")
    assert server.core.queued == 0


def test_what_is_queued_for_many_stays_within_the_total(serve: Serve, join: Join) -> None:
    """Clients that take a part of a large message each don't make the sum of what is queued too large."""
    service = Kept()
    count, total = AT_ONCE + 50, 4_000_000
    server = serve(service, outbox_bytes=2_000_000, outbox_total_bytes=total)
    join(server, service, count, receive_buffer=4_000)
    server.broadcast("x" * 1_000_000)
    most = 0
    while server.core.broadcasts.running:
        most = max(most, server.core.queued)
        gevent.sleep(0)
    assert max(most, server.core.queued) <= total
    wait_until(lambda: service.reasons.count("slow") >= count - 10)


def test_broadcasts_faster_than_they_can_be_sent_are_bounded(serve: Serve, join: Join) -> None:
    """No more than some are under way; all messages come, in order, as long as outboxes have room."""
    service = Kept()
    count, rounds = AT_ONCE + 10, 5 * MOST_RUNNING
    server = serve(service)
    peers = join(server, service, count)
    for number in range(rounds):
        assert server.broadcast(f"{number}") == count
        assert len(server.core.broadcasts.running) <= MOST_RUNNING
    expected = b"".join(b"%d\n" % number for number in range(rounds))
    for peer in peers:
        peer.expect(expected)
    assert server.stats().pushes == count * rounds


def test_a_client_that_is_about_to_go_is_not_kept_by_touches(serve: Serve, join: Join) -> None:
    """``touch`` is for ``idle_timeout``: one that does not close its end goes after ``linger_timeout``."""
    service = Kept()
    server = serve(service, linger_timeout=0.2)
    join(server, service, 1)
    [client] = service.here
    client.close()

    def gone() -> bool:
        client.touch()
        return bool(service.reasons)

    wait_until(gone)
    assert service.reasons == ["handler"]


def test_the_rate_holds_for_messages_that_are_no_text(serve: Serve) -> None:
    """What is refused as no UTF-8 is paid for as any message is."""
    server = serve(Service(), message_rate=20)
    with Peer(server.address) as peer:
        began = time.monotonic()
        peer.send(b"\xff\n" * 40)
        for _ in range(40):
            assert peer.exactly(len(b"Error: invalid-utf8: ")) == b"Error: invalid-utf8: "
            while peer.exactly(1) != b"\n":
                pass
        # The first second's worth is free, and the other half takes a second.
        assert time.monotonic() - began >= 0.9


class Speaking(Kept):
    """Tells everybody, and then greets, fails or goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.group: Any = None

    def started(self, server: Any) -> None:
        """Keep the server."""
        self.server = server
        self.group = server.group("all")

    def connected(self, client: Client[Any]) -> str:
        """The new client is told with the others, before it is greeted."""
        self.here.append(client)
        self.group.add(client)
        if len(self.here) > AT_ONCE + 1:
            self.server.broadcast("all", to=self.group)
        return "welcome"

    def message(self, message: str, client: Client[Any]) -> str | None:
        """Tell everybody, and fail."""
        self.server.broadcast(message, to=self.group)
        if message == "fail":
            raise ValueError(message)
        return None


def test_errors_and_greetings_keep_their_place_among_broadcasts(serve: Serve, join: Join) -> None:
    """To more clients than are sent to at once as well: what was broadcast before comes before."""
    service = Speaking()
    server = serve(service)
    peers = join(server, service, AT_ONCE + 1)
    for peer in peers:
        peer.expect(b"welcome\n")
    with Peer(server.address) as late:
        late.expect(b"all\nwelcome\n")
        for peer in peers:
            peer.expect(b"all\n")
        late.send(b"fail\n")
        late.expect(b"fail\nError: handler-failed: the server could not handle the message\n")
        late.send(b"heard\n\xff\n")
        late.expect(b"heard\nError: invalid-utf8: ")
    for peer in peers:
        peer.expect(b"fail\nheard\n")


@pytest.mark.parametrize("end", [b"", b"/exit\n"])
def test_what_was_broadcast_comes_before_the_end(serve: Serve, join: Join, end: bytes) -> None:
    """A client that speaks to many and leaves at once, itself among them, has its own message first."""
    service = Speaking()
    server = serve(service)
    peers = join(server, service, AT_ONCE + 1)
    peers[0].send(b"goodbye\n" + end)
    peers[0].end()
    assert peers[0].rest() == b"welcome\ngoodbye\n"
    for peer in peers[1:]:
        peer.expect(b"welcome\ngoodbye\n")


def test_what_every_calls_may_run_into_its_own_time_out(serve: Serve) -> None:
    """A ``gevent.Timeout`` is logged as any failure, and the next call comes."""
    server = serve(Service())
    calls: list[int] = []

    def call() -> None:
        calls.append(len(calls))
        with gevent.Timeout(0.001):
            gevent.sleep(seconds(30))

    server.every(0.01, call)
    wait_until(lambda: len(calls) >= 3)


def test_a_client_that_was_cut_off_is_booked_out_once(serve: Serve) -> None:
    """Its handler outlasts the drain, takes no notice of its end, and has ``/exit`` behind it."""
    begun, others = Event(), []

    def stubborn(message: str, client: Client[Any]) -> None:
        others.append(client)
        begun.set()
        try:
            gevent.sleep(seconds(60))
        except gevent.GreenletExit:
            pass

    server = serve(stubborn)
    with Peer(server.address) as peer:
        peer.send(b"a\n/exit\n")
        begun.wait(30)
        assert server.stop(0) == 1
        wait_until(lambda: others[0]._connection.greenlet is None)
        assert server.core.registry.live == 0
        assert sum(server.core.registry.closed.values()) == 1


class Binary(Service):
    """A protocol of its own, with its own words for errors."""

    text = False
    framing = LengthPrefix(4)

    def error_reply(self, code: str, explanation: str) -> bytes:
        """One byte and the code."""
        return b"\x01" + code.encode()


def test_refusals_are_in_the_protocol_of_the_service(serve: Serve) -> None:
    """Also those that are told at once, because many others are waited for to read theirs."""
    from chat_gevent.lifecycle import REFUSED_LINGERING

    server = serve(Binary(), max_connections=1, linger_timeout=seconds(30))
    with Peer(server.address):
        wait_until(lambda: server.core.registry.live == 1)
        refused = [Peer(server.address) for _ in range(REFUSED_LINGERING + 5)]
        for peer in refused:
            peer.expect(b"\x00\x00\x00\x0c\x01server-full")
            peer.close()


def test_a_hook_of_errors_that_fails_or_blocks_does_no_harm(serve: Serve) -> None:
    """The refused client is told nothing, and is closed."""
    from chat_gevent.lifecycle import REFUSED_LINGERING

    class Failing(Service):
        def error_reply(self, code: str, explanation: str) -> str:
            if len(refused) % 2:
                raise ValueError(code)
            gevent.sleep(0.01)  # it must not: told so by gevent where it is called in the event loop
            return "late"

    refused: list[Peer] = []
    server = serve(Failing(), max_connections=1, linger_timeout=seconds(30))
    with Peer(server.address):
        wait_until(lambda: server.core.registry.live == 1)
        for _ in range(REFUSED_LINGERING + 6):
            refused.append(Peer(server.address))
            assert refused[-1].rest() in (b"", b"late\n")
            refused[-1].close()
