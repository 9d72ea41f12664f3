"""The pure modules import nothing that does input or output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import chat_gevent

PROGRAM = """
import importlib.util, sys

REFUSED = {"gevent", "greenlet", "socket", "_socket", "select", "selectors", "ssl", "asyncio", "threading",
           "time", "logging", "os", "chat_gevent"}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in REFUSED:
            raise ImportError("refused: " + name)

for name in list(sys.modules):
    if name in REFUSED:
        del sys.modules[name]
sys.meta_path.insert(0, Refuse())
spec = importlib.util.spec_from_file_location("pure", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules["pure"] = module
spec.loader.exec_module(module)
print(sorted(name for name in vars(module) if not name.startswith("_"))[0])
"""


@pytest.mark.parametrize("name", ["framing", "confirm"])
def test_pure_modules_import_in_a_bare_interpreter(name: str) -> None:
    """``framing`` and ``confirm`` import without site-packages, and with every module of I/O refused."""
    path = Path(chat_gevent.__file__).with_name(f"{name}.py")
    done = subprocess.run(
        [sys.executable, "-S", "-I", "-c", PROGRAM, str(path)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_refusal_works() -> None:
    """The same check fails for a module that does import gevent, so that it can't pass by accident."""
    path = Path(chat_gevent.__file__).with_name("parking.py")
    done = subprocess.run(
        [sys.executable, "-S", "-I", "-c", PROGRAM, str(path)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode != 0
    assert "refused: " in done.stderr
