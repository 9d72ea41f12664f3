"""Addresses of peers: one shape for each family, whoever tells it, and what clients are counted under."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chat_gevent.addresses import address_text, counted_as, peer_address
from chat_gevent.proxy_protocol import parse_v1, parse_v2
from tests.conftest import require
from tests.operate import ServerProcess, exchange, rest
from tests.peers import Peer


def test_the_shapes_that_accept_getpeername_and_proxies_give() -> None:
    """One client has one address: a pair for TCP, with IPv4 as IPv4; a str for UNIX."""
    for given in (
        ("192.0.2.1", 43),
        ("::ffff:192.0.2.1", 43),
        ("::ffff:192.0.2.1", 43, 0, 0),
        parse_v1(b"PROXY TCP4 192.0.2.1 192.0.2.9 43 1\r\n"),
        parse_v1(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 43 1\r\n"),
        parse_v1(b"PROXY TCP6 ::ffff:c000:201 ::1 43 1\r\n"),
        parse_v2(
            0x21, 0x21, socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.1") + bytes(16) + b"\0\x2b\0\1"
        ),
    ):
        assert peer_address(given) == ("192.0.2.1", 43), given
    for given in (
        ("2001:db8::1", 43, 0, 0),
        parse_v1(b"PROXY TCP6 2001:DB8:0::1 ::1 43 1\r\n"),
        parse_v2(0x21, 0x21, socket.inet_pton(socket.AF_INET6, "2001:db8::1") + bytes(16) + b"\0\x2b\0\1"),
    ):
        assert peer_address(given) == ("2001:db8::1", 43), given
    assert peer_address(("fe80::1%eth0", 43, 0, 2)) == ("fe80::1%eth0", 43)
    assert peer_address("") == peer_address(b"") == ""
    assert peer_address("/run/client") == "/run/client"
    assert peer_address(b"\0name") == "@name"
    assert peer_address(None) is None


def test_as_people_write_it() -> None:
    """An address in brackets where it has colons itself; a mapped one is IPv4."""
    assert address_text(("::ffff:192.0.2.1", 43, 0, 0)) == "192.0.2.1:43"
    assert address_text(("2001:db8::1", 43, 0, 0)) == "[2001:db8::1]:43"
    assert [address_text(each) for each in ("", b"\0name", None)] == ["unix", "unix", "unknown"]


def test_what_clients_are_counted_under() -> None:
    """IPv4 by the address, IPv6 by its network, the scope apart; UNIX clients by nothing."""
    assert counted_as(("192.0.2.1", 43), 64) == "192.0.2.1"
    assert counted_as(("2001:db8::1", 1), 64) == counted_as(("2001:db8::ffff:0:0:2", 2), 64)
    assert counted_as(("2001:db8::1", 1), 64) != counted_as(("2001:db8:0:1::1", 1), 64)
    assert counted_as(("2001:db8::1", 1)) == "2001:db8::1"
    assert counted_as(("fe80::1%eth0", 1), 64) != counted_as(("fe80::1%eth1", 1), 64)
    assert counted_as("", 64) == ""


@pytest.mark.parametrize(("listen", "host"), [("[::]", "127.0.0.1"), ("127.0.0.1", "127.0.0.1")])
def test_a_handler_sees_the_one_shape(serve: Callable[..., Any], listen: str, host: str) -> None:
    """Of an IPv4 client a handler is told ``(host, port)``, also where the listener takes both families."""
    require(listen != "[::]" or Path("/proc/net/if_inet6").exists(), "IPv6")
    seen: list[Any] = []
    server = serve(lambda message, client: seen.append(client.address), listener=(listen.strip("[]"), 0))
    with Peer((host, server.address[1])) as peer:
        peer.send(b"hello\n/exit\n")
        assert peer.rest() == b""
        assert seen == [peer.socket.getsockname()]


def _full(server: ServerProcess, *headers: str) -> list[bool]:
    """For each header, in turn, whether a client behind it is refused."""
    found, clients = [], []
    for header in headers:
        clients.append(client := server.connect())
        client.sendall(f"PROXY {header} 4321 1\r\n".encode())
        client.sendall(b"hello\n")
        found.append(client.recv(1000).startswith(b"Error: address-full: "))
    for client in clients:
        client.close()
    return found


def test_one_customer_has_one_place_to_fill(operate: Callable[..., ServerProcess]) -> None:
    """A mapped IPv4 address counts with the IPv4 one, and all addresses of a /64 count together."""
    arguments = ("--port", "0", "--proxy-from", "127.0.0.1", "--max-connections-per-address", "1")
    server = operate(*arguments, "--framing", "line")
    assert _full(server, "TCP4 192.0.2.1 192.0.2.9", "TCP6 ::ffff:192.0.2.1 ::1") == [False, True]
    assert _full(server, "TCP6 2001:db8::1 ::1", "TCP6 2001:db8::2 ::1", "TCP6 2001:db8:0:1::1 ::1") == [
        *(False, True, False)
    ]
    server = operate(*arguments, "--framing", "line", "--per-address-ipv6-prefix", "128")
    assert _full(server, "TCP6 2001:db8::1 ::1", "TCP6 2001:db8::2 ::1") == [False, False]


def test_places_come_back(operate: Callable[..., ServerProcess]) -> None:
    """Who leaves makes room for another address of the same network."""
    server = operate(
        *("--port", "0", "--proxy-from", "127.0.0.1", "--max-connections-per-address", "1", "--access-log")
    )
    for number in (1, 2):
        with server.connect() as client:
            client.sendall(f"PROXY TCP6 2001:db8::{number} ::1 4321 1\r\n".encode())
            exchange(client, b"hello")
        server.logged(rf"closed client=\[2001:db8::{number}\]")


def test_the_mode_of_an_abstract_socket_is_refused(operate: Callable[..., ServerProcess]) -> None:
    """It has no permissions to set: one line and status 2, not a socket that anybody may connect to."""
    server = operate("--listen", "unix://@chat-gevent-mode", "--unix-mode", "0600", ready=False)
    assert server.process.wait(30) == 2
    assert "--unix-mode = 0600: an abstract UNIX socket has no permissions" in server.log
    assert server.log.count("\n") == 1
    server = operate("--listen", "unix://@chat-gevent-mode")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0chat-gevent-mode")
        client.settimeout(30)
        client.sendall(b"hello\n/exit\n")
        assert rest(client) == b"Received: hello\n"
    assert server.stop() == 0
