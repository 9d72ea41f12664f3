"""gunicorn's own options under ChatWorker: what can't be honoured ends the start, the rest is honoured."""

from __future__ import annotations

import signal
import socket
import ssl
from pathlib import Path

import pytest

from tests.chat_gevent.command.test_worker import Gunicorn
from tests.conftest import wait_until
from tests.operate import certificate, rest


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--certfile server.pem --keyfile server.key --cert-reqs 2", "cert_reqs = 2 needs ca_certs"),
        ("--certfile server.pem --keyfile server.key --cert-reqs 1", "cert_reqs = 1 needs ca_certs"),
        (
            "--certfile server.pem --keyfile server.key --cert-reqs 3 --ca-certs server.pem",
            "cert_reqs = 3: must be 0, 1 or 2",
        ),
        ("--certfile server.pem --keyfile server.key --ca-certs server.pem", "ca_certs needs cert_reqs"),
        ("--certfile server.pem --keyfile server.key --ciphers nonsense", "ciphers nonsense: "),
        (
            "--certfile server.pem --keyfile server.key --ssl-version TLSv1_1",
            "ssl_version = TLSv1_1",
        ),
        ("--cert-reqs 2 --ca-certs server.pem", "cert_reqs needs certfile"),
        ("--ca-certs server.pem", "ca_certs needs certfile"),
        ("--ciphers DEFAULT", "ciphers needs certfile"),
        ("--keyfile server.key", "keyfile needs certfile"),
        ("--certfile /dev/null", "/dev/null: no usable certificate"),
        ("--max-requests 10", "max_requests does nothing here"),
        ("--max-requests-jitter 10", "max_requests_jitter does nothing here"),
        ("--threads 4", "threads does nothing here"),
        ("--access-logfile -", "accesslog does nothing here"),
        ("--proxy-protocol v1", "proxy_protocol = v1: must be auto"),
    ],
)
def test_what_cannot_be_honoured(tmp_path: Path, options: str, said: str) -> None:
    """The arbiter ends before it has started a worker, with one line that names the option."""
    certificate(tmp_path, "server")
    started = Gunicorn(tmp_path, *options.split())
    try:
        assert started.process.wait(30) == 1
        errors = [line for line in started.log.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1
        assert said in errors[0]
        assert "Booting worker" not in started.log
        assert "Traceback" not in started.log
    finally:
        started.close()


def _ask(client: socket.socket) -> bool:
    client.sendall(b"hello\n")
    return client.recv(1000).startswith(b"hello ")


@pytest.mark.parametrize(("required", "without"), [("1", True), ("2", False)])
def test_client_certificates(tmp_path: Path, required: str, without: bool) -> None:
    """1: one that is shown must be signed by the CA; 2: there must be one."""
    certificate(tmp_path, "server")
    certificate(tmp_path, "authority", ca=True)
    certificate(tmp_path, "known", signer="authority")
    certificate(tmp_path, "stranger")
    started = Gunicorn(
        tmp_path,
        *("--certfile", "server.pem", "--keyfile", "server.key"),
        *("--cert-reqs", required, "--ca-certs", "authority.pem"),
    )

    def admitted(name: str) -> bool:
        context = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
        if name:
            context.load_cert_chain(tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
        try:
            with (
                started.connect() as plain,
                context.wrap_socket(plain, server_hostname="localhost") as client,
            ):
                return _ask(client)
        except (ssl.SSLError, ConnectionError):
            return False

    try:
        assert admitted("known")
        assert not admitted("stranger")
        assert admitted("") is without
    finally:
        started.close()


def test_ciphers_and_version(tmp_path: Path) -> None:
    """``--ciphers`` is what a client has to choose from, ``--ssl-version TLSv1_2`` the only version."""
    certificate(tmp_path, "server")
    started = Gunicorn(
        tmp_path,
        *("--certfile", "server.pem", "--keyfile", "server.key"),
        *("--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384", "--ssl-version", "TLSv1_2"),
    )
    try:
        context = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
        with started.connect() as plain, context.wrap_socket(plain, server_hostname="localhost") as client:
            assert client.version() == "TLSv1.2"
            assert client.cipher()[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"  # type: ignore[index]
        context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        with started.connect() as plain, pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(plain, server_hostname="localhost")
    finally:
        started.close()


HOOK = """
import ssl
def ssl_context(conf, default_ssl_context_factory):
    context = default_ssl_context_factory()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
"""


def test_the_ssl_context_hook(tmp_path: Path) -> None:
    """The hook of a configuration file makes the context that is used."""
    certificate(tmp_path, "server")
    (tmp_path / "gunicorn.conf.py").write_text(HOOK)
    started = Gunicorn(tmp_path, "--certfile", "server.pem", "--keyfile", "server.key")
    try:
        context = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
        with started.connect() as plain, context.wrap_socket(plain, server_hostname="localhost") as client:
            assert _ask(client)
            assert client.version() == "TLSv1.3"
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with started.connect() as plain, pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(plain, server_hostname="localhost")
    finally:
        started.close()


def test_proxy_headers(tmp_path: Path) -> None:
    """``--proxy-protocol`` takes the header from where ``--proxy-allow-from`` says, and from nowhere else."""
    for allowed, reply in (("127.0.0.1", b"hello "), ("*", b"hello "), ("192.0.2.1", b"PROXY ")):
        started = Gunicorn(tmp_path, "--proxy-protocol", "auto", "--proxy-allow-from", allowed)
        try:
            with started.connect() as client:
                client.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 4321 1\r\nhello\n")
                assert client.recv(6) == reply
        finally:
            started.close()


def test_worker_connections(tmp_path: Path) -> None:
    """It is the number of clients that each worker takes."""
    started = Gunicorn(tmp_path, "--worker-connections", "1")
    try:
        with started.connect() as one, started.connect() as two, started.connect() as three:
            for each in (one, two, three):
                each.sendall(b"hello\n")
            replies = sorted(each.recv(6) for each in (one, two, three))
            assert b"Error:" in replies
    finally:
        started.close()


SLOW = """
import gevent, os
def tell_process(message, client):
    if message == "slow":
        gevent.sleep(12)
    return f"{message} {os.getpid()}"
"""


@pytest.mark.timeout(120)
def test_a_reload_outlasts_a_handler_that_takes_longer_than_the_time_out(tmp_path: Path) -> None:
    """HUP with ``--timeout 6`` and a handler that works for 12 s: the reply comes, no worker is killed."""
    started = Gunicorn(tmp_path, "--timeout", "6", "--graceful-timeout", "50")
    try:
        with started.connect() as first:
            assert _ask(first)
        (tmp_path / "workers_handler.py").write_text(SLOW)
        started.process.send_signal(signal.SIGHUP)
        wait_until(lambda: started.log.count("Worker exiting") == 2)
        with started.connect() as client:
            assert _ask(client)
            client.sendall(b"slow\n")
            started.process.send_signal(signal.SIGHUP)
            replies = rest(client).splitlines()
            assert replies[0].startswith(b"slow ")
            assert replies[1].startswith(b"Error: shutting-down: ")
        wait_until(lambda: started.log.count("Worker exiting") == 4)
        assert "WORKER TIMEOUT" not in started.log
    finally:
        started.close()
