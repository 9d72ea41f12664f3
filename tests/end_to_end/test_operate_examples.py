"""What the documents show for people to paste works as it stands."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path

from chat_gevent.command.config import FIELDS, load
from tests.operate import ServerProcess, exchange

ROOT = Path(__file__).parent.parent.parent
OPERATING = ROOT / "chat_gevent" / "OPERATING.md"


def test_the_first_command(operate: Callable[..., ServerProcess]) -> None:
    """It serves both kinds of address, and the ready line is the one that is shown."""
    text = OPERATING.read_text()
    [arguments, shown] = re.search(r"\$ chat-gevent serve (.*)\n(ready .*)\n", text).groups()  # type: ignore[union-attr]
    server = operate(*arguments.replace("12345", "0").replace("9100", "0").split())
    assert re.sub(r"\d+$", "12345", f"ready {server.urls[0]}") == shown
    port = server.address()[1]
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, port), 30) as client:
            exchange(client, b"hello")
    assert server.ask("/readyz")[0] == 200


def test_what_operating_says_of_settings() -> None:
    """Every option and setting that the page names exists, and the limits' defaults are as it says."""
    text = OPERATING.read_text().partition("## What was measured")[0]
    own = {"--help", "--help-all", "--print-config", "--config", "--reconnect"}
    own |= {"--reuse-port", "--certfile", "--keyfile", "--ca-certs", "--cert-reqs"}  # gunicorn's, and so on
    own |= {"--max-requests", "--threads", "--access-logfile", "--proxy-allow-from", "--proxy-protocol"}
    own |= {"--ciphers", "--ssl-version", "--worker-connections"}
    for name in set(re.findall(r"--[a-z][a-z0-9-]+", text)) - own:
        assert name.removeprefix("--").replace("-", "_") in FIELDS, name
    for name in re.findall(r"CHAT_GEVENT_([A-Z_]+)=", text):
        assert name.lower() in FIELDS
    defaults = load({}, {}).settings
    assert "| `max_message_bytes` | 64 KiB |" in text
    assert defaults.max_message_bytes == 65536
    for name, shown in re.findall(r"\| `(\w+_timeout)` \| (\d+ \w+) ", text):
        amount, unit = shown.split()
        assert getattr(defaults, name) == int(amount) * {"h": 3600, "s": 1}[unit], name
    assert (defaults.drain_timeout, defaults.linger_timeout) == (30, 2)


def test_the_metrics_that_operating_names_exist(
    operate: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """Each metric of the page is in a scrape."""
    (tmp_path / "mine.py").write_text("def answer(text, client):\n    return text\n")
    server = operate("--port", "0", "--admin", ":0", "--handler", "mine:answer", cwd=tmp_path)
    _, scrape = server.ask("/metrics")
    rows = [line for line in OPERATING.read_text().splitlines() if line.startswith("| `chat_gevent_")]
    assert len(rows) > 5
    for row in rows:
        for name in re.findall(r"`(?:chat_gevent)?(_\w+)", row.split("|")[1]):
            assert f"# TYPE chat_gevent{name} " in scrape, name
