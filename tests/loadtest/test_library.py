"""A run from Python, as the README has it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from gevent import subprocess as gevent_subprocess

from tests.loadtest import servers
from tests.loadtest.locust_command import LIMIT, ROOT
from tests.loadtest.servers import ScriptedServer
from tests.loadtest.test_readme import locustfile, store

CHECK = """
assert done["errors"] == 0
assert 500 <= done.of("GET", "rate") * 5 <= 1500, done.of("GET", "rate")  # the schedule has 1,000
assert done.broken == []
assert done.outcome.report().complete
from loadtest.errors import OptionsError
try:
    run(StoreUser, host="tcp://127.0.0.1:7000", message_size=5)
except OptionsError as error:
    print(error)
"""


def python(*arguments: str) -> str:
    """Run a program in Python, while the server of the test goes on; what it printed. It must succeed."""
    process = gevent_subprocess.Popen(
        [sys.executable, "-W", "ignore", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, output
    return str(output)


@pytest.mark.timeout(200)
def test_a_load_test_is_three_lines_of_python(tmp_path: Path) -> None:
    """Run, and ask what was measured; an option that the class does not use is an error."""
    text = (ROOT / "loadtest" / "README.md").read_text()
    code = re.search(r"```python\n(from loadtest.library.*?)```", text, re.DOTALL)
    assert code is not None
    assert len([line for line in code[1].splitlines() if line.strip()]) == 3
    with ScriptedServer(store) as server:
        first, rest = code[1].replace("tcp://127.0.0.1:7000", server.host).split("\n", 1)
        path = tmp_path / "test.py"
        path.write_text("\n".join([first, locustfile(tmp_path).read_text(), rest, CHECK]))
        output = python(str(path))
    assert "TCP requests in milliseconds" in output
    assert output.splitlines()[-1] == "--message-size: StoreUser does not use it"


AGAIN = """
import gc
import os
from pathlib import Path
from loadtest.library import run
from loadtest.tcp_user import ConfirmUser

def kept() -> tuple[int, int]:
    files = [each for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    timers = [each for each in files if os.path.realpath(each).endswith("[timerfd]")]
    return len(timers), len(gc.callbacks)

found = []
for _ in range(3):
    done = run(ConfirmUser, host="{host}", users=2, seconds=1, rate="50")
    assert done["errors"] == 0 and done.messages.passed > 0
    found.append(kept())
print(found)
assert found[0] == found[1] == found[2]
"""


@pytest.mark.timeout(200)
def test_runs_of_one_process_leave_nothing_open() -> None:
    """Each paced run has a timer of the kernel's and a callback of the garbage collector's, and ends both."""
    with ScriptedServer(servers.confirm) as server:
        python("-c", AGAIN.format(host=server.host))
