"""The short help of the load test: it fits on a screen, and says what there is."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from loadtest.usual import HELP

pytestmark = pytest.mark.timeout(250)


def shown(option: str) -> str:
    """What the command prints for ``option``."""
    return subprocess.run(
        [sys.executable, "-m", "loadtest", option], capture_output=True, text=True, check=True, timeout=100
    ).stdout


def test_it_is_what_help_shows_and_fits_on_a_screen() -> None:
    """40 lines of 80 columns, with an example."""
    assert shown("--help") == HELP
    assert len(HELP.splitlines()) <= 40
    assert max(map(len, HELP.splitlines())) <= 80
    assert "\n  python -m loadtest --host tcp://127.0.0.1:12345 " in HELP


def test_each_option_of_it_is_one_of_all() -> None:
    """Each option that it names is in ``--help-all``; defaults of ours are those that count."""
    everything = shown("--help-all")
    named = re.findall(r"^  (?:-\w, )?(--[a-z-]+)", HELP, re.MULTILINE)
    assert len(named) > 15
    for option in named:
        assert re.search(rf"{option}\b", everything), option
    program = "import json, loadtest.tcp_user, loadtest.run.options as o; print(json.dumps(o.own_options()))"
    defaults = json.loads(subprocess.check_output([sys.executable, "-c", program], text=True, timeout=100))
    said = " ".join(HELP.split())
    assert f"length:BYTES (default: {defaults['framing']})" in said
    assert f"of a message (default: {defaults['message_size']})" in said
    assert f"next message (default: {defaults['think_time']})" in said
    assert f"soak (default: {defaults['shape']})" in said
