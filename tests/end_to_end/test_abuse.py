"""Clients that misbehave, against the real command: right replies, a clean log, and nobody else notices."""

from __future__ import annotations

import os
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.operate import ServerProcess, until


@pytest.fixture(scope="module", params=["0", "never"], ids="park-after-{}".format)
def park(request: pytest.FixtureRequest) -> str:
    """Each kind of parking."""
    return str(request.param)


@pytest.fixture(scope="module", params=["line", "auto"])
def server(request: pytest.FixtureRequest, park: str) -> Iterator[ServerProcess]:
    """A server; the whole time an innocent client talks to it and must notice nothing."""
    process = ServerProcess("--port", "0", "--park-after", park, "--framing", request.param, "--access-log")
    stop = threading.Event()
    talked = 0

    def innocent() -> int:
        nonlocal talked
        with socket.create_connection(process.address(), 30) as client, client.makefile("rb") as replies:
            while not stop.is_set():
                client.sendall(b"still there? %d\n" % talked)
                assert replies.readline() == b"Received: still there? %d\n" % talked
                talked += 1
                stop.wait(0.01)
        return talked

    with ThreadPoolExecutor(1) as pool:
        try:
            watch = pool.submit(innocent)
            yield process
            stop.set()
            assert watch.result(30) > 1
            assert process.stop() == 0, process.log
            assert "Traceback" not in process.log
            assert "ERROR" not in process.log
        finally:
            stop.set()
            process.close()


def connect(server: ServerProcess) -> socket.socket:
    """A client that fails after 20 seconds without an answer."""
    client = socket.create_connection(server.address(), 30)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def rest(client: socket.socket) -> bytes:
    """Read to the end of the stream."""
    data = b""
    while more := client.recv(2**20):
        data += more
    return data


def test_a_mebibyte_without_lf(server: ServerProcess) -> None:
    """It is refused once the bound is passed; the client reads why, though it is still sending."""
    with connect(server) as client:
        client.sendall(b"due\n")
        client.sendall(b"x" * 2**20)
        assert rest(client) == (
            b"Received: due\nError: message-too-long: a message is limited to 65536 bytes\n"
        )


def test_invalid_utf8(server: ServerProcess) -> None:
    """Refused by itself; the messages around it are confirmed."""
    with connect(server) as client:
        client.sendall(b"a\n\xff\xfe\nb\n")
        client.shutdown(socket.SHUT_WR)
        first, error, last = rest(client).splitlines()
        assert (first, last) == (b"Received: a", b"Received: b")
        assert error.startswith(b"Error: invalid-utf8: ")


def test_resets_at_any_moment(server: ServerProcess) -> None:
    """Before, in the middle of and behind messages, with replies unread: RST is no error."""
    chance = random.Random(1)
    for data in [b"", b"mid", b"whole\n", b"a\nmid", b"x\n" * 20_000] * 10:
        client = connect(server)
        client.settimeout(0.05)
        try:
            client.sendall(data)
        except TimeoutError:
            pass
        time.sleep(chance.choice([0, 0, 0.001]))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()


@pytest.mark.parametrize("word", [b"/exit", b"/EXIT", b"/eXiT", b"  /Exit\t"])
def test_exit_in_odd_case(server: ServerProcess, word: bytes) -> None:
    """It ends the connection after the replies that are due."""
    with connect(server) as client:
        client.sendall(b"a\n" + word + b"\nb\n")
        assert rest(client) == b"Received: a\n"


def test_ten_thousand_pipelined_lines_in_one_write(server: ServerProcess) -> None:
    """Each is confirmed, in order."""
    lines = [b"line %d" % number for number in range(10_000)]
    with connect(server) as client, client.makefile("rb") as replies:
        client.sendall(b"".join(line + b"\n" for line in lines))
        for line in lines:
            assert replies.readline() == b"Received: " + line + b"\n"


def test_one_byte_at_a_time(server: ServerProcess) -> None:
    """Segments of one byte make the same messages."""
    with connect(server) as client:
        client.sendall(b"a\n")
        for byte in "wörd 🐍\r\nend".encode():
            client.sendall(bytes([byte]))
            time.sleep(0.0005)
        client.shutdown(socket.SHUT_WR)
        assert rest(client) == "Received: a\nReceived: wörd 🐍\nReceived: end\n".encode()


def test_urgent_data(server: ServerProcess) -> None:
    """Out-of-band bytes are no part of a message, and no event is lost over them."""
    with connect(server) as client, client.makefile("rb") as replies:
        for number in range(200):
            client.send(b"he")
            client.send(b"!", socket.MSG_OOB)
            client.send(b"llo %d\n" % number)
            assert replies.readline() == b"Received: hello %d\n" % number


@pytest.mark.parametrize("served_before", [False, True])
def test_the_end_right_behind_the_last_data(server: ServerProcess, served_before: bool) -> None:
    """Data and end of stream in one segment or close after each other: a lost event would hang the client."""
    chance = random.Random(2)

    def one(number: int) -> None:
        with connect(server) as client:
            if served_before:
                client.sendall(b"before\n")
                assert client.recv(100) == b"Received: before\n"
            client.send(b"last %d\n" % number, socket.MSG_MORE if number % 2 else 0)
            if number % 3 == 0:
                os.sched_yield()
            elif number % 3 == 1:
                end = time.perf_counter() + chance.random() * 0.0002
                while time.perf_counter() < end:
                    pass
            client.shutdown(socket.SHUT_WR)
            assert rest(client) == b"Received: last %d\n" % number

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(600)))


def test_every_message_counts_though_its_client_is_gone(server: ServerProcess) -> None:
    """Many clients that send, end their stream and never read: each message of theirs is counted."""
    clients = [connect(server) for _ in range(100)]
    for each in clients:
        each.sendall(b"a\nb\nc\n")
        each.shutdown(socket.SHUT_WR)
    names = {"{}:{}".format(*each.getsockname()) for each in clients}
    for each in clients:
        each.close()  # what was confirmed is unread, or on its way

    def counted() -> list[int]:
        found = re.findall(r"closed client=(\S+) .*messages=(\d+)", server.log)
        return [int(messages) for name, messages in found if name in names]

    until(lambda: len(counted()) == 100, what="all of them in the log")
    assert counted() == [3] * 100
    with connect(server) as client:
        client.sendall(b"and now?\n")
        assert client.recv(100) == b"Received: and now?\n"


def test_slow_readers(server: ServerProcess) -> None:
    """Five clients that send a lot and read late get all of it."""
    data, replies = b"0123456789\n" * 100_000, b"Received: 0123456789\n" * 100_000

    def one(_: int) -> None:
        with connect(server) as client:
            sender = threading.Thread(target=client.sendall, args=(data,))
            sender.start()
            time.sleep(0.3)
            received = bytearray()
            while len(received) < len(replies):
                received += client.recv(2**20)
            sender.join(30)
            assert bytes(received) == replies

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(one, range(5)))
