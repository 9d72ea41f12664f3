"""The protocol over real sockets: every rule of it, with each kind of parking."""

from __future__ import annotations

import logging
import os
import socket as std
import time
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gevent
import pytest

from chat_gevent.answering import READ_BYTES
from chat_gevent.engine import QUEUED_AT_ONCE
from chat_gevent.framing import AUTO, CHUNK, LINE, Framing
from tests.conftest import wait_until
from tests.peers import Peer

Serve = Callable[..., Any]


@pytest.fixture
def unix(tmp_path: Path) -> std.socket:
    """A UNIX socket that listens; the server it is given to closes it."""
    listener = std.socket(std.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen()
    return listener


# -- framings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", [LINE, AUTO])
def test_lines_are_confirmed_in_order(serve: Serve, park_after: float | None, framing: Framing) -> None:
    """Single and pipelined lines, with LF or CR LF, empty ones too: one confirmation each, in order."""
    server = serve(framing=framing, park_after=park_after)
    with Peer(server.address) as peer:
        peer.ask(b"one")
        peer.send(b"two\r\n\nthree\r\n")
        peer.expect(b"Received: two\nReceived: \nReceived: three\n")
        peer.send("zwölf 🐍\n".encode())
        peer.expect("Received: zwölf 🐍\n".encode())
        peer.send(b"a/b\n/b\n")
        peer.expect(b"Received: a/b\nReceived: /b\n")


def test_a_line_may_come_one_byte_at_a_time(serve: Serve, park_after: float | None) -> None:
    """However a message is cut into segments, it is one message."""
    server = serve(framing=LINE, park_after=park_after)
    with Peer(server.address) as peer:
        for byte in "wörd\r\n\nx\n".encode():
            peer.send(bytes([byte]))
            gevent.sleep(0.001)
        peer.expect("Received: wörd\nReceived: \nReceived: x\n".encode())


def test_a_client_without_terminators_is_served_in_chunks(serve: Serve, park_after: float | None) -> None:
    """``send`` without a terminator and ``recv(1024)``: each message is answered, without a terminator."""
    server = serve(park_after=park_after)
    with Peer(server.address) as peer:
        for message in (b"hello", b"again", b"with\nLF"):
            peer.send(message)
            assert peer.receive(1024) == b"Received: " + message
        peer.send(b"/exit")
        assert peer.receive() == b""


def test_a_chunk_is_at_most_1024_bytes(serve: Serve, park_after: float | None) -> None:
    """A longer text is several messages, and a character that is cut in two goes with the second."""
    server = serve(framing=CHUNK, park_after=park_after)
    with Peer(server.address) as peer:
        peer.send(b"x" * 1023 + "é".encode() + b"y")
        peer.expect(b"Received: " + b"x" * 1023 + "Received: éy".encode())


def test_half_a_character_waits_in_chunks(serve: Serve, park_after: float | None) -> None:
    """An unfinished character is neither answered nor lost; at the end of the stream it is refused."""
    server = serve(framing=CHUNK, park_after=park_after)
    with Peer(server.address) as peer:
        peer.send(b"a\xf0\x9f")
        peer.expect(b"Received: a")
        assert peer.silent()
        peer.send(b"\x90\x8db\xc3")
        peer.expect("Received: 🐍b".encode())
        peer.end()
        assert peer.rest().startswith(b"Error: invalid-utf8: ")


def test_auto_waits_for_the_first_lf(
    serve: Serve, park_after: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An LF in time after the first bytes means lines, also for a client that was silent before."""
    server = serve(park_after=park_after)
    with Peer(server.address) as peer:
        gevent.sleep(0.6)  # long enough for every limit of parking to be over
        monkeypatch.setattr("chat_gevent.framing.AUTO_SECONDS", 60)
        peer.send(b"hel")
        gevent.sleep(0.06)
        peer.send(b"lo\nun")
        peer.expect(b"Received: hello\n")
        monkeypatch.undo()
        assert peer.silent(0.15)
        peer.send(b"finished\n")
        peer.expect(b"Received: unfinished\n")


@pytest.mark.parametrize("start", [b"y" * 150, b"y" * 150 + b"\nshort\n", b"y" * 40_000])
def test_auto_refuses_more_than_a_message_may_have(
    serve: Serve, park_after: float | None, start: bytes
) -> None:
    """Such a start, with its LF or without, is one message that is too long, not many chunks."""
    server = serve(park_after=park_after, max_message_bytes=100)
    with Peer(server.address) as peer:
        peer.send(start)
        assert peer.rest() == b"Error: message-too-long: a message is limited to 100 bytes\n"


def test_auto_lets_others_have_their_turn(serve: Serve, park_after: float | None, unix: std.socket) -> None:
    """While much is gathered that has no LF, others are served, and after 100 ms it is decided."""
    server = serve(listener=unix, park_after=park_after, max_message_bytes=2**30)
    with Peer(server.address, send_buffer=2**20) as endless, Peer(server.address) as other:
        pouring = gevent.spawn(endless.send, b"x" * 2**26)
        wait_until(lambda: any(each.received for each in server.core.engine.all()))
        other.ask(b"hello")
        wait_until(lambda: endless.receive(65536).startswith(b"Received: x"))
        pouring.kill()


def test_auto_decides_once(serve: Serve, park_after: float | None) -> None:
    """What was decided holds for the rest of the connection, whatever comes later."""
    server = serve(park_after=park_after)
    with Peer(server.address) as lines, Peer(server.address) as chunks:
        chunks.send(b"first")
        lines.ask(b"first")
        chunks.expect(b"Received: first")
        chunks.send(b"now with\n")
        chunks.expect(b"Received: now with\n")
        lines.send(b"now without")
        assert lines.silent(0.15)
        lines.end()
        assert lines.rest() == b"Received: now without\n"


@pytest.mark.parametrize("framing", [LINE, CHUNK, AUTO])
def test_the_end_of_the_stream_ends_the_last_message(
    serve: Serve, park_after: float | None, framing: Framing
) -> None:
    """``printf hello | nc``: bytes that nothing closed are answered before the server closes."""
    server = serve(framing=framing, park_after=park_after)
    with Peer(server.address) as peer:
        peer.send(b"hello")
        peer.end()
        assert peer.rest().rstrip(b"\n") == b"Received: hello"
    with Peer(server.address) as peer:
        peer.end()
        assert peer.rest() == b""


@pytest.mark.parametrize("framing", [LINE, AUTO])
def test_data_and_end_in_one_segment(serve: Serve, park_after: float | None, framing: Framing) -> None:
    """The end of the stream that comes together with the last data is seen: nothing else will tell of it."""
    server = serve(framing=framing, park_after=park_after)
    for served_before in (False, True):
        with Peer(server.address) as peer:
            if served_before:
                peer.ask(b"before")
            peer.socket.send(b"a\nb", std.MSG_MORE)
            peer.end()
            assert peer.rest() == b"Received: a\nReceived: b\n"
    wait_until(lambda: server.core.registry.live == 0)
    assert server.core.registry.closed == {"eof": 2}


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", [LINE, CHUNK])
def test_what_is_not_utf8_is_refused_and_the_connection_goes_on(
    serve: Serve, park_after: float | None, framing: Framing
) -> None:
    """Only the message that is not UTF-8 gets an error; those around it are confirmed."""
    server = serve(framing=framing, park_after=park_after)
    end = framing.encode(b"")
    with Peer(server.address) as peer:
        for _ in range(2):
            peer.send(b"bad \xff bytes" + end)
            reply = peer.receive()
            assert reply.startswith(b"Error: invalid-utf8: ")
            assert reply.endswith(end)
            peer.send(b"good" + end)
            peer.expect(b"Received: good" + end)
    with Peer(server.address) as peer:
        if framing is LINE:
            peer.send(b"a\n\xc3\n\xa9\nb\n")
            peer.end()
            first, *errors, last = peer.rest().splitlines()
            assert (first, last) == (b"Received: a", b"Received: b")
            assert [error.split(b": ")[1] for error in errors] == [b"invalid-utf8"] * 2


@pytest.mark.parametrize("framing", [LINE, AUTO])
@pytest.mark.parametrize("terminated", [False, True])
def test_a_message_that_is_too_long_ends_the_connection(
    serve: Serve, park_after: float | None, framing: Framing, terminated: bool
) -> None:
    """Confirmations that are due come first, then the error, then the end; what follows is dropped."""
    server = serve(framing=framing, park_after=park_after, max_message_bytes=1000)
    with Peer(server.address) as peer:
        peer.ask(b"before")
        peer.send(b"x" * 1000 + b"\ndue\n" + b"y" * 1001 + (b"\nafter\n" if terminated else b""))
        lines = peer.rest().splitlines()
    assert lines[:2] == [b"Received: " + b"x" * 1000, b"Received: due"]
    assert lines[2:] == [b"Error: message-too-long: a message is limited to 1000 bytes"]


def test_a_mebibyte_without_lf_is_refused(serve: Serve, park_after: float | None) -> None:
    """It is refused at the bound, is not buffered, and the client, still sending, can read why: no reset."""
    server = serve(framing=LINE, park_after=park_after)
    with Peer(server.address) as other, Peer(server.address) as peer:
        other.ask(b"other")
        peer.send(b"due\n")
        peer.send(b"x" * 2**20)
        assert peer.rest().splitlines() == [
            b"Received: due",
            b"Error: message-too-long: a message is limited to 65536 bytes",
        ]
        other.ask(b"noticed nothing")


@pytest.mark.parametrize("framing", [LINE, AUTO])
@pytest.mark.parametrize("size", [1, 1000, 65535, 65536])
def test_messages_up_to_the_bound_are_confirmed(
    serve: Serve, park_after: float | None, size: int, framing: Framing
) -> None:
    """The bound itself is allowed, and one more is not, wherever reads happen to end."""
    server = serve(framing=framing, park_after=park_after)
    with Peer(server.address) as peer:
        for end in (b"\n", b"\r\n"):
            peer.send(b"x" * size + end)
            peer.expect(b"Received: " + b"x" * size + b"\n")
    if size == 65536:
        with Peer(server.address) as peer:
            peer.send(b"x" * (size + 1) + b"\n")
            assert peer.rest().startswith(b"Error: message-too-long")


def test_a_small_bound_holds_in_chunks(serve: Serve, park_after: float | None) -> None:
    """Chunks are never too long: a read is no larger than the bound."""
    server = serve(framing=CHUNK, park_after=park_after, max_message_bytes=10)
    with Peer(server.address) as peer:
        peer.send(b"x" * 15)
        peer.expect(b"Received: " + b"x" * 10 + b"Received: " + b"x" * 5)


# -- the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", [LINE, CHUNK, AUTO])
@pytest.mark.parametrize("word", [b"/exit", b"/EXIT", b" /eXiT \t"])
def test_exit_ends_the_connection_without_a_reply(
    serve: Serve, park_after: float | None, framing: Framing, word: bytes
) -> None:
    """In any case, with white space around it; the server notes why."""
    server = serve(framing=framing, park_after=park_after)
    with Peer(server.address) as peer:
        peer.send(framing.encode(word))
        assert peer.rest() == b""
    wait_until(lambda: server.core.registry.closed)
    assert server.core.registry.closed == {"exit": 1}


def test_exit_after_and_before_other_messages(serve: Serve, park_after: float | None) -> None:
    """Replies that are due come first; what follows ``/exit`` is dropped without a reset."""
    server = serve(framing=LINE, park_after=park_after)
    with Peer(server.address) as peer:
        peer.send(b"a\nb\n/exit\nc\n" + b"d\n" * 50_000)
        assert peer.rest() == b"Received: a\nReceived: b\n"
    with Peer(server.address) as peer:
        peer.ask(b"a")
        peer.send(b"/exit\n")
        peer.send(b"more\n" * 10)
        gevent.sleep(0.01)
        peer.send(b"and more\n")
        assert peer.rest() == b""


def test_a_client_that_does_not_close_after_its_exit_is_cut_off(
    serve: Serve, park_after: float | None
) -> None:
    """It has ``linger_timeout`` to read and close, however much it still sends."""
    server = serve(framing=LINE, park_after=park_after, linger_timeout=0.1)
    with Peer(server.address) as peer:
        peer.send(b"a\n/exit\n")
        assert peer.rest() == b"Received: a\n"
        wait_until(lambda: server.core.registry.live == 0)
        assert server.core.registry.closed == {"exit": 1}
        wait_until(lambda: server.core.engine.leases.leased == 0)


@pytest.mark.parametrize("framing", [AUTO, LINE])
def test_whole_lines_and_the_exit_need_no_greenlet(serve: Serve, framing: Framing) -> None:
    """From the first line of a client to its close, also of one that still sends after its exit."""
    server = serve(framing=framing)
    for last in (b"", b"and more\n" * 1000):
        with Peer(server.address) as peer:
            peer.send(b"one\ntwo\n")
            peer.expect(b"Received: one\nReceived: two\n")
            peer.send(b" /EXIT\r\n")
            assert peer.rest() == b""
            peer.send(last)
    wait_until(lambda: server.core.registry.live == 0)
    assert server.core.registry.closed == {"exit": 2}
    assert server.core.registry.totals([])[:2] == (4, 2 * len(b"one\ntwo\n /EXIT\r\n"))
    assert (server.core.engine.leases.leased, server.core.engine.leases.free) == (0, 0)


@pytest.mark.parametrize(
    "text", [b"\r\n/exit\n", b"/exit\n\n", b"a\n/exit\n", b"/exit/exit\n", b"/exit", b"\n\n /exit \n"]
)
def test_an_exit_beside_other_lines_loses_none(serve: Serve, park_after: float | None, text: bytes) -> None:
    """Those before it are confirmed, also an empty one, and what follows is not."""
    server = serve(framing=LINE, park_after=park_after)
    with Peer(server.address) as peer:
        peer.send(text)
        peer.end()
        lines = [line.strip().lower() for line in text.split(b"\n")]
        before = lines[: lines.index(b"/exit")] if b"/exit" in lines else lines[:-1]
        assert peer.rest() == b"".join(b"Received: " + line + b"\n" for line in before)


def test_half_close_after_replies(serve: Serve, park_after: float | None) -> None:
    """A client that has ended its own stream still gets every reply."""
    server = serve(framing=LINE, park_after=park_after)
    with Peer(server.address, receive_buffer=4096) as peer:
        peer.send(b"line\n" * 20_000 + b"last")
        peer.end()
        gevent.sleep(0.05)
        assert peer.rest() == b"Received: line\n" * 20_000 + b"Received: last\n"


@pytest.mark.parametrize("framing", [LINE, CHUNK, AUTO])
def test_a_reset_in_mid_message_is_no_news(
    serve: Serve, park_after: float | None, framing: Framing, caplog: pytest.LogCaptureFixture
) -> None:
    """The server forgets the client, logs nothing above debug, and serves the others."""
    caplog.set_level(logging.INFO)
    server = serve(framing=framing, park_after=park_after)
    with Peer(server.address) as other:
        other.ask(b"here")
        for sent in (b"", b"mid", b"whole\nmid"):
            for wait in (0, 0.01):
                peer = Peer(server.address)
                if sent:
                    peer.send(sent)
                gevent.sleep(wait)
                peer.reset()
        wait_until(lambda: server.core.registry.live == 1)
        other.ask(b"still here")
    assert caplog.records == []


def test_a_reset_while_replies_are_due(serve: Serve, park_after: float | None) -> None:
    """A client that vanishes while its replies are being sent takes its greenlet's work with it, no more."""
    server = serve(framing=LINE, park_after=park_after)
    with Peer(server.address, receive_buffer=4096) as peer:
        peer.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            peer.send(b"x" * 1000 + b"\n" + b"y\n" * 4_000_000)
        peer.reset()
    wait_until(lambda: server.core.registry.live == 0)
    with Peer(server.address) as peer:
        peer.ask(b"next")


# -- load of one client ----------------------------------------------------------------------------


@pytest.mark.parametrize("framing", [LINE, AUTO])
def test_ten_thousand_lines_in_one_write(serve: Serve, park_after: float | None, framing: Framing) -> None:
    """All are confirmed, in order, to a client that reads only after it has written."""
    server = serve(framing=framing, park_after=park_after)
    lines = [b"line %d" % number for number in range(10_000)]
    with Peer(server.address) as peer:
        peer.send(b"".join(line + b"\n" for line in lines))
        peer.expect(b"".join(b"Received: " + line + b"\n" for line in lines))
        peer.ask(b"after")
    wait_until(lambda: server.core.registry.live == 0)
    assert server.core.registry.past_messages == 10_001


def test_a_slow_reader_gets_everything_and_blocks_nobody(serve: Serve, park_after: float | None) -> None:
    """Its replies wait for it in its own greenlet; the others are served meanwhile."""
    server = serve(framing=LINE, park_after=park_after)
    count = 1_000_000  # what comes of it is more than the kernel's buffers hold
    with Peer(server.address, receive_buffer=4096) as slow, Peer(server.address) as other:
        sender = gevent.spawn(slow.send, b"0123456789\n" * count)
        gevent.sleep(0.05)
        assert not sender.ready()  # the server has stopped reading from it
        for _ in range(20):
            other.ask(b"quick")
        total = 0
        while total < count * 21:
            total += len(slow.receive(2**20))
        sender.join(30)
        slow.ask(b"after")


def test_a_reader_that_takes_nothing_is_closed(serve: Serve, park_after: float | None) -> None:
    """After ``write_timeout`` without any progress, its connection and greenlet are given back."""
    server = serve(framing=LINE, park_after=park_after, write_timeout=0.2)
    with Peer(server.address, receive_buffer=4096) as peer:
        peer.socket.settimeout(0.5)
        with pytest.raises((TimeoutError, ConnectionError)):
            peer.send(b"0123456789\n" * 1_000_000)
        wait_until(lambda: server.core.registry.live == 0)
    assert server.core.registry.closed == {"write-timeout": 1}


def test_a_reader_that_takes_little_at_a_time_stays(
    serve: Serve, park_after: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``write_timeout`` is for who takes nothing; it is not the time in which much must be taken."""
    server = serve(framing=LINE, park_after=park_after, write_timeout=0.2)
    count = 300_000
    total = reads = looks = read_before = 0
    untaken = server.core.system.untaken

    def look(_: Any, fd: int) -> int:
        """What is left, asked for only when the client has taken something since the last time."""
        nonlocal looks, read_before
        wait_until(lambda: reads >= read_before + 8 or looks == 8)
        looks, read_before = looks + 1, reads
        return int(untaken(fd))

    monkeypatch.setattr("chat_gevent.system.System.untaken", look)
    with Peer(server.address, receive_buffer=4096) as peer:
        sender = gevent.spawn(peer.send, b"0123456789\n" * count)
        while looks < 8:  # two when it begins to wait, and one at the end of each time-out
            total += len(peer.receive(4096))
            reads += 1
            gevent.sleep(0.02)
        assert total < 400_000  # in six time-outs: less than makes the kernel say that there is room
        monkeypatch.undo()
        while total < count * 21:
            total += len(peer.receive(2**20))
        sender.join(30)
    assert "write-timeout" not in server.core.registry.closed


def test_urgent_data_is_no_message_and_hides_none(serve: Serve, park_after: float | None) -> None:
    """An out-of-band byte splits reads of the kernel; the bytes around it are still a message."""
    server = serve(framing=LINE, park_after=park_after)
    with Peer(server.address) as peer:
        peer.ask(b"before")
        for _ in range(3):
            peer.send(b"he")
            peer.socket.send(b"!", std.MSG_OOB)
            peer.send(b"llo\nthere\n")
            peer.expect(b"Received: hello\nReceived: there\n")
            peer.send(b"one\n")
            peer.socket.send(b"!", std.MSG_OOB)
            peer.expect(b"Received: one\n")
            peer.ask(b"two")


def test_a_flood_is_served_a_read_at_a_time(serve: Serve, park_after: float | None, unix: std.socket) -> None:
    """Of input that has piled up, other clients wait for one read at most, not for all of it."""
    order: list[str] = []

    def handler(message: str, client: Any) -> str | None:
        order.append(message)
        return None if message == "flood" else message

    server = serve(handler, listener=unix, framing=LINE, park_after=park_after)
    with Peer(server.address, send_buffer=2**20) as flood, Peer(server.address) as other:
        for each in (flood, other):
            each.send(b"warm\n")
            each.expect(b"warm\n")
        order.clear()
        piled_up = flood.socket.send(b"flood\n" * 50_000)
        assert piled_up > 2 * READ_BYTES
        other.send(b"me\n")
        other.expect(b"me\n")
        assert order.index("me") <= READ_BYTES // len(b"flood\n")


def test_a_crowd_that_floods_makes_nobody_wait(
    serve: Serve, park_after: float | None, unix: std.socket
) -> None:
    """However many clients have input piled up, another waits for a read of a few of them, not of each."""
    order: list[str] = []

    def handler(message: str, client: Any) -> str | None:
        order.append(message)
        return None if message == "flood" else message

    server = serve(handler, listener=unix, framing=LINE, park_after=park_after)
    a_read = READ_BYTES // len(b"flood\n") + 1
    with ExitStack() as stack, Peer(server.address) as other:
        other.send(b"warm\n")
        other.expect(b"warm\n")
        crowd = [stack.enter_context(Peer(server.address, send_buffer=2**20)) for _ in range(40)]
        piled_up = min(each.socket.send(b"flood\n" * 20_000) for each in crowd)
        assert piled_up > 6 * READ_BYTES
        wait_until(lambda: len(order) > len(crowd) * a_read)  # each has had a read
        before = len(order)
        other.send(b"me\n")
        other.expect(b"me\n")
        assert order.index("me") - before <= 2 * QUEUED_AT_ONCE * a_read
        assert len(order) < len(crowd) * piled_up // len(b"flood\n")  # they had more to say, and still have
        wait_until(lambda: len(order) > len(crowd) * 5 * a_read)


def test_waiting_in_line_is_not_idleness(serve: Serve, unix: std.socket) -> None:
    """Clients that have sent messages and wait for their turn are not told that they say nothing."""
    told: list[Any] = []

    def slow(message: str, client: Any) -> str | None:
        end = time.perf_counter() + 0.002
        while time.perf_counter() < end:  # the loop is busy, and comes back for the sweep
            pass
        if message.startswith("last"):  # until now each has had more to say, and has waited twice
            told.append(dict(server.core.registry.errors))
        return None

    server = serve(slow, listener=unix, framing=LINE, idle_timeout=0.2)
    line = b"x" * 1999 + b"\n"
    with ExitStack() as stack:
        for _ in range(40):  # nothing else runs before all have sent what they have to say
            each = stack.enter_context(Peer(server.address, send_buffer=2**20))
            each.send(line * 19 + b"last" + line)
        wait_until(lambda: told, 50)
        assert told[0] == {}


def test_a_passed_descriptor_hides_no_message(
    serve: Serve, park_after: float | None, unix: std.socket
) -> None:
    """A read of a UNIX socket ends at a passed descriptor; what follows it is read all the same."""
    server = serve(listener=unix, framing=LINE, park_after=park_after)
    with Peer(server.address) as peer, open(os.devnull, "rb") as passed:  # noqa: PTH123 - only its number
        peer.ask(b"before")
        rights = std.SOL_SOCKET, std.SCM_RIGHTS, array("i", [passed.fileno()])
        peer.socket.sendmsg([b"one\n"], [rights])
        peer.socket.send(b"two\n")
        peer.expect(b"Received: one\nReceived: two\n")


# -- time ------------------------------------------------------------------------------------------


def test_idle_clients_are_told_and_closed(serve: Serve, park_after: float | None) -> None:
    """After ``idle_timeout`` without a complete message; a byte now and then is no message."""
    server = serve(framing=LINE, park_after=park_after, idle_timeout=0.4)
    with Peer(server.address) as idle, Peer(server.address) as loris, Peer(server.address) as busy:
        idle.ask(b"once")
        busy.ask(b"a")
        loris.send(b"l")
        for _ in range(4):
            gevent.sleep(0.2)
            busy.ask(b"again")
        assert idle.rest().startswith(b"Error: idle-timeout: ")
        assert loris.rest().startswith(b"Error: idle-timeout: ")
        busy.ask(b"still here")
    wait_until(lambda: server.core.registry.live == 0)
    assert server.core.registry.closed == {"idle-timeout": 2, "eof": 1}


def test_a_message_that_waits_to_be_read_is_no_silence(serve: Serve, park_after: float | None) -> None:
    """It came in time where the process stood still, or was busy, until the sweep: its client is answered."""
    server = serve(framing=LINE, park_after=park_after)
    with Peer(server.address) as late, Peer(server.address) as silent:
        late.ask(b"once")
        silent.ask(b"once")
        late.socket.send(b"late\n")  # which lets nothing else run, so that it has not been read
        for each in server.core.engine.all():
            each.overdue(2**40)
        late.expect(b"Received: late\n")
        late.ask(b"again")
        assert silent.rest().startswith(b"Error: idle-timeout: ")


def test_message_rate_delays_and_loses_nothing(serve: Serve, park_after: float | None) -> None:
    """A client above its rate waits; every message of it is confirmed."""
    server = serve(framing=LINE, park_after=park_after, message_rate=50)
    with Peer(server.address) as fast, Peer(server.address) as other:
        start = gevent.get_hub().loop.now()
        gevent.get_hub().loop.update_now()
        fast.send(b"x\n" * 65)
        other.ask(b"not delayed")
        fast.expect(b"Received: x\n" * 65)
        gevent.get_hub().loop.update_now()
        assert gevent.get_hub().loop.now() - start >= 0.2


# -- books -----------------------------------------------------------------------------------------


def test_the_books_balance(serve: Serve, park_after: float | None) -> None:
    """Messages and bytes of clients that are gone are counted exactly, and reasons add up."""
    server = serve(framing=LINE, park_after=park_after)
    sent = received = 0
    for number in range(5):
        with Peer(server.address) as peer:
            peer.send(b"abc\n" * number + b"\xff\n")
            peer.end()
            received += len(peer.rest())
            sent += 4 * number + 2
    wait_until(lambda: server.core.registry.live == 0)
    books = server.core.registry
    assert (books.accepted, books.past_messages) == (5, 10)
    assert (books.past_received, books.past_sent) == (sent, received)
    assert books.closed == {"eof": 5}
    assert books.errors == {"invalid-utf8": 5}
