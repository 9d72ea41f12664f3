"""The examples, each against the real server; where a server keeps counts, they are those of the report."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require_tool, wait_until
from tests.loadtest import real_servers as real
from tests.loadtest.locust_command import ROOT, Run, run
from tests.loadtest.servers import ScriptedServer, lines

EXAMPLES = ROOT / "loadtest" / "examples"
LOAD = ("-u", "3", "-r", "3", "-t", "4s", "--stop-timeout", "30", "--think-time", "0.01")
SOME = 10
"""Requests that three users make in 4 s at least, however busy the machine is; hundreds where it is not."""

pytestmark = pytest.mark.timeout(240)


def load(folder: Path, example: str, port: int, *options: str) -> tuple[Run, Counter[str]]:
    """Run an example, and how many requests of each name passed; none failed."""
    path = EXAMPLES / f"{example}_user.py"
    timeouts = ("--connect-timeout", "30", "--read-timeout", "30")
    done = run(folder, f"tcp://127.0.0.1:{port}", *LOAD, *timeouts, *options, locustfile=path)
    assert (done.status, done.errors, done.report.complete) == (0, {}, True), done.output
    table = done.output.split("Type ", 1)[1].split("Aggregated", 1)[0]
    rows = re.findall(r"^[A-Z]+ +(\S.*?) +(\d+) +0\(0\.00%\)", table, re.MULTILINE)
    return done, Counter({name: int(count) for name, count in rows})


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*_user.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_explained(path: Path) -> None:
    """At most 25 lines that are not empty, SMTP's at most 18; and it is in PROTOCOLS.md, as it is."""
    text = path.read_text()
    assert len([line for line in text.splitlines() if line.strip()]) <= (
        18 if path.stem == "smtp_user" else 25
    )
    page = (ROOT / "loadtest" / "PROTOCOLS.md").read_text()
    assert f"(examples/{path.name})\n\n```python\n{text.rstrip()}\n```" in page


def test_redis(tmp_path: Path) -> None:
    """``INFO commandstats`` has each command."""
    with real.redis() as port:
        _, counts = load(tmp_path, "redis", port)
        stats = real.exchange(port, b"INFO commandstats\r\n", b"\r\n\r\n")
    for name in ("SET", "GET"):
        (calls,) = re.findall(rf"cmdstat_{name.lower()}:calls=(\d+),", stats)
        assert int(calls) == counts[name] > SOME


def test_memcached(tmp_path: Path) -> None:
    """``stats`` has gets, sets and hits."""
    with real.memcached() as port:
        _, counts = load(tmp_path, "memcached", port)
        stats = dict(re.findall(r"STAT (\w+) (\d+)", real.exchange(port, b"stats\r\n", b"END\r\n")))
    assert int(stats["cmd_set"]) == counts["SET"] > SOME
    assert int(stats["cmd_get"]) == int(stats["get_hits"]) == counts["GET"] > SOME


def test_mqtt(tmp_path: Path) -> None:
    """Each of three users receives what all publish; the latency of that is an entry."""
    with real.mosquitto() as port:
        done, counts = load(tmp_path, "mqtt", port)
    assert counts["PUBLISH"] > SOME
    # Those who come later or go sooner miss some.
    assert counts["PUBLISH"] < counts["NEWS"] <= 3 * counts["PUBLISH"]
    assert "Service time of NEWS" in {kind.title for kind in done.report.histograms.values()}


def test_irc(tmp_path: Path) -> None:
    """Each of three users hears what the two others say."""
    with real.ngircd() as port:
        done, counts = load(tmp_path, "irc", port, "--think-time", "0.1")
    assert counts["SAY"] > SOME
    assert counts["TALK"] > counts["SAY"] / 2  # those who come later or go sooner miss some
    assert "Service time of TALK" in {kind.title for kind in done.report.histograms.values()}


def test_nats(tmp_path: Path) -> None:
    """The server's own page says how many messages came in and went out."""
    with real.nats() as (port, page):
        _, counts = load(tmp_path, "nats", port)

        def stats() -> dict[str, int]:
            answer = real.exchange(page, b"GET /varz HTTP/1.0\r\n\r\n", b"\n}")
            found: dict[str, int] = json.loads(answer.partition("\r\n\r\n")[2])
            return found

        # The server may count a message after it has answered.
        wait_until(lambda: stats()["in_msgs"] >= counts["PUBLISH"], 30)
        seen = stats()
    assert seen["in_msgs"] == counts["PUBLISH"] > SOME
    assert counts["PUBLISH"] < counts["NEWS"] <= seen["out_msgs"] + 3  # a PING each
    assert seen["out_msgs"] <= 3 * counts["PUBLISH"]


def test_postgresql(tmp_path: Path) -> None:
    """``pg_stat_database`` has as many transactions more as there were queries, less the test's own few."""
    committed = "select xact_commit from pg_stat_database where datname = 'postgres'"
    looks: list[int] = []
    with real.postgres() as (port, sql):

        def look() -> int:
            looks.append(int(sql(committed)))
            return looks[-1] - looks[0]

        look()
        _, counts = load(tmp_path, "postgresql", port)
        wait_until(lambda: look() >= counts["SELECT"], 60)
        more = look() - counts["SELECT"]
    assert counts["SELECT"] > SOME
    assert 0 <= more < len(looks) + 60  # each look is one, and the server has its own


def test_pop3(tmp_path: Path) -> None:
    """Replies of one line and of several on one connection."""
    with real.dovecot(3) as port:
        _, counts = load(tmp_path, "pop3", port)
    assert counts["RETR"] > SOME
    assert counts["PASS"] == 3


def test_ftp(tmp_path: Path) -> None:
    """Each file has a connection of its own, and the server counted as many."""
    with real.folder() as where, real.script(real.FTP, str(where)) as (port, count):
        _, counts = load(tmp_path, "ftp", port)
        assert int(count()) == counts["transaction fetch"] == counts["DATA"] == counts["CONNECT data"] > SOME


def test_smtp(tmp_path: Path) -> None:
    """STARTTLS with a certificate that is checked; all mails came over TLS."""
    certificate = tmp_path / "certificate.pem"
    subprocess.run(
        [
            require_tool("openssl"),
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=load",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            str(certificate),
            "-out",
            str(tmp_path / "cert"),
        ],
        check=True,
        capture_output=True,
    )
    with certificate.open("a") as file:
        file.write((tmp_path / "cert").read_text())
    with real.script(real.SMTP, str(certificate)) as (port, count):
        _, counts = load(tmp_path, "smtp", port, "--tls-ca", str(tmp_path / "cert"))
        assert int(count()) == counts["transaction mail"] == counts["DATA"] > SOME
    assert counts["TLS"] == counts["STARTTLS"] == 3


def test_whois(tmp_path: Path) -> None:
    """A connection for each question, and as many came."""
    came = 0

    def whois(connection: Any, _: Any) -> None:
        nonlocal came
        name = next(lines(connection)).strip()
        came += 1
        connection.sendall(b"Domain Name: " + name + b"\r\n")
        connection.sendall(b"Status: ok\r\n")

    with ScriptedServer(whois) as server:
        _, counts = load(tmp_path, "whois", server.port)
    assert counts["WHOIS"] == came > SOME
    assert came <= counts["CONNECT"] <= came + 3


def test_statsd(tmp_path: Path) -> None:
    """Nothing is answered, and nothing is lost."""
    came: Counter[bytes] = Counter()

    def statsd(connection: Any, _: Any) -> None:
        came.update(lines(connection))

    with ScriptedServer(statsd) as server:
        done, counts = load(tmp_path, "statsd", server.port)
        wait_until(lambda: sum(came.values()) >= counts["COUNTER"] + counts["TIMER"], 30)
    assert came[b"requests:1|c\n"] == counts["COUNTER"] > SOME
    assert came[b"latency:12|ms\n"] == counts["TIMER"]
    assert done.total("messages") == counts["COUNTER"] + counts["TIMER"]
