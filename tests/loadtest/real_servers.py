"""Real servers for the examples: each on a free port, as nobody in particular, ended by its pid.

What a server writes goes to a folder of the test. A server that is not installed skips the test, or fails it
under CI.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
from gevent import socket
from gevent import subprocess as gevent_subprocess

from tests.conftest import require_tool
from tests.loadtest.ports import reserved_port


@contextmanager
def folder(user: str | None = None) -> Iterator[Path]:
    """A folder with a short name (UNIX sockets have 108 bytes), which ``user`` may write to."""
    path = Path(tempfile.mkdtemp(prefix="lt-"))
    path.chmod(0o755)
    try:
        if user:
            shutil.chown(path, user)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def ready(port: int) -> bool:
    """Whether something accepts on the port."""
    with socket.socket() as probe:
        return bool(probe.connect_ex(("127.0.0.1", port)) == 0)


@contextmanager
def running(command: list[str], port: int, where: Path, **options: Any) -> Iterator[int]:
    """The command, from when it accepts on ``port`` to its end."""
    log = where / "log"
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, **options)
    try:
        with gevent.Timeout(60, AssertionError(f"{command[0]} did not start: {log}")):
            while not ready(port):
                assert process.poll() is None, log.read_text(errors="replace")
                gevent.sleep(0.05)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def exchange(port: int, question: bytes, last: bytes) -> str:
    """Ask a server of its own counts: everything up to ``last``."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(question)
        answer = b""
        while last not in answer:
            data = connection.recv(65_536)
            assert data, answer
            answer += data
    return answer.decode(errors="replace")


@contextmanager
def redis() -> Iterator[int]:
    """Redis, without files."""
    tool = require_tool("redis-server")
    with folder() as where, reserved_port() as port:
        command = [tool, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(where)]
        with running(command, port, where):
            yield port


@contextmanager
def memcached() -> Iterator[int]:
    """memcached, as nobody."""
    tool = require_tool("memcached")
    with folder() as where, reserved_port() as port:  # noqa: SIM117
        with running([tool, "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-u", "nobody"], port, where):
            yield port


@contextmanager
def mosquitto() -> Iterator[int]:
    """An MQTT broker."""
    tool = require_tool("mosquitto")
    with folder() as where, reserved_port() as port:
        config = where / "config"
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nsys_interval 1\n")
        config.chmod(0o644)
        with running([tool, "-c", str(config)], port, where):
            yield port


@contextmanager
def ngircd() -> Iterator[int]:
    """An IRC server."""
    tool = require_tool("ngircd")
    with folder() as where, reserved_port() as port:
        config = where / "config"
        config.write_text(
            f"[Global]\nName = irc.load.test\nInfo = a test\nListen = 127.0.0.1\nPorts = {port}\n"
            "MotdPhrase = hello\n[Limits]\nMaxConnectionsIP = 0\nMaxPenaltyTime = 0\n"
            "[Options]\nDNS = no\nIdent = no\nPAM = no\n"
        )
        config.chmod(0o644)
        with running([tool, "-n", "-f", str(config)], port, where):
            yield port


@contextmanager
def nats() -> Iterator[tuple[int, int]]:
    """A NATS server: its port, and that of its counts."""
    tool = require_tool("nats-server")
    with folder() as where, reserved_port() as port, reserved_port() as counts:  # noqa: SIM117
        with running([tool, "-a", "127.0.0.1", "-p", str(port), "-m", str(counts)], port, where):
            yield port, counts


def postgres_tool(name: str) -> str:
    """A program of PostgreSQL, which Debian keeps apart."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else require_tool(name)


@contextmanager
def postgres() -> Iterator[tuple[int, Callable[[str], str]]]:
    """PostgreSQL (as ``postgres``, for it refuses root); its port, and a function that runs SQL."""
    server, initdb = postgres_tool("postgres"), postgres_tool("initdb")
    user = "postgres" if os.getuid() == 0 else None
    before = ["runuser", "-u", user, "--"] if user else []
    with folder(user) as where, reserved_port() as port:
        data = str(where / "data")
        subprocess.run(
            [*before, initdb, "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8"],
            check=True,
            capture_output=True,
            cwd=where,
        )
        options = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={where}"]
        as_user = {"user": user} if user else {}
        with running(
            [server, "-D", data, "-p", str(port), *options, "-c", "fsync=off"],
            port,
            where,
            cwd=where,
            **as_user,
        ):

            def sql(text: str) -> str:
                command = [
                    postgres_tool("psql"),
                    "-h",
                    str(where),
                    "-p",
                    str(port),
                    "-U",
                    "postgres",
                    "-Atc",
                    text,
                ]
                return gevent_subprocess.check_output(command, text=True).strip()

            yield port, sql


@contextmanager
def dovecot(users: int) -> Iterator[int]:
    """A POP3 server, with a mail for each of ``users``."""
    tool = require_tool("dovecot")
    with folder() as where, reserved_port() as port:
        mail = where / "mail"
        for number in range(users):
            box = mail / f"load{number}"
            for part in ("new", "cur", "tmp"):
                (box / part).mkdir(parents=True)
            (box / "cur" / f"1.{number}.test:2,").write_bytes(b"Subject: x\n\nhello\n.\nend\n")
        subprocess.run(["chown", "-R", "nobody:nogroup", str(mail)], check=True)
        config = where / "config"
        config.write_text(
            f"protocols = pop3\nbase_dir = {where}/run\nlog_path = {where}/log\n"
            "ssl = no\nlisten = 127.0.0.1\n"
            f"disable_plaintext_auth = no\nmail_location = maildir:{mail}/%u\nfirst_valid_uid = 1\n"
            "mail_max_userip_connections = 0\n"
            "passdb {\n driver = static\n args = password=secret\n}\n"
            f"userdb {{\n driver = static\n args = uid=nobody gid=nogroup home={mail}/%u\n}}\n"
            f"service pop3-login {{\n inet_listener pop3 {{\n port = {port}\n }}\n"
            " inet_listener pop3s {\n port = 0\n }\n}\n"
        )
        with running([tool, "-F", "-c", str(config)], port, where):
            yield port


@contextmanager
def script(text: str, *arguments: str) -> Iterator[tuple[int, Callable[[], str]]]:
    """A server in Python that prints its port, and, when the function asks for it, its count."""
    process: Any = gevent_subprocess.Popen(
        [sys.executable, "-c", text, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        with gevent.Timeout(60):
            port = int(process.stdout.readline())

        def count() -> str:
            with gevent.Timeout(60):
                return str(process.communicate()[0]).strip()

        yield port, count
    finally:
        process.kill()
        process.wait()


SMTP = """
import asyncio, logging, ssl, sys
from aiosmtpd.smtp import SMTP

class Count:
    mails = 0
    async def handle_DATA(self, server, session, envelope):
        self.mails += session.ssl is not None
        return "250 OK"

async def main():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[1])
    count, loop = Count(), asyncio.get_running_loop()
    make = lambda: SMTP(count, tls_context=context, require_starttls=True, loop=loop, hostname="load.test")
    server = await loop.create_server(make, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    print(count.mails, flush=True)

asyncio.run(main())
"""

FTP = """
import pathlib, sys, threading
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer
import logging
logging.disable(logging.CRITICAL)

sent = []
class Handler(FTPHandler):
    authorizer = DummyAuthorizer()
    def on_file_sent(self, file):
        sent.append(file)

pathlib.Path(sys.argv[1], "file").write_bytes(b"0123456789" * 1000)
Handler.authorizer.add_user("load", "secret", sys.argv[1])
server = FTPServer(("127.0.0.1", 0), Handler)
print(server.address[1], flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
print(len(sent), flush=True)
"""
