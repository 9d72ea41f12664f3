"""Faults of the way between client and server: resets, silence, a bad network, certificates."""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import signal
import ssl
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import gevent
from gevent import socket
from gevent import ssl as gevent_ssl

from benchmarks.experiments import ExperimentFailed
from benchmarks.experiments.faults import NotHere
from benchmarks.experiments.faults.relay import Relay, replies_to
from benchmarks.experiments.faults.served import (
    Served,
    WellBehaved,
    hold,
    own_handler,
    reset,
    rest,
    settle,
    until,
)

LINE = ("--framing", "line")
SLOW = """
import gevent
def handle(message, client):
    if message == "slow":
        gevent.sleep(0.3)
    return "Received: " + message
"""
STATES = ("connected", "parked", "half a line", "in its handler", "queued", "takes no replies", "leaving")
"""What a client is doing when it is reset, in the order of the states of a connection."""


def _bring_to(state: str, client: socket.socket) -> None:
    """Have a client be in a state."""
    if state == "connected":
        return
    client.sendall(b"hello\n")
    client.recv(100)
    if state == "half a line":
        client.sendall(b"half")
    elif state == "in its handler":
        client.sendall(b"slow\n")
    elif state == "queued":
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                client.send(b"x\n" * 20_000)
    elif state == "takes no replies":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                client.send(b"y" * 1000 + b"\n")
    elif state == "leaving":
        client.sendall(b"/exit\nmore")


def resets(scale: float) -> str:
    """Resets in every state, with an own handler and with the confirmation, over TCP and within openings."""
    each_state = max(5, int(100 * scale))
    total = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = every_opening(folder)
        for handler in ((), ("--handler", own_handler(folder, SLOW))):
            with Served(*LINE, *options, *handler, folder=folder) as server:
                before = server.files()
                load = WellBehaved(server, 10)
                for _ in range(each_state):
                    clients = []
                    for state in STATES:
                        client = server.connect()
                        _bring_to(state, client)
                        clients.append(client)
                    for opening in (
                        b"",
                        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                    ):  # of a TLS handshake
                        clients.append(server.connect(1))
                        clients[-1].sendall(opening)
                    for header in (b"", b"PROXY TCP4 192.0."):
                        clients.append(
                            socket.create_connection(server.address(2), 10, source_address=("127.0.0.2", 0))
                        )
                        clients[-1].sendall(header)
                    gevent.sleep(0.005)
                    for client in clients:
                        reset(client)
                    total += len(clients)
                load.goes_on("after the resets")
                settle(server, 10, before + 12)
                load.end()
                settle(server, 0, before + 2)
                server.stop()
    return f"{total} resets in {len(STATES) + 4} states, with and without a handler: nothing is left of them"


def half_open(scale: float) -> str:
    """Peers whose kernel answers nothing any more, as behind a cut cable."""
    count = max(20, int(500 * scale))
    nothing = ctypes.create_string_buffer(
        struct.pack("HBBI", 0x06, 0, 0, 0)
    )  # a filter that drops each packet
    program = struct.pack("HP", 1, ctypes.addressof(nothing))
    probes = (
        "--keepalive-idle",
        "1",
        "--keepalive-interval",
        "1",
        "--keepalive-probes",
        "2",
        "--write-timeout",
        "2",
    )
    with Served(*LINE, *probes) as server:
        load = WellBehaved(server, 10)
        gone = []
        for number in range(count):
            each = server.connect()
            each.sendall(b"hello\n")
            hold(each.recv(100) == b"Received: hello\n", "the first reply")
            if number % 3 == 1:
                each.sendall(b"half")
            gone.append(each)
        gevent.sleep(0.1)  # until all that was sent is acknowledged, on both sides
        for each in gone:
            each.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER
        began = time.monotonic()
        until(lambda: server.metric("chat_gevent_connections") == 10, "the vanished are found", 30)
        took = time.monotonic() - began
        lost = server.metric('chat_gevent_closed_total{reason="lost"}')
        hold(lost == count, f"{lost:.0f} of {count} are counted as lost")
        load.goes_on("after the vanished")
        load.end()
        for each in gone:
            reset(each)
        server.stop()
    return f"{count} peers vanished, and were found within {took:.1f} s (probes after 1, 2 and 3 s)"


def link(scale: float) -> str:
    """A relay that does all that a network does, with the replies held against what it handed over."""
    clients, lines = max(40, int(400 * scale)), 30
    with Served(*LINE, "--idle-timeout", "30") as server:
        relay = Relay(server.address(), seed=1)
        load = WellBehaved(server, 5)

        def talk(number: int) -> None:
            with contextlib.suppress(OSError), socket.create_connection(relay.address, 10) as client:
                client.settimeout(20)
                for turn in range(lines):
                    client.sendall(f"client {number} says {turn}\r\n".encode() * (1 + turn % 5))
                    gevent.sleep(0.001 * (number % 7))
                client.shutdown(socket.SHUT_WR)
                rest(client)

        talking = [gevent.spawn(talk, number) for number in range(clients)]
        for _ in range(3):  # the link goes down, and up again
            gevent.sleep(0.2)
            relay.up.clear()
            gevent.sleep(0.4)
            relay.up.set()
        gevent.joinall(talking, timeout=60)
        until(lambda: all(each.ended or each.broken for each in relay.passages), "all passages end")
        whole = broken = messages = 0
        for each in relay.passages:
            due, said = replies_to(bytes(each.asked)), bytes(each.said)
            hold(
                due.startswith(said) if each.broken else due == said,
                f"what ends with {bytes(each.asked[-200:])!r} was answered {said[-200:]!r}",
            )
            whole, broken = whole + (not each.broken), broken + each.broken
            messages += said.count(b"\n")
        relay.stop()
        hold(whole > clients / 2, f"only {whole} passages were whole")
        load.goes_on("after the relay")
        load.end()
        settle(server, 0, server.files())
        server.stop()
    return f"{whole} connections whole and {broken} broken: {messages} replies, those to what was handed over"


def every_opening(folder: Path) -> tuple[str, ...]:
    """Options of a server with a plain listener, one with TLS, one behind a proxy; raises NotHere."""
    certificate(folder, "server")
    return (
        *("--tls-certificate", f"{folder}/server.pem", "--tls-key", f"{folder}/server.key"),
        *("--listen", "tcp://127.0.0.1:0,tls://127.0.0.1:0,tcp://127.0.0.2:0", "--proxy-from", "127.0.0.2"),
    )


def certificate(folder: Path, name: str, *, seconds: int = 86_400, client: bool = False) -> None:
    """Make ``name.pem`` and ``name.key``, valid for so many seconds; raises NotHere."""
    if not shutil.which("openssl") or (seconds < 86_400 and not shutil.which("faketime")):
        raise NotHere("openssl and faketime")
    words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "1",
    ]
    words += ["-subj", f"/CN={name}", "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem"]
    words += [
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-addext",
        "keyUsage=digitalSignature,keyCertSign",
    ]
    if seconds < 86_400:
        words = ["faketime", "-f", f"-{86_400 - seconds}s", *words]
    subprocess.run(words, check=True, capture_output=True, timeout=30)


def certificates(scale: float) -> str:
    """The server's certificate and a client's expire while they are in use, and are renewed."""
    # The first connection must be made within that time, which takes a while on a busy machine.
    for lasts in (3, 12, 48):
        if found := _expiring(lasts, max(1, int(5 * scale))):
            return found
    raise ExperimentFailed(f"no connection within the {lasts} s that a certificate lasts")


def _expiring(lasts: int, turns: int) -> str:
    """What was seen of certificates that last so many seconds; nothing where they expired too early."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificate(folder, "client", seconds=lasts + 1)
        certificate(folder, "server", seconds=lasts)
        made = time.monotonic()
        options = ("--tls-certificate", f"{folder}/server.pem", "--tls-key", f"{folder}/server.key")
        ca = ("--tls-client-ca", f"{folder}/client.pem")
        with Served(*LINE, "--listen", "tls://127.0.0.1:0", *options, *ca) as server:

            def tls() -> Any:
                context = gevent_ssl.create_default_context(cafile=f"{folder}/server.pem")
                context.load_cert_chain(f"{folder}/client.pem", f"{folder}/client.key")
                return context.wrap_socket(server.connect(), server_hostname="localhost")

            def works(client: Any) -> bool:
                client.sendall(b"hello\n")
                return bool(client.recv(100) == b"Received: hello\n")

            try:
                old = tls()
                hold(works(old), "with fresh certificates")
            except OSError:
                hold(time.monotonic() - made > lasts - 1, "no connection with fresh certificates")
                return ""
            gevent.sleep(max(0.0, lasts + 1.7 - (time.monotonic() - made)))
            hold(works(old), "a connection from before goes on")
            refused = 0
            for _ in range(turns * 5):
                try:
                    tls()
                except ssl.SSLCertVerificationError as error:
                    refused += "expired" in str(error)
            hold(refused == turns * 5, f"{refused} new clients saw that the server's certificate has expired")
            certificate(folder, "server")
            server.process.send_signal(signal.SIGHUP)
            until(lambda: "certificate" in server.log, "the new certificate is read")
            rejected = 0
            for _ in range(turns * 5):  # the client's own has expired too: the server refuses it
                try:
                    rejected += not works(tls())
                except OSError:
                    rejected += 1
            hold(rejected == turns * 5, f"{rejected} clients with an expired certificate were refused")
            hold(works(old), "the connection from before still goes on")
            old.close()
            until(lambda: server.metric("chat_gevent_connections") == 0, "nobody is left")
            handshakes = server.metric('chat_gevent_closed_total{reason="tls-handshake"}')
            hold(handshakes >= refused, f"{handshakes:.0f} handshakes are counted as failed")
            server.stop()
    return (
        f"{refused} refused by clients, {rejected} by the server; a connection from before went on throughout"
    )
