"""Faults that are made by many clients at once."""

from __future__ import annotations

import contextlib
import ssl
import tempfile
import time
from pathlib import Path

import gevent
from gevent import socket

from benchmarks.experiments.faults import NotHere
from benchmarks.experiments.faults.links import every_opening
from benchmarks.experiments.faults.served import (
    WAIT,
    Served,
    WellBehaved,
    hold,
    reset,
    same_counts,
    settle,
    until,
)
from chat_gevent.files import raise_file_limit

LINE = ("--framing", "line")
PUSH = ("--handler", "benchmarks.measure.servers.push_service:Push")


def come_and_go(scale: float) -> str:
    """Connect and leave, half of them by a reset, as fast as one process can."""
    seconds = max(1.5, 30 * scale)
    import _socket

    with Served(*LINE, "--linger-timeout", "0.5") as server:
        before = server.files()
        load = WellBehaved(server, 10)
        host, port = server.address()
        load.goes_on("before")
        made = 0
        began = time.monotonic()
        memory = [server.uss()]
        while (now := time.monotonic()) < began + seconds:
            for _ in range(50):
                client = _socket.socket()
                client.setblocking(False)
                client.bind((f"127.0.0.{2 + made % 200}", 0))
                with contextlib.suppress(BlockingIOError):
                    client.connect((host, port))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                if made % 2:
                    client.shutdown(socket.SHUT_WR)
                client.close()
                made += 1
            if len(memory) * 0.5 < now - began:
                memory.append(server.uss())
            gevent.sleep(0.0005)
        took = time.monotonic() - began
        load.goes_on("after the coming and going")
        settle(server, 10, before + 12)
        hold(not load.lost, str(load.lost[:1]))
        confirmed = load.end()
        same_counts(server, confirmed)
        accepted = server.metric("chat_gevent_accepted_total")
        grown = (memory[-1] - memory[len(memory) // 2]) / 2**20
        hold(grown < 4, f"memory grew by {grown:.1f} MiB in the second half")
        server.stop()
    return (
        f"{made / took:,.0f} clients a second came and left for {took:.0f} s, {accepted:,.0f} were accepted; "
        f"10 beside were served ({confirmed} confirmations on both sides, the slowest "
        f"{load.slowest * 1000:.0f} ms); "
        f"{grown:+.1f} MiB in the second half"
    )


def silent(scale: float) -> str:
    """Clients that say nothing, or half a line, until the idle time-out."""
    count = max(500, int(10_000 * scale))
    if raise_file_limit() < count + 200:
        raise NotHere(f"{count + 200} open files")
    idle = 5 + count / 1000  # that all of them are in before the first is told takes some time
    with Served(*LINE, "--idle-timeout", f"{idle:.1f}", "--linger-timeout", "0.5") as server:
        before = server.files()
        load = WellBehaved(server, 10)
        load.goes_on("before")
        empty = server.uss()
        crowd = [server.connect() for _ in range(count)]
        until(lambda: server.metric("chat_gevent_connections") == count + 10, "all are in")
        each = (server.uss() - empty) / count
        load.goes_on("beside the silent")
        told = sum(b"Error: idle-timeout" in client.recv(200) for client in crowd)
        for client in crowd:
            client.close()
        hold(told == count, f"{told} of {count} were told of the idle time-out")
        settle(server, 10, before + 12)
        load.goes_on("after the silent")
        load.end()
        hold(each < 1000, f"{each:.0f} bytes a silent client")
        server.stop()
    return f"{count:,} silent clients took {each:.0f} bytes each, all were told; 10 beside were served"


def unauthenticated(scale: float) -> str:
    """What one costs who has shown nothing yet: silent, with half a line, within a handshake or a header."""
    count = max(300, int(3000 * scale))
    if raise_file_limit() < count + 200:
        raise NotHere(f"{count + 200} open files")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = every_opening(folder)
        hello = _client_hello()
        kinds = {
            "silent": (0, b"", 1000),
            "half a line of 100 bytes": (0, b"x" * 100, 1500),
            "half a line of 60,000 bytes": (0, b"x" * 60_000, 2**17),
            "TLS, silent": (1, b"", 16_000),
            "TLS, half a hello": (1, hello[:100], 60_000),
            "TLS, answered": (1, hello, 100_000),
            "PROXY, silent": (2, b"", 16_000),
            "PROXY, half a header": (2, b"PROXY TCP4 192.0", 16_000),
        }
        figures = []
        for kind, (index, said, bound) in kinds.items():
            with Served(*LINE, *options, "--handshake-timeout", "60") as server:
                source = ("127.0.0.2", 0) if index == 2 else None
                with socket.create_connection(server.address(index), WAIT, source_address=source) as first:
                    first.sendall(said)  # what is set up once is not counted
                    until(lambda: server.metric("chat_gevent_connections") == 1, kind)
                empty = server.uss()
                crowd = []
                for _ in range(count):
                    each = socket.create_connection(server.address(index), WAIT, source_address=source)
                    each.sendall(said)
                    crowd.append(each)
                until(lambda: server.metric("chat_gevent_connections") >= count, kind)
                gevent.sleep(0.5)
                size = (server.uss() - empty) / count
                hold(size < bound, f"{kind}: {size:,.0f} bytes a client, {bound:,} are allowed")
                figures.append(f"{kind} {size:,.0f}")
                for each in crowd:
                    reset(each)
                settle(server, 0, server.files())
                server.stop()
    return f"bytes a client, of {count:,} each: {', '.join(figures)}"


def _client_hello() -> bytes:
    """The first message of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def slow_readers(scale: float) -> str:
    """Half of the subscribers read no pushes: they are closed, and the others get every one."""
    each_kind, pushes = max(10, int(100 * scale)), max(1500, int(3000 * scale))
    limits = ("--outbox-bytes", "64KiB", "--write-timeout", "4")
    with Served(*LINE, *PUSH, *limits) as server:
        before = server.files()
        stuck = []
        for _ in range(each_kind):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(server.address())
            stuck.append(client)
        readers = [server.connect() for _ in range(each_kind)]
        got = [0] * each_kind
        empty = server.uss()

        def read(number: int) -> None:
            while data := readers[number].recv(65536):
                got[number] += data.count(b"\n")

        reading = [gevent.spawn(read, number) for number in range(each_kind)]
        with server.connect() as speaker:
            most = 0
            text = b"!" + b"news" * 1000 + b"\n"
            for number in range(pushes):
                speaker.sendall(text)
                heard = 0  # it hears itself, so that it is not faster than the pushes
                while heard < len(text) - 1:
                    heard += len(speaker.recv(65536))
                if number % 50 == 0:
                    most = max(most, server.uss())
            until(lambda: min(got) == pushes, "all readers have all pushes", 60)
            until(
                lambda: server.metric("chat_gevent_connections") == each_kind + 1, "the stuck are closed", 60
            )
        dropped = server.metric("chat_gevent_pushes_dropped_total")
        grown = most - empty
        hold(grown < each_kind * 2 * 65_536 + 2**22, f"memory grew by {grown / 2**20:.1f} MiB")
        for client in readers:
            client.shutdown(socket.SHUT_WR)
        gevent.joinall(reading, timeout=WAIT)
        for client in (*readers, *stuck):
            reset(client)
        settle(server, 0, before + 2)
        server.stop()
    return (
        f"{each_kind} readers got all {pushes} pushes each; {each_kind} that read none were closed, "
        f"{dropped:.0f} pushes to them dropped; at most {grown / 1024:.0f} KiB more memory"
    )
