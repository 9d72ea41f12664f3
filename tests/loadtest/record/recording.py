"""Running the recorder as its own process, in front of a server."""

from __future__ import annotations

import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tests.loadtest.locust_command import ROOT


class Recording:
    """A recorder that listens on ``port`` and will write ``output``; a context manager."""

    def __init__(self, folder: Path, to: int, *options: str) -> None:
        self.output = folder / "locustfile.py"
        command = [sys.executable, "-m", "loadtest", "record", "--listen", "127.0.0.1:0"]
        command += ["--to", f"127.0.0.1:{to}", "--output", str(self.output), *options]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        assert self._process.stderr is not None
        line = ""
        while not (match := re.match(r"recording on 127\.0\.0\.1:(\d+)", line)):
            line = self._process.stderr.readline()
            assert line, f"the recorder ended with {self._process.wait()}"
        self.port = int(match[1])

    def end(self, signal_number: int) -> tuple[int, str]:
        """Send a signal; the exit status, and what was said after the start."""
        self._process.send_signal(signal_number)
        _, said = self._process.communicate(timeout=50)
        return self._process.returncode, said

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


@contextmanager
def lines_server() -> Iterator[int]:
    """A server that answers each line in capitals; gives its port."""

    class Capitals(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(line.upper())

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

        def handle_error(self, *_: Any) -> None:
            """A client that was reset is no error of the server."""

    with Server(("127.0.0.1", 0), Capitals) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
