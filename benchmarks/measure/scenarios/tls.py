"""The same as confirm over TLS, and what a handshake costs."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.measure.scenarios.base import (
    CLOSED_LATENCY,
    LOAD_METRICS,
    Bench,
    Load,
    Scenario,
    check_window,
    load_trial,
)
from benchmarks.measure.servers import Server
from benchmarks.measure.servers.process import ServerProcess
from benchmarks.reports.report import Metric, Trial


class Tls(Scenario):
    """Closed loop over TLS with a P-256 certificate; connections are opened one handshake after another."""

    name = "tls"
    question = "What do a confirmation and a handshake cost the server over TLS?"
    metrics: ClassVar = {
        **LOAD_METRICS,
        "server_cpu_us_per_handshake": Metric(
            unit="µs",
            better="lower",
            title="server CPU per TLS connection with its first message",
            primary=True,
        ),
    }
    histograms: ClassVar = {"latency": CLOSED_LATENCY}
    defaults: ClassVar = {
        "connections": 1000,
        "size": 32,
        "depth": 1,
        "warmup": 0.5,
        "seconds": 3.0,
        "blocks": 5,
    }
    quick: ClassVar = {"connections": 300, "seconds": 1.0, "blocks": 3}
    full: ClassVar = {"seconds": 5.0, "blocks": 10}

    def over_tls(self, parameters: dict[str, Any]) -> bool:
        """It is all about that."""
        return True

    def refuses(self, server: Server, parameters: dict[str, Any]) -> str | None:
        """Only servers that speak TLS; the certificate is made by the openssl command."""
        return refuses_tls(server)

    def trial(self, bench: Bench, server: Server, parameters: dict[str, Any]) -> Trial:
        """Handshakes are measured while the connections open, confirmations afterwards."""
        connections = parameters["connections"]
        server, load_options = encrypted(server)
        options = {"size": parameters["size"], "depth": parameters["depth"], **load_options}
        with (
            ServerProcess(server, bench.server_cores) as process,
            Load(bench, process, connections, **options) as load,
        ):
            bench.progress(f"{connections:,} handshakes")
            handshakes = load.window(load.grow)
            bench.progress(f"measuring {parameters['seconds']:g} s")
            window = load.measure(parameters["warmup"], parameters["seconds"])
        check_window(bench, server.name, window)
        trial = load_trial(server, window)
        if handshakes.messages:
            trial.values["server_cpu_us_per_handshake"] = handshakes.server_cpu / handshakes.messages * 1e6
        return trial


def refuses_tls(server: Server) -> str | None:
    """Why a server can't be measured over TLS, if it can't."""
    if server.tls is None:
        return "it does not speak TLS here"
    if not shutil.which("openssl"):
        return "the openssl command, which makes the certificate, is not installed"
    return None


def encrypted(server: Server) -> tuple[Server, dict[str, Any]]:
    """``server`` as it speaks TLS, and the options with which the load generator does."""
    certificate, key = certificate_and_key()
    return server.over_tls(certificate, key), {"tls": 1, "tls_ca": certificate}


@functools.cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="chat-gevent-tls-")


@functools.cache
def certificate_and_key() -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key, in a directory that goes with this process."""
    certificate, key = (Path(_directory().name) / name for name in ("certificate.pem", "key.pem"))
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 7 -subj /CN=localhost"
    )
    names = [
        "-addext",
        "subjectAltName=IP:127.0.0.1,DNS:localhost",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return certificate, key
