"""The command as a whole: its standard streams, an early interrupt, and the programs that it starts."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import command
from tests.operate import ServerProcess, exchange

Operate = Callable[..., ServerProcess]


def shell(line: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command by a shell, ``$@`` standing for it and its arguments."""
    return subprocess.run(
        ["sh", "-c", line, "sh", *command(*arguments)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_server_without_standard_streams_serves(closed: str, tmp_path: Path) -> None:
    """Descriptors that are closed are no reason to fail, and no socket takes their places."""
    path = tmp_path / "chat.sock"
    server = subprocess.Popen(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *command("serve", "--listen", f"unix://{path}")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(30)
        end = time.monotonic() + 30
        while client.connect_ex(str(path)):
            assert time.monotonic() < end
            time.sleep(0.01)
        with client:
            exchange(client, b"hello")
            for fd in range(3):
                assert "socket" not in str(Path(f"/proc/{server.pid}/fd/{fd}").readlink())
        server.send_signal(signal.SIGTERM)
        assert b"Traceback" not in server.communicate(timeout=30)[1]
        assert server.returncode == 0
    finally:
        server.kill()
        server.wait()


def test_a_full_output_is_told(operate: Operate) -> None:
    """One line that names the output, not the network, and status 1."""
    server = operate("--port", "0")
    for arguments in (
        ("client", "--port", str(server.port), "hello"),
        ("limits", "--json"),
        ("--help",),
        ("serve", "--print-config"),
    ):
        done = shell('"$@" >/dev/full', *arguments)
        assert done.returncode == 1
        assert done.stderr == "chat-gevent: can't write the output: No space left on device\n"


def test_a_closed_input_is_an_end_of_input(operate: Operate) -> None:
    """``client <&-`` has nothing to send."""
    server = operate("--port", "0")
    done = shell('"$@" <&-', "client", "--port", str(server.port))
    assert (done.returncode, done.stderr) == (0, "")


ENTRY = ("command/__init__.py", "command/main.py")


@pytest.mark.timeout(180)  # a start takes seconds where the machine is busy
def test_an_early_interrupt_shows_nothing_of_this_program() -> None:
    """SIGINT at any moment of the start: 130, or what the interpreter itself makes of one before us."""
    ended = []
    moments = 12
    began = time.monotonic()
    with starting() as process:
        assert process.stdout is not None
        process.stdout.readline()
    whole = time.monotonic() - began  # of a start; the moments are spread over it
    for number in range(moments):
        with starting() as process:
            time.sleep(whole * number / moments)  # the moment is what is tested
            process.send_signal(signal.SIGINT)
            error = process.communicate(timeout=30)[1]
        # Before main() has run nothing of ours can have asked for the signal: only imports that lead to it.
        frames = re.findall(r'/chat_gevent/(\S+)", line \d+, in (\S+)', error)
        assert set(frames) <= {(file, "<module>") for file in ("__init__.py", *ENTRY)}, error
        ended.append(process.returncode)
    assert set(ended) <= {130, 0, 1, -signal.SIGINT}


@contextmanager
def starting() -> Iterator[subprocess.Popen[str]]:
    """A server that has only just been started; it is killed in the end."""
    process = subprocess.Popen(
        command("serve", "--port", "0"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("module", ["gevent", "slow"])
def test_an_interrupt_ends_a_start_whose_imports_would_lose_it(module: str, tmp_path: Path) -> None:
    """An extension module's import drops a KeyboardInterrupt: status 130 all the same, no traceback."""
    (tmp_path / f"{module}.py").write_text(
        "import time\n"
        "print('importing', flush=True)\n"
        "try:\n"
        "    time.sleep(60)\n"
        "except BaseException:\n"
        "    pass\n"
        "handle = str\n"
    )
    process = subprocess.Popen(
        command("serve", "--port", "0", "--handler", "slow:handle"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "")
        assert process.returncode == 130
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bench", "list"], "pipelined"),
        (["loadtest", "--version"], "locust "),
        (["compare", "--help"], "REPORT"),
    ],
)
def test_programs_are_found_beside_folders_of_their_names(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    """A folder of the user's that is named as ours hides nothing."""
    for name in ("benchmarks", "loadtest"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('hidden')\n")
    for started in (command(*arguments), [sys.executable, "-P", "-m", "chat_gevent", *arguments]):
        done = subprocess.run(started, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
        assert done.returncode == 0, done.stderr
        assert said in done.stdout


def test_a_missing_extra_is_one_line(tmp_path: Path) -> None:
    """It names the extra to install; status 1."""
    blocked = "import sys; sys.modules['locust'] = None; from chat_gevent.command.main import main; "
    program = blocked + "sys.exit(main(['loadtest']))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    problem = "locust is not installed: pip install 'chat-gevent[loadtest]'"
    assert done.stderr == f"chat-gevent loadtest: error: {problem}\n"
