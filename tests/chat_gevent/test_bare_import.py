"""The pure modules import nothing that does input or output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import chat_gevent

PURE = ("framing", "utf8", "telnet", "conversation", "confirm", "errors", "state")

PROGRAM = """
import builtins, importlib, sys

# What the pure modules may import of the standard library: none of it does input or output.
ALLOWED = {"__future__", "codecs", "collections.abc", "enum", "re", "typing"}

# What nothing may load that they import, not even by way of the standard library.
REFUSED = {"gevent", "greenlet", "socket", "_socket", "select", "selectors", "ssl", "asyncio", "threading",
           "signal", "logging", "subprocess", "multiprocessing", "concurrent", "tempfile", "shutil",
           "pathlib", "queue"}

original = builtins.__import__

def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "").partition(".")[0]
    if importer == "chat_gevent" and name.partition(".")[0] != "chat_gevent" and name not in ALLOWED:
        raise ImportError("refused: " + name)
    return original(name, globals, locals, fromlist, level)

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ImportError("refused: " + name)

builtins.__import__ = guarded
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    module = importlib.import_module(name)
    assert module.__file__.startswith(sys.argv[1]), module.__file__
print(*sorted(name for name in sys.modules if name.split(".")[0] == "chat_gevent"))
"""


def imported(*names: str) -> subprocess.CompletedProcess[str]:
    """Import modules without site-packages, with each module of I/O refused."""
    root = Path(chat_gevent.__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-S", "-I", "-c", PROGRAM, str(root), *names],
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_the_package_itself_imports_nothing() -> None:
    """``import chat_gevent`` loads no other module of it: a program that needs a pure one gets that alone."""
    done = imported("chat_gevent")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["chat_gevent"]


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_import_in_a_bare_interpreter(name: str) -> None:
    """Each imports by itself, and of the package only other pure modules."""
    done = imported(f"chat_gevent.{name}")
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert f"chat_gevent.{name}" in loaded
    assert set(loaded) <= {"chat_gevent", *(f"chat_gevent.{each}" for each in PURE)}


@pytest.mark.parametrize("name", ["engine", "client", "listeners", "server"])
def test_the_refusal_works(name: str) -> None:
    """The same check fails for a module that does input or output, so that it can't pass by accident."""
    done = imported(f"chat_gevent.{name}")
    assert done.returncode != 0
    assert "refused: " in done.stderr
