"""``auto`` framing over real sockets: what the first bytes decide, and how long a client waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from chat_gevent.framing import AUTO, AUTO_SECONDS, SEGMENT_SECONDS
from tests.peers import Peer


@pytest.fixture
def soon_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after :data:`SEGMENT_SECONDS` comes too late for any test."""
    monkeypatch.setattr("chat_gevent.framing.SEGMENT_SECONDS", 1000)


@pytest.mark.usefixtures("soon_only")
def test_a_client_of_the_seed_is_answered_soon(serve: Callable[..., Any]) -> None:
    """Bytes without an LF are a message after 0.1 s, as they fill no segment; its reply is without LF."""
    server = serve()
    with Peer(server.address) as client:
        began = time.monotonic()
        client.send(b"hello")
        assert client.receive() == b"Received: hello"
        assert time.monotonic() - began > AUTO_SECONDS * 0.9
        client.send(b"again")
        assert client.receive() == b"Received: again"


def test_a_first_line_in_two_pieces(serve: Callable[..., Any]) -> None:
    """A piece that stays alone is answered as a message; an LF at the end of a later read means lines."""
    server = serve()
    with Peer(server.address) as client:
        client.send(b"hel")
        assert client.receive() == b"Received: hel"
        client.send(b"lo\n")
        assert client.receive() == b"Received: lo\n"
        client.send(b"one\ntw")
        client.expect(b"Received: one\n")
        client.send(b"o\n")
        client.expect(b"Received: two\n")


def test_a_handler_never_gets_half_a_line(serve: Callable[..., Any]) -> None:
    """Handlers of one's own have line framing, where a first line in two pieces stays one message."""
    got: list[str] = []

    def handle(message: str, client: Any) -> str:
        got.append(message)
        return "ok"

    server = serve(handle)
    with Peer(server.address) as client:
        client.send(b"PAY 10")
        gevent.sleep(AUTO_SECONDS * 3)  # longer than any decision takes: nothing may come of it
        client.send(b"00\n")
        client.expect(b"ok\n")
    assert got == ["PAY 1000"]


@pytest.mark.usefixtures("soon_only")
def test_a_lost_segment(serve: Callable[..., Any]) -> None:
    """First bytes that fill a segment wait for their LF as long as a segment takes that was sent again."""
    server = serve()
    line = b"x" * 2000
    with Peer(server.address) as client:
        client.send(line[:1448])
        gevent.sleep(AUTO_SECONDS * 3)  # the retransmission
        client.send(line[1448:] + b"\n")
        client.expect(b"Received: " + line + b"\n")


def test_a_client_of_the_seed_with_a_full_segment(serve: Callable[..., Any]) -> None:
    """Without an LF such first bytes are messages of 1,024 bytes at most, answered after a second."""
    server = serve()
    with Peer(server.address) as client:
        began = time.monotonic()
        client.send(b"y" * 1024)
        client.expect(b"Received: " + b"y" * 1024)
        assert time.monotonic() - began > SEGMENT_SECONDS * 0.9


@pytest.mark.parametrize("cut", range(1, 9))
def test_telnets_negotiation(serve: Callable[..., Any], cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken out of the text, each option is refused once, the stream is lines however it is cut."""
    monkeypatch.setattr("chat_gevent.framing.AUTO_SECONDS", 60)  # the second piece is in time
    server = serve()
    stream = b"\xff\xfd\x03\xff\xfb\x18hello\r\n"
    with Peer(server.address) as client:
        client.send(stream[:cut])
        gevent.sleep(0.02)
        client.send(stream[cut:])
        client.expect(b"\xff\xfc\x03\xff\xfe\x18Received: hello\n")
        client.ask(b"again")


def test_a_time_out_that_is_shorter_than_the_decision(serve: Callable[..., Any], park_after: Any) -> None:
    """What was read is answered, and only then the client is told that it was idle."""
    server = serve(idle_timeout=0.05, park_after=park_after)
    with Peer(server.address) as client:
        client.send(b"hello")
        assert client.rest().startswith(b"Received: hello")


@pytest.mark.usefixtures("soon_only")
def test_a_drain_does_not_wait_for_the_decision(serve: Callable[..., Any]) -> None:
    """First bytes that wait for an LF are answered at once when the server stops."""
    server = serve(framing=AUTO)
    with Peer(server.address) as client:
        client.send(b"z" * 1100)
        while not any(each.received for each in server.core.engine.all()):
            gevent.sleep(0)
        stop = gevent.spawn(server.stop, 100)
        assert client.exactly(10) == b"Received: "
        client.close()
        assert stop.get() == 0
