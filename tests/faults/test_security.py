"""What nobody may do to the server or through it: by TLS, admin pages, logs and terminals."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conftest import command, require_tool
from tests.operate import ServerProcess, certificate, exchange, rest, until

Operate = Callable[..., ServerProcess]

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m"
"""What sets a terminal's title and clears it, in both forms of the introducer."""
BIDI = "\u202e\u2066"
"""What turns the order of the letters around that follow."""
EVIL = [ESCAPES, BIDI, "\r\n2026-01-31T12:00:00.000Z INFO forged", "\u2028forged", "x" * 60_000]


def keys(folder: Path, kind: str) -> tuple[str, ...]:
    """Options for a certificate with a key of this kind, made by openssl."""
    new = (
        ["-newkey", "rsa:2048"] if kind == "rsa" else ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    )
    made = [require_tool("openssl"), "req", "-x509", *new, "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    made += [
        "-keyout",
        str(folder / "s.key"),
        "-out",
        str(folder / "s.pem"),
        "-addext",
        "subjectAltName=DNS:localhost",
    ]
    subprocess.run(made, check=True, capture_output=True, timeout=100)
    return ("--tls-certificate", str(folder / "s.pem"), "--tls-key", str(folder / "s.key"))


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_sslscan_has_no_finding(operate: Operate, tmp_path: Path, kind: str) -> None:
    """No old protocol, compression, renegotiation, Heartbleed or weak key; every cipher is authenticated
    encryption of 128 bits at least with forward secrecy."""
    server = operate("--listen", "tls://127.0.0.1:0", *keys(tmp_path, kind))
    scan = [require_tool("sslscan"), "--no-colour", "--xml=-", f"127.0.0.1:{server.port}"]
    done = subprocess.run(scan, capture_output=True, text=True, timeout=100, check=True)
    found = ElementTree.fromstring(done.stdout)
    enabled = {each.get("version") for each in found.iter("protocol") if each.get("enabled") == "1"}
    assert enabled == {"1.2", "1.3"}
    ciphers = list(found.iter("cipher"))
    assert {each.get("sslversion") for each in ciphers} == {"TLSv1.2", "TLSv1.3"}
    for each in ciphers:
        assert int(str(each.get("bits"))) >= 128
        assert each.get("strength") in ("strong", "acceptable")
        assert re.match("TLS_|ECDHE-", str(each.get("cipher"))), each.attrib
        assert re.search("GCM|POLY1305", str(each.get("cipher"))), each.attrib
    assert [each.get("vulnerable") for each in found.iter("heartbleed")].count("1") == 0
    assert {each.get("supported") for each in found.iter("renegotiation")} == {"0"}
    assert {each.get("supported", "0") for each in found.iter("compression")} <= {"0"}
    assert {each.get("error") for each in found.iter("pk")} == {"false"}
    assert server.stop() == 0
    assert "Traceback" not in server.log


def raw(server: ServerProcess, request: bytes) -> bytes:
    """What the admin pages say to ``request``."""
    host, port = server.logged(r"admin pages at http://(\S+):(\d+)").groups()
    with socket.create_connection((host, int(port)), 30) as client:
        client.sendall(request)
        return rest(client)


@pytest.mark.parametrize(
    "name", ["evil.example", "localhost.evil.example", "127.0.0.2", "0", "[::1].evil", ""]
)
def test_no_admin_page_tells_anything_to_another_name(operate: Operate, name: str) -> None:
    """By every method and target, also one that names this host itself; only health has an answer."""
    server = operate("--port", "0", "--admin", "127.0.0.1:0", "--framing", "line")
    with server.connect() as client:
        exchange(client, b"hello")
        for target in (
            "/metrics",
            "/clients",
            "/clients?limit=1",
            "/",
            "/nothing",
            "//clients",
            "/./metrics",
        ):
            for begin in ("", "http://localhost", "http://127.0.0.1"):
                for method in ("GET", "HEAD", "POST", "OPTIONS", "CONNECT", "TRACE"):
                    line = f"{method} {begin}{target} HTTP/1.1\r\n"
                    request = f"{line}Host: {name}\r\nX-Forwarded-Host: localhost\r\n\r\n"
                    answer = raw(server, request.encode())
                    status = answer.split(b" ")[1]
                    assert status in (b"421", b"405", b"501"), (request, answer)
                    assert b"chat_gevent_messages" not in answer
                    assert str(client.getsockname()[1]).encode() not in answer
        for target, body in (("/healthz", b"ok\n"), ("/readyz", b"ready\n")):
            answer = raw(server, f"GET {target} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
            assert answer.endswith(b"\r\n\r\n" + body)
    assert server.stop() == 0


ECHO_FAILURE = """
def handle(message, client):
    raise ValueError(message)
"""


@pytest.mark.parametrize("style", ["text", "json"])
def test_nothing_that_strangers_say_is_a_line_of_the_log(
    operate: Operate, tmp_path: Path, style: str
) -> None:
    """A client, its handler's failure, its UNIX name, a proxy, a TLS peer, an admin request and a setting:
    each line of the log is printable, and is the server's own."""
    (tmp_path / "failing.py").write_text(ECHO_FAILURE)
    listen = f"tcp://127.0.0.1:0,tls://127.0.0.1:0,tcp://127.0.0.2:0,unix://{tmp_path}/socket"
    server = operate(
        *("--listen", listen, "--proxy-from", "127.0.0.2", *keys(tmp_path, "ec")),
        *("--handler", "failing:handle", "--log-format", style, "--access-log", "--log-level", "debug"),
        *("--admin", "127.0.0.1:0", "--backplane-prefix", ESCAPES + BIDI),
        cwd=tmp_path,
    )
    for evil in EVIL:
        with server.connect() as client:
            client.sendall(evil.replace("\n", "").encode() + b"\n")
            client.recv(1000)
        with server.connect(1) as client:
            client.sendall(evil.encode())
        for header in (
            evil,
            f"PROXY TCP4 {evil[:50]} 192.0.2.1 1 2\r\n",
            f"PROXY UNKNOWN {evil[:60]}\r\n/exit\n",
        ):
            with socket.create_connection(server.address(2), 30, source_address=("127.0.0.2", 0)) as client:
                client.sendall(header.encode())
        with socket.socket(socket.AF_UNIX) as client:
            client.bind(b"\0" + evil.encode()[:60])
            client.connect(f"{tmp_path}/socket")
            client.sendall(b"/exit\n")
            rest(client)
        host, port = server.logged(r"admin pages at http://(\S+?):(\d+)").groups()
        with socket.create_connection((host, int(port)), 30) as client:
            client.sendall(f"GET /{evil} HTTP/1.1\r\nHost: {evil}\r\nX: {evil}\r\n\r\n".encode())
            client.shutdown(socket.SHUT_WR)
            rest(client)
    assert server.stop() == 0
    lines = server.log.splitlines()
    assert "ValueError" in server.log
    for line in server.log.split("\n"):
        assert line.isprintable(), ascii(line)
        if style == "json" and line:
            assert {"time", "level", "message"} <= set(json.loads(line))
        elif line:
            assert re.match(r"20\d\d-\d\d-\d\dT\S+Z (DEBUG|INFO|WARNING|ERROR) |    ", line), line[:200]
            assert "INFO forged" not in line[:40]
    assert len(lines) > 20


@pytest.mark.parametrize("evil", EVIL[:4])
def test_a_setting_that_is_wrong_is_said_in_one_line(evil: str, tmp_path: Path) -> None:
    """By the environment, an option and a file: one printable line, however it is given."""
    file = tmp_path / "settings.toml"
    file.write_text(f"{json.dumps('x' + evil)} = 1\n")
    for arguments, variables in (
        (["--port", evil], {}),
        (["--config", str(file)], {}),
        ([], {"CHAT_GEVENT_LOG_LEVEL": evil}),
        (["--tls-certificate", f"{tmp_path}/{evil}"], {}),
        (["--handler", f"os{evil}:x"], {}),
        ([f"--{evil}"], {}),
    ):
        done = subprocess.run(
            command("serve", *arguments),
            capture_output=True,
            env={**os.environ, **variables},
            timeout=100,
            check=False,
        )
        assert done.returncode in (1, 2)
        assert done.stdout == b""
        (line,) = done.stderr.decode().strip("\n").split("\n")
        assert line.isprintable(), ascii(line)


def at_a_terminal(*arguments: str) -> str:
    """What ``chat-gevent`` with ``arguments`` writes to a terminal that it has for all three streams."""
    near, far = pty.openpty()
    with subprocess.Popen(command(*arguments), stdin=far, stdout=far, stderr=far, close_fds=True) as process:
        os.close(far)
        shown = b""
        while select.select([near], [], [], 60)[0]:
            try:
                shown += os.read(near, 65536)
            except OSError:  # the other end is closed
                break
        process.wait(60)
    os.close(near)
    return shown.decode(errors="replace").replace("\r\n", "\n")


@pytest.mark.parametrize("evil", EVIL[:4])
@pytest.mark.parametrize("begin", ["Received: ", "Error: x: ", "", "Received: hello\n"])
def test_no_server_commands_the_terminal_of_a_client(evil: str, begin: str) -> None:
    """Whatever a server answers, refuses or says unasked: what is shown at a terminal is printable."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                client.sendall(f"{begin}{evil}\n".encode())
                client.recv(1000)

        serving = threading.Thread(target=serve)
        serving.start()
        port = str(listener.getsockname()[1])
        shown = at_a_terminal("client", "--port", port, "hello")
        serving.join()
    for line in shown.split("\n"):
        assert line.isprintable(), ascii(line)


def test_no_server_commands_the_terminal_of_a_load_test(tmp_path: Path) -> None:
    """Its replies fail requests, and are shown with them: as text that is printable."""
    from tests.loadtest.locust_command import LOCUST, LOCUSTFILE

    answers = ["Error: " + "".join(EVIL[:4]) + ": x", "".join(EVIL[:2]), "Received: " + ESCAPES]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def talk(client: socket.socket) -> None:
            with client, contextlib.suppress(OSError):  # it leaves as it likes
                for turn in range(10_000):
                    if not client.recv(1000):
                        return
                    client.sendall(answers[turn % len(answers)].replace("\n", "").encode() + b"\n")

        def serve() -> None:
            listener.settimeout(0.1)
            while not ended.is_set():
                try:
                    client, _ = listener.accept()
                except TimeoutError:
                    continue
                threading.Thread(target=talk, args=(client,), daemon=True).start()

        serving = threading.Thread(target=serve)
        serving.start()
        host = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        words = [
            *LOCUST,
            "-f",
            str(LOCUSTFILE),
            "--headless",
            "-u",
            "3",
            "-r",
            "10",
            "-t",
            "60s",
            "--messages",
            "12",
            "--host",
            host,
        ]
        done = subprocess.run(words, capture_output=True, text=True, timeout=100, cwd=tmp_path, check=False)
        ended.set()
        serving.join()
    assert done.returncode == 1
    shown = done.stdout + done.stderr
    assert "ErrorReply" in shown or "WrongReply" in shown
    for line in shown.replace("\r\n", "\n").split("\n"):
        assert re.sub("\t", "", line).isprintable(), ascii(line)


def test_a_certificate_does_not_command_the_log(operate: Operate, tmp_path: Path) -> None:
    """A client's certificate that nobody has signed, with control characters in its name: one line."""
    options = keys(tmp_path, "ec")
    certificate(tmp_path, "ca", ca=True)
    server = operate("--listen", "tls://127.0.0.1:0", *options, "--tls-client-ca", str(tmp_path / "ca.pem"))
    made = [
        require_tool("openssl"),
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ]
    made += [
        "-utf8",
        "-subj",
        f"/CN=x{ESCAPES}{BIDI}",
        "-keyout",
        str(tmp_path / "c.key"),
        "-out",
        str(tmp_path / "c.pem"),
    ]
    subprocess.run(made, check=True, capture_output=True, timeout=100)
    script = (
        "import socket, ssl, sys\n"
        "context = ssl._create_unverified_context()\n"
        "context.load_cert_chain(sys.argv[1], sys.argv[2])\n"
        "raw = socket.create_connection(('127.0.0.1', int(sys.argv[3])))\n"
        "context.wrap_socket(raw).recv(10)\n"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "c.pem"), str(tmp_path / "c.key"), str(server.port)]
    assert subprocess.run(words, capture_output=True, timeout=100, check=False).returncode == 1
    server.logged("TLS handshake with .* failed")
    until(lambda: server.log.endswith("\n"))
    assert all(line.isprintable() for line in server.log.split("\n"))
    assert server.stop() == 0
