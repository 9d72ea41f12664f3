"""The fuzz targets hold for every input that is kept, and for a few thousand that atheris makes of them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import require
from tests.faults.fuzz import TARGETS, corpus, replay

SECONDS = {"report": 1, "recorder": 1, "admin": 1, "settings": 1}
"""Those that do more for each input run for so long at most; the others make all their runs."""


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_kept(target: str) -> None:
    """Each input of the corpus holds; among them are all that have ever failed."""
    inputs = corpus(target)
    assert len(inputs) > 10
    replay(target, inputs)


@pytest.mark.parametrize("target", TARGETS)
def test_some_new_ones(target: str, tmp_path: Path) -> None:
    """A short search finds nothing; its seed is fixed, so that it is the same search each time."""
    require(importlib.util.find_spec("atheris"), "atheris, of the extra 'proof'")
    options = [
        "--runs",
        "5000",
        "--seed",
        "7",
        "--seconds",
        str(SECONDS.get(target, 20)),
        "--artifacts",
        str(tmp_path),
    ]
    command = [sys.executable, "-m", "tests.faults.fuzz", target, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done " in done.stderr, done.stderr[-3000:]
