"""ChatServer keeps StreamServer's calling convention: start, stop, context manager, spawn, ssl arguments."""

from __future__ import annotations

import gc
import socket as std
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.pool import Pool
from gevent.server import StreamServer

from chat_gevent.core import Core
from chat_gevent.files import open_files
from chat_gevent.framing import CHUNK, LINE
from chat_gevent.server import ChatServer
from chat_gevent.service import Client
from chat_gevent.settings import Settings
from chat_gevent.state import State
from tests.conftest import require_tool, wait_until
from tests.peers import Peer, TlsPeer
from tests.protocol import without_hint

Serve = Callable[..., Any]


# -- start and stop --------------------------------------------------------------------------------


def test_as_a_context_manager() -> None:
    """As StreamServer's: the end of ``with`` stops it, the port is free and the clients are told."""
    with ChatServer(("127.0.0.1", 0), settings=Settings(framing=LINE)) as server:
        server.start()
        assert isinstance(server, StreamServer)
        assert server.started
        assert server.server_port == server.address[1] != 0
        peer = Peer(server.address)
        peer.ask(b"hello")
        reader = gevent.spawn(peer.rest)
    assert server.closed
    assert without_hint(reader.get(timeout=30)) == b"Error: shutting-down: the server is going away\n"
    peer.close()
    with pytest.raises(ConnectionRefusedError):
        Peer(server.address)


def test_serve_forever_until_stopped() -> None:
    """It starts by itself and returns once stopped."""
    server = ChatServer(("127.0.0.1", 0))
    serving = gevent.spawn(server.serve_forever)
    wait_until(lambda: server.started)
    with Peer(server.address) as peer:
        peer.ask(b"hello")
    server.stop()
    serving.get(timeout=30)


def test_on_a_socket_that_listens_already(serve: Serve) -> None:
    """A listening socket may be handed over, of gevent's kind or the standard library's."""
    for kind in (socket, std):
        with kind.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            server = serve(listener=listener)
            with Peer(listener.getsockname()) as peer:
                peer.ask(b"hello")
            server.stop()


def test_stop_answers_what_was_sent_and_says_so(serve: Serve, park_after: float | None) -> None:
    """What a client had sent is answered, then it is told, then the end; nobody is cut off."""
    server = serve(framing=LINE, linger_timeout=0.1, park_after=park_after)
    with Peer(server.address) as idle, Peer(server.address) as busy, Peer(server.address) as new:
        for peer in (idle, busy):
            peer.ask(b"hello")
        busy.send(b"a\nb\nunfinished")
        readers = [gevent.spawn(peer.rest) for peer in (idle, busy, new)]
        assert server.stop(30) == 0
        told = b"Error: shutting-down: the server is going away\n"
        assert [without_hint(reader.get(timeout=30)) for reader in readers] == [
            told,
            b"Received: a\nReceived: b\n" + told,
            told,
        ]
    assert server.stop(30) == 0  # a second time does nothing


def test_stop_waits_for_handlers_that_are_at_work(serve: Serve, park_after: float | None) -> None:
    """Their reply is sent before the client is told; messages behind it that were read are answered too."""

    begun: list[str] = []

    def handler(message: str, client: Client[Any]) -> str:
        begun.append(message)
        gevent.sleep(0.1)
        return message

    server = serve(handler, framing=LINE, linger_timeout=0.1, park_after=park_after)
    with Peer(server.address) as peer:
        peer.send(b"a\nb\n")
        wait_until(lambda: begun == ["a"])
        reader = gevent.spawn(peer.rest)
        assert server.stop(30) == 0
        told = b"Error: shutting-down: the server is going away\n"
        assert without_hint(reader.get(timeout=30)) == b"a\nb\n" + told


def test_stop_cuts_off_who_takes_too_long(serve: Serve, park_after: float | None) -> None:
    """After the time that stop was given, the rest is closed; it says how many had replies due."""
    begun: list[str] = []
    ended: list[str] = []

    def handler(message: str, client: Client[Any]) -> str:
        begun.append(message)
        try:
            gevent.sleep(60)
        finally:
            ended.append(message)
        return message

    server = serve(handler, framing=LINE, linger_timeout=0.1, park_after=park_after)
    with Peer(server.address) as peer, Peer(server.address) as idle:
        peer.send(b"a\n")
        wait_until(lambda: begun == ["a"])
        reader = gevent.spawn(idle.rest)
        assert server.stop(1) == 1
        assert peer.rest() == b""
        assert reader.get(timeout=30).startswith(b"Error: shutting-down")
    wait_until(lambda: ended == ["a"])
    assert server.core.registry.live == 0


def test_a_stop_that_was_hurried_does_not_wait_for_who_came_since(serve: Serve) -> None:
    """A second signal may come while the server still accepts: the drain after that ends at once."""
    at_work: list[str] = []

    def handler(message: str, client: Client[Any]) -> str:
        at_work.append(message)
        gevent.sleep(600)
        return message

    server = serve(handler, framing=LINE)
    server.core.hurry()
    with Peer(server.address) as peer:
        peer.send(b"a\n")
        wait_until(lambda: at_work)
        assert gevent.spawn(server.stop, 600).get(timeout=30) == 1
        assert peer.rest() == b""


def test_stop_takes_no_time_for_clients_that_have_left(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand that closed a moment ago are not told one after the other, which would take for ever."""
    monkeypatch.setattr("chat_gevent.core.DRAIN_PACE", 0.5)
    server = serve(framing=LINE, drain_timeout=3000.0, linger_timeout=0.1)
    peers = [Peer(server.address) for _ in range(1001)]
    for peer in peers:
        peer.ask(b"a")
    stays, *leave = peers
    for peer in leave:  # the server's loop does not run meanwhile
        peer.close()
    assert server.core.registry.live == 1001
    reader = gevent.spawn(stays.rest)
    assert server.stop() == 0
    assert without_hint(reader.get(timeout=30)) == b"Error: shutting-down: the server is going away\n"
    stays.close()


def test_stop_serves_those_who_wait_to_be_accepted(serve: Serve) -> None:
    """Clients in the backlog are accepted and answered: closing the listener would reset them."""
    server = serve(framing=LINE, linger_timeout=0.1)
    peers = []
    for _ in range(20):  # connected by the kernel; the server's loop has not run since
        peer = std.create_connection(server.address, 30)
        peer.sendall(b"hello\n")
        peers.append(peer)
    assert server.stop(30) == 0
    for peer in peers:
        data = b""
        while more := peer.recv(4096):
            data += more
        assert without_hint(data) == b"Received: hello\nError: shutting-down: the server is going away\n"
        peer.close()


def test_two_listeners_share_a_core() -> None:
    """Settings, handler and books are the core's; stopping one listener leaves the other's clients alone."""
    core = Core(Settings(framing=LINE, linger_timeout=0.1))
    first, second = (ChatServer(("127.0.0.1", 0), core=core) for _ in range(2))
    first.start()
    second.start()
    with Peer(first.address) as one, Peer(second.address) as two:
        one.ask(b"a")
        two.ask(b"b")
        first.stop()
        one.ask(b"a")
        two.ask(b"b")
        second.stop()
        readers = [gevent.spawn(peer.rest) for peer in (one, two)]
        assert core.drain(30) == 0
        assert all(reader.get(timeout=30).startswith(b"Error: shutting-down") for reader in readers)
    books = core.registry
    assert (books.accepted, books.live, books.past_messages) == (2, 0, 4)
    core.close()


def test_stop_after_somebody_has_shut_the_listener_down(serve: Serve) -> None:
    """Another process that holds the listener can do that: clients leave in good order all the same."""
    server = serve(framing=LINE, linger_timeout=0.1)
    with Peer(server.address) as peer:
        peer.ask(b"hello")
        server.socket.shutdown(std.SHUT_RDWR)
        reader = gevent.spawn(peer.rest)
        assert server.stop(30) == 0
        assert without_hint(reader.get(timeout=30)) == b"Error: shutting-down: the server is going away\n"


def test_wrong_arguments_are_told() -> None:
    """``spawn=None`` would serve in the hub; settings beside a shared core would be ignored."""
    with pytest.raises(TypeError, match="spawn must not be None"):
        ChatServer(("127.0.0.1", 0), spawn=None)
    core = Core()
    with pytest.raises(TypeError, match="are the core's"):
        ChatServer(("127.0.0.1", 0), core=core, settings=Settings())
    core.close()


# gevent's own listener leaves the socket that it could not bind to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_address_in_use_is_an_oserror(serve: Serve) -> None:
    """start() raises what the kernel said."""
    taken = serve()
    server = ChatServer(taken.address)
    with pytest.raises(OSError, match="in use"):
        server.start()
    server.stop()
    gc.collect()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # gevent's, of the socket it could not bind
def test_servers_that_could_not_start_leave_nothing_open(serve: Serve) -> None:
    """Who tries again and again, with a new server each time, does not run out of files."""
    taken = serve()
    gc.collect()
    before = open_files()
    for _ in range(20):
        with pytest.raises(OSError, match="in use"):
            ChatServer(taken.address).start()
    gc.collect()
    assert open_files() == before


def test_stop_after_close_dismisses_the_clients(park_after: float | None) -> None:
    """close() ends the listening only; stop() is still due then, and does the rest."""
    server = ChatServer(("127.0.0.1", 0), settings=Settings(framing=LINE, park_after=park_after))
    server.start()
    with Peer(server.address) as peer:
        peer.ask(b"hello")
        server.close()
        peer.ask(b"still here")
        reader = gevent.spawn(peer.rest)
        assert server.stop(30) == 0
        assert without_hint(reader.get(timeout=30)) == b"Error: shutting-down: the server is going away\n"
    assert server.stop() == 0  # and once is enough


def test_being_asked_to_leave_and_input_at_the_same_time(serve: Serve) -> None:
    """A client is asked to leave in the loop in which its first bytes come: it is answered and told, and no
    greenlet is leased to two clients afterwards."""

    def handler(message: str, client: Client[Any]) -> str:
        if message == "slow":
            gevent.sleep(0.1)
        return message

    server = serve(handler)
    with Peer(server.address) as peer:
        wait_until(lambda: server.core.registry.live == 1)
        [connection] = server.core.engine.all()
        timer = gevent.get_hub().loop.timer(0.02)
        timer.start(connection.ask_to_leave, "shutting-down")
        peer.send(b"x\n")
        time.sleep(0.04)  # both the timer and the input are due when the loop comes back
        assert without_hint(peer.rest()) == b"x\nError: shutting-down: the server is going away\n"
        timer.close()
    others = [Peer(server.address) for _ in range(3)]
    for other in others:
        other.send(b"quick\n")
        other.expect(b"quick\n")
    for other in others:
        other.send(b"slow\n")
    for other in others:
        other.expect(b"slow\n")
        other.close()


@pytest.mark.parametrize("spawn", [10, gevent.spawn], ids=["pool", "spawn"])
@pytest.mark.parametrize("others", [0, 1])
def test_stop_serves_those_whose_greenlet_has_not_run(serve: Serve, spawn: Any, others: int) -> None:
    """A client that stop() accepts itself is answered and told, as with parked clients."""
    server = serve(framing=LINE, spawn=spawn, linger_timeout=0.1)
    peers = [Peer(server.address) for _ in range(others)]
    for peer in peers:
        peer.ask(b"hello")
    with std.create_connection(server.address, 30) as late:  # it blocks the loop: nobody accepts it
        late.sendall(b"hello\n")
        assert server.stop(30) == 0
        late.setblocking(False)
        told = b"Error: shutting-down: the server is going away\n"
        assert without_hint(late.recv(1024)) == b"Received: hello\n" + told
    for peer in peers:
        assert without_hint(peer.rest()) == told
        peer.close()


# -- the door --------------------------------------------------------------------------------------


@pytest.mark.parametrize("spawn", ["default", "spawn"])
def test_beyond_its_limit_clients_are_told(serve: Serve, park_after: float | None, spawn: str) -> None:
    """Those beyond ``max_connections`` are refused with a reason; a place that gets free is given."""
    options = {} if spawn == "default" else {"spawn": gevent.spawn}
    server = serve(framing=LINE, park_after=park_after, max_connections=3, **options)
    peers = [Peer(server.address) for _ in range(6)]
    for peer in peers[:3]:
        peer.ask(b"in")
    told = b"Error: server-full: no more clients are admitted now, try again later\n"
    for peer in peers[3:]:
        assert without_hint(peer.rest()) == told
    peers[0].close()
    wait_until(lambda: server.core.registry.live - server.core.registry.refusals < 3)
    with Peer(server.address) as late:
        late.ask(b"in")
    for peer in peers[1:]:
        peer.close()


def test_what_a_refused_client_says_is_dropped(serve: Serve, park_after: float | None) -> None:
    """Its first line may be there before the refusal is: it is neither answered nor counted."""
    said: list[str] = []

    def handler(message: str, client: Client[Any]) -> str:
        said.append(message)
        return message

    server = serve(handler, park_after=park_after, max_connections=1)
    with Peer(server.address) as inside:
        inside.send(b"in\n")
        inside.expect(b"in\n")
        for _ in range(3):
            with std.create_connection(server.address, 30) as refused:  # it blocks the loop
                refused.sendall(b"hello\n")
                wait_until(lambda: server.core.registry.refusals == 1)
                wait_until(lambda: all(each.state is not State.BUSY for each in server.core.engine.all()))
                assert refused.recv(1024).startswith(b"Error: server-full: ")
            wait_until(lambda: server.core.registry.live == 1)
    assert said == ["in"]


def test_a_full_pool_leaves_clients_in_the_backlog(serve: Serve) -> None:
    """As with any StreamServer they wait, and are served when the pool has room."""
    server = serve(framing=LINE, spawn=Pool(2))
    peers = [Peer(server.address) for _ in range(4)]
    for peer in peers:
        peer.send(b"a\n")
    for peer in peers[:2]:
        peer.expect(b"Received: a\n")
    assert peers[2].silent()
    assert peers[3].silent()
    peers[0].close()
    peers[1].close()
    for peer in peers[2:]:
        peer.expect(b"Received: a\n")
        peer.close()


def test_stop_does_not_wait_for_room_in_a_full_pool(serve: Serve) -> None:
    """Clients that the pool had no room for don't keep a server from stopping in time."""
    server = serve(framing=LINE, spawn=Pool(2))
    peers = [Peer(server.address) for _ in range(4)]
    for peer in peers[:2]:
        peer.ask(b"a")
    readers = [gevent.spawn(peer.rest) for peer in peers[:2]]
    with gevent.Timeout(30):
        server.stop(1)
    for reader in readers:
        assert reader.get(timeout=30).startswith(b"Error: shutting-down")
    for peer in peers:
        peer.close()


# -- TLS -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate for localhost and its key, made by openssl."""
    folder = tmp_path_factory.mktemp("certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [require_tool("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    return str(cert), str(key)


@pytest.mark.parametrize("spawn", ["default", "spawn"])
@pytest.mark.parametrize("form", ["context", "files"])
def test_tls_by_streamservers_arguments(
    serve: Serve, park_after: float | None, certificate: tuple[str, str], form: str, spawn: str
) -> None:
    """``ssl_context`` or ``certfile`` and ``keyfile``; the protocol above is the same."""
    options: dict[str, Any] = {} if spawn == "default" else {"spawn": gevent.spawn}
    if form == "context":
        options["ssl_context"] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        options["ssl_context"].load_cert_chain(*certificate)
    else:
        options |= {"certfile": certificate[0], "keyfile": certificate[1]}
    server = serve(park_after=park_after, **options)
    with TlsPeer(server.address, certificate[0]) as peer:
        for _ in range(3):
            peer.ask(b"hello")
            gevent.sleep(0.01)
        peer.send(b"x\n" * 20_000)
        peer.expect(b"Received: x\n" * 20_000)
        peer.send(b"a\n/EXIT\n")
        assert peer.rest() == b"Received: a\n"
    wait_until(lambda: server.core.registry.live == 0)
    assert server.core.registry.closed == {"exit": 1}


def test_tls_input_that_is_decrypted_already_is_read(
    serve: Serve, park_after: float | None, certificate: tuple[str, str]
) -> None:
    """What is left of a record after the last read of a turn is known to the decrypter, not to epoll."""
    server = serve(framing=CHUNK, park_after=park_after, certfile=certificate[0], keyfile=certificate[1])
    with TlsPeer(server.address, certificate[0]) as peer:
        peer.send(b"a")
        peer.expect(b"Received: a")
        messages = [b"x" * 500, *[b"y" * 1024] * 16]  # a record of 500 bytes, and one of 16 KiB
        peer.send(messages[0])
        peer.send(b"".join(messages[1:]))
        peer.expect(b"".join(b"Received: " + message for message in messages))


def test_a_client_that_does_not_speak_tls_harms_nobody(
    serve: Serve, park_after: float | None, certificate: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Plain text, silence and a reset in the handshake: they are closed, and others are served."""
    server = serve(
        framing=LINE, park_after=park_after, handshake_timeout=0.3,
        certfile=certificate[0], keyfile=certificate[1],
    )  # fmt: skip
    with Peer(server.address) as silent, Peer(server.address) as plain, Peer(server.address) as gone:
        plain.send(b"hello\nthere\n")
        gone.send(b"\x16\x03\x01")
        gevent.sleep(0.01)
        gone.reset()
        plain.rest()
        plain.close()
        with TlsPeer(server.address, certificate[0]) as peer:
            peer.ask(b"hello")
            assert silent.rest() == b""
            peer.ask(b"still here")
    wait_until(lambda: server.core.registry.live == 0)
    assert not [record for record in caplog.records if record.exc_info]


# -- in a process whose standard library is patched ------------------------------------------------

PATCHED = """
from gevent import monkey; monkey.patch_all()
import socket, ssl, sys, threading
from chat_gevent.server import ChatServer
from chat_gevent.settings import Settings
local = threading.local()

def handler(message, client):
    import time; time.sleep(0.01)
    seen, local.owner = getattr(local, "owner", "nobody"), message
    return seen

for park_after in (0.0, None):
    options = dict(zip(("certfile", "keyfile"), sys.argv[1:]))
    with ChatServer(("127.0.0.1", 0), handler, settings=Settings(park_after=park_after), **options) as server:
        server.start()
        for name in ("first", "second"):
            with socket.create_connection(server.address, 30) as client:
                if options:
                    context = ssl.create_default_context(cafile=sys.argv[1])
                    client = context.wrap_socket(client, server_hostname="127.0.0.1")
                client.sendall(name.encode() + b"\\n")
                print(client.recv(100).decode().strip())
                client.close()
"""


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_in_a_monkey_patched_process(certificate: tuple[str, str], tls: bool) -> None:
    """It works after ``monkey.patch_all()``, which makes threading.local greenlet-local: it must not leak."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PATCHED, *(certificate if tls else ())],
        capture_output=True, text=True, timeout=30, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert (done.stdout.split(), done.stderr) == (["nobody"] * 4, "")
    assert done.returncode == 0


def test_the_limit_of_open_files_is_raised() -> None:
    """A server in a process whose soft limit is 1,024 takes as many clients as the hard limit carries."""
    program = (
        "import resource; hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))\n"
        "from chat_gevent import ChatServer\n"
        "print(hard, ChatServer(('127.0.0.1', 0)).max_connections)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    hard, most = map(int, done.stdout.split())
    assert hard > 2000, "this test needs a hard limit above the usual soft one"
    assert 1024 < most < hard
