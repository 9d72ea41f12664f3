"""The process that serves: its signals, and handlers whose import is a mistake."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import command
from tests.operate import ServerProcess, exchange, until

Operate = Callable[..., ServerProcess]


def test_signals_that_mean_nothing_end_nothing(operate: Operate) -> None:
    """SIGUSR1, SIGUSR2 and SIGHUP leave a line in the log, and the clients where they are."""
    server = operate("--port", "0")
    with server.connect() as client:
        for name in ("SIGUSR1", "SIGUSR2", "SIGHUP"):
            server.process.send_signal(signal.Signals[name])
            server.logged(f"INFO {name}: ")
            exchange(client, b"hello")
    assert server.stop() == 0


def test_a_terminal_that_is_gone_drains(tmp_path: Path) -> None:
    """The controlling terminal closes: the server is not left behind with nobody to stop it."""
    log = tmp_path / "log"
    pid, terminal = pty.fork()
    if pid == 0:
        fd = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(fd, 2)
        started = command("serve", "--port", "0")
        os.execv(started[0], started)
    try:
        until(lambda: log.exists() and "serving" in log.read_text())
        assert b"ready " in os.read(terminal, 1000)
        os.close(terminal)
        found = until(lambda: [each for each in [os.waitpid(pid, os.WNOHANG)] if each[0]])
        assert os.waitstatus_to_exitcode(found[0][1]) == 0
        assert "the controlling terminal is gone" in log.read_text()
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise


@pytest.mark.parametrize("call", ["serve_forever", "run"])
def test_an_import_that_serves_is_refused(tmp_path: Path, call: str) -> None:
    """The module lacks the guard: a line that says so, status 2, instead of a server that never is ready."""
    (tmp_path / "shout.py").write_text(
        "from chat_gevent import ChatServer\n"
        "def shout(message, client):\n"
        "    return message.upper()\n"
        "with ChatServer(('127.0.0.1', 0), shout) as server:\n"
        "    server.start()\n"
        f"    server.{call}()\n"
    )
    done = subprocess.run(
        command("serve", "--port", "0", "--handler", "shout:shout"),
        cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "importing its module runs a server" in done.stderr
    assert "if __name__ == '__main__':" in done.stderr


def test_an_import_that_does_not_return_is_told(operate: Operate, tmp_path: Path) -> None:
    """After a few seconds standard error says what everybody waits for."""
    (tmp_path / "slow.py").write_text("import threading\nthreading.Event().wait()\n")
    server = operate("--port", "0", "--handler", "slow:f", ready=False, cwd=tmp_path)
    server.logged("importing slow has not returned for 5 s")


def test_a_removed_working_directory(tmp_path: Path) -> None:
    """It serves; only a handler can't be looked for there."""
    gone = tmp_path / "gone"
    gone.mkdir()
    program = (
        "import os, sys; os.chdir(sys.argv[1]); os.rmdir(sys.argv[1]); os.execv(sys.argv[2], sys.argv[2:])"
    )
    arguments = command("serve", "--port", "0", "--handler", "no_such:f")
    done = subprocess.run(
        [sys.executable, "-c", program, str(gone), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "chat-gevent serve: error: handler no_such:f: No module named 'no_such'\n"
