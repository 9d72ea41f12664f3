"""The commands that make the container image, run here on a wheel of this version."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from chat_gevent import __version__
from chat_gevent.command.deploy import FILES, FOLDER
from tests.chat_gevent.deploy.files import adapted, checked

ROOT = Path(__file__).parents[3]


@pytest.mark.timeout(300)
def test_the_build_of_the_image(tmp_path: Path) -> None:
    """The wheel is made as the file's head says, and what the file runs makes a ``chat-gevent`` of it, which
    has the deploy files. What the wheel needs is this Python's: nothing is downloaded."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    head = re.search(
        r"^#   pip (wheel --no-deps) --wheel-dir dist ", (FOLDER / "Containerfile").read_text(), re.MULTILINE
    )
    assert head is not None
    checked(*pip, *head[1].split(), "--no-build-isolation", "--wheel-dir", tmp_path, ROOT)
    [wheel] = tmp_path.glob("chat_gevent-*.whl")
    assert __version__ in wheel.name
    text = adapted("Containerfile", {"/tmp/": f"{tmp_path}/", "/opt/": f"{tmp_path}/"}).replace("\\\n", " ")
    [run] = re.findall(r"^RUN (.*)$", text, re.MULTILINE)
    environment = {
        **os.environ,
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/bash", "-e", "-o", "pipefail", "-c", run],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    made = tmp_path / "chat-gevent" / "bin" / "chat-gevent"
    environment["PYTHONPATH"] = sysconfig.get_path("purelib")
    for name in FILES:
        shown = subprocess.run(
            [str(made), "deploy", name],
            env=environment,
            capture_output=True,
            timeout=30,
            check=True,
            cwd=tmp_path,
        )
        assert shown.stdout == (FOLDER / name).read_bytes()
    listed = subprocess.run(
        [str(made), "deploy"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=tmp_path,
    )
    assert listed.stdout.startswith(f"in {tmp_path}/chat-gevent/lib/")
