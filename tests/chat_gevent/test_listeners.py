"""Listening sockets of every kind, through the running command."""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from chat_gevent.errors import ListenError
from chat_gevent.listeners import listen, listen_beside, take_no_more
from chat_gevent.settings import Settings
from tests.operate import ServerProcess, exchange, rest

Operate = Callable[..., ServerProcess]


def connect_unix(path: str) -> socket.socket:
    """A client of a UNIX socket."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(30)
    client.connect(path)
    return client


def test_several_listeners_share_one_server(operate: Operate, tmp_path: Path) -> None:
    """TCP, IPv6 and UNIX at once, one ready line, one count of clients over all of them."""
    path = tmp_path / "chat.sock"
    server = operate(
        *("--listen", "tcp://127.0.0.1:0", "--listen", f"tcp://[::1]:0,unix://{path}"),
        *("--max-connections", "3", "--admin", ":0"),
    )
    assert [re.sub(r"\d+$", "PORT", url) for url in server.urls] == [
        "tcp://127.0.0.1:PORT",
        "tcp://[::1]:PORT",
        f"unix://{path}",
    ]
    with server.connect(0) as first, server.connect(1) as second, connect_unix(str(path)) as third:
        for each in (first, second, third):
            exchange(each, b"hello")
        shown = [each["address"].rpartition(":")[0] or each["address"] for each in server.clients()]
        assert sorted(shown) == ["127.0.0.1", "[::1]", "unix"]
        for refused in (server.connect(0), server.connect(1), connect_unix(str(path))):
            with refused:
                assert rest(refused).startswith(b"Error: server-full: ")
    assert server.stop() == 0
    assert not path.exists()


def test_dual_stack(operate: Operate) -> None:
    """``[::]`` takes IPv6 and IPv4; ``--ipv6-only`` leaves IPv4 alone."""
    both = operate("--listen", "tcp://[::]:0", "--admin", ":0")
    port = both.address()[1]
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, port), 30) as client:
            exchange(client, b"hello")
    only = operate("--listen", "tcp://[::]:0", "--ipv6-only")
    port = only.address()[1]
    with socket.create_connection(("::1", port), 30) as client:
        exchange(client, b"hello")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 30)


def test_a_name_with_several_addresses_gets_one_port() -> None:
    """Every address of a name is listened on, and port 0 becomes the same port for all."""
    listeners = listen("tcp://localhost:0", Settings())
    try:
        assert len({each.socket.getsockname()[1] for each in listeners}) == 1
        assert {each.socket.family for each in listeners} <= {socket.AF_INET, socket.AF_INET6}
    finally:
        for each in listeners:
            each.socket.close()


def test_an_address_in_use_is_one_line_and_exit_1(operate: Operate) -> None:
    """The line names the address, says why, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = operate("--port", str(port), ready=False)
        assert server.process.wait(30) == 1
    problem = "Address already in use; stop what listens there, or listen elsewhere"
    assert server.log == f"chat-gevent serve: error: tcp://127.0.0.1:{port}: {problem}\n"


def test_the_second_of_two_listeners_fails_and_the_first_is_cleaned_up(
    operate: Operate, tmp_path: Path
) -> None:
    """A server that can't have all of its listeners has none, and leaves no socket file."""
    path = tmp_path / "chat.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = operate("--listen", f"unix://{path},tcp://127.0.0.1:{port}", ready=False)
        assert server.process.wait(30) == 1
    assert not path.exists()


def test_a_unix_socket_has_the_mode_asked_for(tmp_path: Path) -> None:
    """Whatever the umask is; and the umask stays as it was."""
    before = os.umask(0o077)
    try:
        for mode in (0o600, 0o660, 0o666):
            path = tmp_path / f"{mode:o}"
            [listener] = listen(f"unix://{path}", Settings(), unix_mode=mode)
            assert stat.S_IMODE(path.stat().st_mode) == mode
            listener.remove_file()
            listener.socket.close()
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)


def test_a_stale_socket_file_is_replaced_and_a_live_one_is_not(operate: Operate, tmp_path: Path) -> None:
    """After a crash the server starts again; beside a running one it does not, and harms it not."""
    path = tmp_path / "chat.sock"
    first = operate("--listen", f"unix://{path}")
    second = operate("--listen", f"unix://{path}", ready=False)
    assert second.process.wait(30) == 1
    problem = "Address already in use; stop what listens there, or listen elsewhere"
    assert second.log == f"chat-gevent serve: error: unix://{path}: {problem}\n"
    with connect_unix(str(path)) as client:
        exchange(client, b"still here")
    first.process.kill()
    first.process.wait(30)
    assert path.exists()
    operate("--listen", f"unix://{path}")
    with connect_unix(str(path)) as client:
        exchange(client, b"again")


def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    """A mistyped path costs nobody a file."""
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(ListenError, match="a file of that name that is no socket"):
        listen(f"unix://{path}", Settings())
    assert path.read_text() == "data"


def test_a_socket_file_that_somebody_else_replaced_stays(tmp_path: Path) -> None:
    """A server that ends removes its own socket file only."""
    path = tmp_path / "chat.sock"
    [ours] = listen(f"unix://{path}", Settings())
    path.unlink()
    [theirs] = listen(f"unix://{path}", Settings())
    ours.remove_file()
    assert path.exists()
    theirs.remove_file()
    assert not path.exists()
    ours.socket.close()
    theirs.socket.close()


def test_an_abstract_unix_socket(operate: Operate) -> None:
    """``unix://@NAME`` is a name without a file."""
    name = f"chat-gevent-test-{os.getpid()}"
    server = operate("--listen", f"unix://@{name}")
    assert server.urls == [f"unix://@{name}"]
    with connect_unix("\0" + name) as client:
        exchange(client, b"hello")


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("tcp://no-such-host.invalid:1", "Name or service not known|Temporary failure in name resolution"),
        ("tcp://192.0.2.1:0", "Cannot assign requested address"),
        ("unix:///no/such/folder/socket", "No such file or directory"),
        ("unix:///tmp/" + "x" * 120, "AF_UNIX path too long"),
        (f"tcp://{'x' * 70}:1", "label"),
    ],
)
def test_an_address_that_cant_be_had_says_why(address: str, problem: str) -> None:
    """The error begins with the address."""
    with pytest.raises(ListenError, match=problem) as error:
        listen(address, Settings())
    assert str(error.value).startswith(address)


def test_take_no_more_keeps_who_is_connected_and_ignores_who_comes() -> None:
    """Before a close: who is in the queue is accepted and can talk; a new SYN is not answered."""
    [listener] = listen("tcp://127.0.0.1:0", Settings())
    address = listener.socket.getsockname()
    with socket.create_connection(address, 30) as early:
        take_no_more(listener.socket)
        with pytest.raises(TimeoutError):
            socket.create_connection(address, 0.3)
        accepted, _ = listener.socket.accept()
        with accepted:
            early.sendall(b"x" * 100_000)
            accepted.settimeout(30)
            assert accepted.recv(10) == b"x" * 10
    listener.socket.close()


def test_accepted_clients_inherit_the_tuning(serve: Callable[..., object]) -> None:
    """No delay, keepalive and user timeout hold for each client, without a system call for each."""
    server = serve(keepalive_idle=7, keepalive_interval=8, keepalive_probes=9, tcp_user_timeout=10)
    from tests.conftest import wait_until
    from tests.peers import Peer

    with Peer(server.address) as peer:  # type: ignore[attr-defined]
        peer.ask(b"hello")
        core = server.core  # type: ignore[attr-defined]
        wait_until(lambda: core.registry.live == 1)
        [client] = core.engine.all()
        mirror = socket.socket(fileno=os.dup(client.fd))
        with mirror:
            tcp = socket.IPPROTO_TCP
            assert mirror.getsockopt(tcp, socket.TCP_NODELAY)
            assert mirror.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert mirror.getsockopt(tcp, socket.TCP_KEEPIDLE) == 7
            assert mirror.getsockopt(tcp, socket.TCP_KEEPINTVL) == 8
            assert mirror.getsockopt(tcp, socket.TCP_KEEPCNT) == 9
            assert mirror.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 10_000


def test_a_reserved_address_is_shared_by_those_beside_it_and_by_nobody_else() -> None:
    """Who reserves refuses clients until a socket listens beside; another server, also one that would share,
    is told that the address is in use; also for IPv6, and where IPv4 is to be left alone."""
    for address in ("tcp://127.0.0.1:0", "tcp://[::]:0"):
        [reserved] = listen(address, Settings(), ipv6_only=True, reserve=True)
        port = reserved.socket.getsockname()[1]
        host = "::1" if "[" in address else "127.0.0.1"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, port))
        beside = [listen_beside(reserved, Settings()) for _ in range(2)]
        socket.create_connection((host, port)).close()
        for reserve in (False, True):
            with pytest.raises(ListenError, match="in use"):
                listen(address.replace(":0", f":{port}"), Settings(), ipv6_only=True, reserve=reserve)
        assert [each.url for each in beside] == [reserved.url] * 2
        for each in (reserved, *beside):
            each.socket.close()
