"""The books of a server: who is there, who was, from where, and what they sent."""

from __future__ import annotations

import logging
import socket as std
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chat_gevent.confirm import ErrorCode
from chat_gevent.framing import LINE
from chat_gevent.identity import ProxyIdentity
from chat_gevent.registry import Registry
from tests.conftest import wait_until
from tests.peers import Peer

Serve = Callable[..., Any]

HOST = "127.0.0.1"
ELSEWHERE = ("192.0.2.9", 1)


def only(server: Any) -> Any:
    """The one connection of a server."""
    (connection,) = server.core.engine.all()
    return connection


def test_new_books_are_empty() -> None:
    """Nobody is there, nobody was, and nothing has been counted."""
    books = Registry()
    assert (books.live, books.refusals, books.accepted, books.pushes, books.dropped) == (0, 0, 0, 0, 0)
    assert (books.closed, books.refused, books.errors, books.proxied) == ({}, {}, {}, {})
    assert books.totals([]) == (0, 0, 0)
    assert books.empty.is_set()
    assert books.on_close is None


def test_without_a_limit_no_address_is_full() -> None:
    """There are no places to count then."""
    books = Registry()
    assert books.places is None
    assert not books.address_is_full((HOST, 1))


def test_an_address_is_full_once_its_places_are_taken() -> None:
    """All its ports count together, mapped or not; UNIX clients, and those of no address, are not counted."""
    books = Registry(2)
    assert books.places is not None
    books.places.take(HOST)
    assert not books.address_is_full((HOST, 1))
    books.places.take(HOST)
    assert books.address_is_full((HOST, 1))
    assert books.address_is_full(("::ffff:127.0.0.1", 1, 0, 0))
    assert not books.address_is_full(ELSEWHERE)
    books.places.take("")
    books.places.take("")
    assert not books.address_is_full("/run/client")
    assert not books.address_is_full(None)


def test_ipv6_clients_are_counted_by_their_network() -> None:
    """As many bits of the address count as the registry was told; all of them, unless it was told."""
    by_network, by_address = Registry(1, 64), Registry(1)
    for books, taken in ((by_network, "2001:db8::/64"), (by_address, "2001:db8::1")):
        assert books.places is not None
        books.places.take(taken)
        assert books.address_is_full(("2001:db8::1", 1, 0, 0))
    assert by_network.address_is_full(("2001:db8::2", 1, 0, 0))
    assert not by_address.address_is_full(("2001:db8::2", 1, 0, 0))
    assert not by_network.address_is_full(("2001:db8:0:1::1", 1, 0, 0))


def test_clients_come_and_go(serve: Serve) -> None:
    """Live ones are counted; ``empty`` is set while there is none, and is not before the last has gone."""
    server = serve(framing=LINE)
    books = server.core.registry
    with Peer(server.address) as one, Peer(server.address) as two:
        one.ask(b"here")
        two.ask(b"here")
        assert (books.live, books.accepted, books.empty.is_set()) == (2, 2, False)
        one.close()
        wait_until(lambda: books.live == 1)
        assert not books.empty.is_set()
    wait_until(books.empty.is_set)
    assert (books.live, books.accepted, books.closed) == (0, 2, {"eof": 2})


def test_totals_are_of_the_live_and_the_closed(serve: Serve) -> None:
    """Messages, bytes received and bytes sent are added up over both."""
    server = serve(framing=LINE)
    books = server.core.registry
    with Peer(server.address) as gone:
        gone.ask(b"abc")
    wait_until(books.empty.is_set)
    assert books.totals([]) == (1, 4, 14)
    with Peer(server.address) as gone:
        gone.ask(b"")
        gone.ask(b"")
    wait_until(books.empty.is_set)
    assert books.totals([]) == (3, 6, 36)
    with Peer(server.address) as one, Peer(server.address) as two:
        one.ask(b"a")
        two.ask(b"bc")
        two.ask(b"d")
        assert books.totals(server.core.engine.all()) == (6, 13, 73)
        assert books.totals([]) == (3, 6, 36)


def test_one_that_closes_is_told_of_once(serve: Serve) -> None:
    """``on_close`` sees its address, and its reason and figures as they are in the books."""
    server = serve(framing=LINE)
    closed = []

    def on_close(connection: Any) -> None:
        assert connection.fd >= 0
        closed.append((connection.peer, connection.reason, connection.messages))

    server.core.registry.on_close = on_close
    with Peer(server.address) as peer:
        address = peer.socket.getsockname()
        peer.ask(b"one")
        peer.ask(b"two")
    wait_until(server.core.registry.empty.is_set)
    assert closed == [(address, "eof", 2)]


@pytest.mark.parametrize("last", [b"", b"/exit\n"])
def test_a_failure_of_on_close_stays_its_own(
    serve: Serve, caplog: pytest.LogCaptureFixture, last: bytes
) -> None:
    """It is logged with its traceback, and connection and books are closed all the same, however it ends."""
    server = serve(framing=LINE)

    def on_close(connection: Any) -> None:
        raise RuntimeError("no room for the log")

    server.core.registry.on_close = on_close
    with Peer(server.address) as peer:
        peer.send(b"one\n" + last)
        peer.end()
        assert peer.rest() == b"Received: one\n"
    wait_until(lambda: server.core.registry.live == 0)
    assert server.core.registry.empty.is_set()
    assert server.core.engine.all() == []
    (record,) = caplog.records
    assert (record.getMessage(), record.levelno) == ("on_close failed", logging.ERROR)
    assert record.exc_info
    assert str(record.exc_info[1]) == "no room for the log"
    assert server.core.registry.live == 0


def test_an_address_is_kept_only_for_who_asks(serve: Serve) -> None:
    """Without a limit and without ``on_close`` a connection does not keep its peer's address."""
    server = serve(framing=LINE)
    with Peer(server.address) as peer:
        peer.ask(b"one")
        assert only(server).peer is None


def test_places_are_given_back(serve: Serve) -> None:
    """An address that was full has room again when a client of it has gone, and not more than it had."""
    server = serve(framing=LINE, max_connections_per_address=1)
    books = server.core.registry
    for count in (1, 2, 3):
        with Peer(server.address) as peer:
            peer.ask(b"in")
            assert only(server).peer == peer.socket.getsockname()
            assert books.address_is_full((HOST, 1))
            with Peer(server.address) as refused:
                assert refused.rest().startswith(b"Error: address-full: ")
            wait_until(lambda: books.live == 1)
            peer.ask(b"still in")
        wait_until(books.empty.is_set)
        assert books.refused == {ErrorCode.ADDRESS_FULL: count}
        assert books.refusals == 0
        assert not books.address_is_full((HOST, 1))


def test_unix_clients_take_no_places(serve: Serve, tmp_path: Path) -> None:
    """They have no address that could be full, and neither have those of a proxy that does not tell one."""
    listener = std.socket(std.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen()
    server = serve(listener=listener, framing=LINE, max_connections_per_address=1)
    with Peer(server.address) as one, Peer(server.address) as two:
        one.ask(b"in")
        two.ask(b"in")
        for connection in server.core.engine.all():
            server.core.registry.attribute(connection, None)
        one.ask(b"still in")
        two.ask(b"still in")
    wait_until(server.core.registry.empty.is_set)
    assert server.core.registry.refused == {}


def test_a_client_of_a_proxy_is_put_down_to_its_own_address(serve: Serve) -> None:
    """It takes a place of that address, and gives that one back."""
    server = serve(framing=LINE, max_connections_per_address=1)
    books = server.core.registry
    books.on_close = lambda connection: None
    with Peer(server.address) as peer:
        peer.ask(b"in")
        books.places.give_back(HOST)  # as of a proxy, whose address takes none
        books.attribute(only(server), ELSEWHERE)
        assert only(server).peer == ELSEWHERE
        assert books.address_is_full(ELSEWHERE)
        assert not books.address_is_full((HOST, 1))
    wait_until(books.empty.is_set)
    assert not books.address_is_full(ELSEWHERE)
    assert books.refused == {}


def test_clients_of_a_full_address_behind_a_proxy_are_refused(serve: Serve) -> None:
    """Each is told so, is counted once, and gives back no place that it never had."""
    server = serve(framing=LINE, max_connections_per_address=1)
    books = server.core.registry
    with ExitStack() as stack:
        peers = []
        for _ in range(2):
            peers.append(stack.enter_context(Peer(server.address)))
            peers[-1].ask(b"in")
            books.places.give_back(HOST)  # as of a proxy, whose address takes none
        books.places.take(ELSEWHERE[0])
        for count, connection in enumerate(server.core.engine.all(), 1):
            for _ in range(2):  # a second time changes nothing
                books.attribute(connection, ELSEWHERE)
                assert connection.leaving == ErrorCode.ADDRESS_FULL
                assert connection.peer == ELSEWHERE
                assert (books.refused, books.refusals) == ({ErrorCode.ADDRESS_FULL: count}, count)
        for peer in peers:
            peer.send(b"not answered\n")
            assert peer.rest().startswith(b"Error: address-full: ")
    wait_until(books.empty.is_set)
    assert books.refusals == 0
    assert books.address_is_full(ELSEWHERE)


def test_what_a_proxy_said_goes_with_its_client(serve: Serve) -> None:
    """It is forgotten with the client that it is about, and with no other."""
    server = serve(framing=LINE)
    books = server.core.registry
    with Peer(server.address) as unknown, Peer(server.address) as one, Peer(server.address) as two:
        unknown.ask(b"one message")
        for peer in (one, one, two, two):
            peer.ask(b"two messages")
        known = [each for each in server.core.engine.all() if each.messages == 2]
        books.proxied.update(dict.fromkeys(known, ProxyIdentity()))
        unknown.close()
        wait_until(lambda: books.live == 2)
        assert [*books.proxied] == known
        one.close()
        wait_until(lambda: books.live == 1)
        assert [*books.proxied] == server.core.engine.all()
    wait_until(books.empty.is_set)
    assert books.proxied == {}
