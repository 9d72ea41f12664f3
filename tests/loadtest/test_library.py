"""A run from Python, as the README has it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from gevent import subprocess as gevent_subprocess

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
        process = gevent_subprocess.Popen(
            [sys.executable, "-W", "ignore", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        )
        output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, output
    assert "TCP requests in milliseconds" in output
    assert output.splitlines()[-1] == "--message-size: StoreUser does not use it"
