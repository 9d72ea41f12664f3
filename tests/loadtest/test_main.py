"""``python -m loadtest`` where what it needs is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import runpy, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "locust":
            raise ModuleNotFoundError("No module named 'locust'", name="locust")

sys.meta_path.insert(0, Missing())
sys.argv[1:] = ["--help"]
runpy.run_module("loadtest", run_name="__main__", alter_sys=True)
"""


@pytest.mark.timeout(150)
def test_without_the_extra() -> None:
    """One line that says what to install, and status 1."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert done.stderr == "loadtest: locust is not installed: pip install 'chat-gevent[loadtest]'\n"
