"""The states of clients as an operator sees them, on the admin page of a running server."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.operate import ServerProcess, certificate, until


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_a_client_that_floods_is_shown_as_queued(
    operate: Callable[..., ServerProcess], tmp_path: Path, scheme: str
) -> None:
    """While what it has sent waits for its turn, ``/clients`` says so; silent clients are parked."""
    pem = certificate(tmp_path, "server")
    (tmp_path / "slow.py").write_text(
        "import time\n"
        "def answer(text, client):\n"
        "    end = time.perf_counter() + 0.0005\n"
        "    while text[0] == 'x' and time.perf_counter() < end:\n"  # a loop that is busy
        "        pass\n"
    )
    server = operate(
        *("--listen", f"{scheme}://127.0.0.1:0", "--admin", ":0", "--handler", "slow:answer"),
        *("--tls-certificate", str(pem), "--tls-key", str(tmp_path / "server.key")) * (scheme == "tls"),
        cwd=tmp_path,
    )
    context = ssl.create_default_context(cafile=str(pem))

    def connect() -> ssl.SSLSocket:
        plain = server.connect()
        return context.wrap_socket(plain, server_hostname="localhost") if scheme == "tls" else plain  # type: ignore[return-value]

    with connect() as silent, connect() as flood:
        silent.sendall(b"hello\n")
        flood.settimeout(30)
        shown = threading.Event()

        def pour() -> None:
            while not shown.is_set():
                flood.sendall((b"x" * 999 + b"\n") * 100)

        pouring = threading.Thread(target=pour)
        pouring.start()
        name = "{}:{}".format(*flood.getsockname())
        states = {each["address"]: each["state"] for each in server.clients()}
        until(
            lambda: (
                states.update((each["address"], each["state"]) for each in server.clients())
                or states[name] == "queued"
            ),
            what="the client that floods is shown as queued",
        )
        shown.set()
        assert states["{}:{}".format(*silent.getsockname())] == "parked"
        pouring.join(30)
