"""The versions that the package asks for are versions that it is tested with."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["gevent", "locust", "gunicorn"])
def test_the_lowest_version_is_one_that_is_tested(name: str) -> None:
    """The lowest version that is promised is the locked one, to its minor number: older ones failed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        asked += extra
    (lowest,) = {each.partition(">=")[2] for each in asked if each.startswith(f"{name}>=")}
    locked = re.search(rf"^{name}==([\d.]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert locked is not None
    assert locked[1].split(".")[: len(lowest.split("."))] == lowest.split(".")
