"""The ``deploy`` command: lists the files to deploy with that come with the package, or prints one of them.

The files are in ``chat_gevent/deploy``. They are read from where the package is installed, so they are those
of the version that will run.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from chat_gevent.command.standard import say

FOLDER: Final = Path(__file__).parent.parent / "deploy"

FILES: Final = {
    "README.md": "what each file is for; rolling restart and host upgrade, step by step",
    "chat-gevent.toml": "settings of a server behind a balancer",
    "chat-gevent.service": "systemd unit of a server; from systemd 252 on",
    "chat-gevent.socket": "systemd socket, in whose queue clients wait while the server restarts",
    "notify-reload.conf": "drop-in for systemd 253 and later: a reload waits until the server has done it",
    "haproxy.cfg": "HAProxy before three servers: fewest clients first, PROXY v2, check on /readyz",
    "nginx-stream.conf": "nginx before three servers: fewest clients first, PROXY v1",
    "Containerfile": "container image with one server: not root, health check",
    "kubernetes.yaml": "three servers in Kubernetes: probes, time to drain, one at a time",
    "prometheus.yml": "Prometheus: scrapes the servers, loads the alert rules",
    "prometheus-alerts.yml": "alert rules for Prometheus",
    "grafana-dashboard.json": "dashboard for Grafana, to be imported",
}
"""Each file with a line that says what it is."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` what ``chat-gevent deploy`` takes."""
    parser.add_argument(
        "name", nargs="?", choices=FILES, metavar="NAME", help="the file to print; none: list them"
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "example:\n  chat-gevent deploy haproxy.cfg >/etc/haproxy/haproxy.cfg"


def run(arguments: argparse.Namespace) -> int:
    """``chat-gevent deploy``; returns its exit status."""
    if arguments.name is None:
        say(f"in {FOLDER}:")
        for name, line in FILES.items():
            say(f"  {name:<23} {line}")
    else:
        say((FOLDER / arguments.name).read_text(encoding="utf-8").removesuffix("\n"))
    return 0
