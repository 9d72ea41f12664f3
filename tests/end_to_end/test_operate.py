"""The whole server under load, operated as an operator does."""

from __future__ import annotations

import json
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.operate import Running

FLOOD = Path(__file__).parent.parent / "flood.py"


@pytest.mark.parametrize("park_after", ["0", "never"])
def test_sigterm_under_2000_clients_that_send_flat_out(
    operate: Callable[..., Running], park_after: str
) -> None:
    """The server's count of messages equals the confirmations that arrived, every client is told and sees the
    end of the stream, none a reset; exit status 0."""
    server = operate("--port", "0", "--drain-timeout", "4", "--park-after", park_after)
    host, port = server.address()
    flood = subprocess.Popen(
        [sys.executable, str(FLOOD), host, str(port), "2000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert flood.stdout is not None
        assert select.select([flood.stdout], [], [], 40)[0]
        assert flood.stdout.readline() == b"flooding\n"
        server.process.send_signal(signal.SIGTERM)
        out, err = flood.communicate(timeout=30)
    finally:
        if flood.poll() is None:
            flood.kill()
            flood.communicate()
    assert not err
    seen = json.loads(out)
    assert seen["ends"] == {"told": 2000}
    assert server.process.wait(20) == 0
    stopped = re.search(r"stopped: (\d+) messages answered, 0 clients cut off", server.log)
    assert stopped
    assert int(stopped[1]) == seen["confirmed"] > 2000
