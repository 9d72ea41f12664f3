"""The API pages: they are built without a warning, their links lead somewhere, and their examples run."""

from __future__ import annotations

import doctest
import importlib
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Final

import pytest

import chat_gevent
from chat_gevent import testing
from tests.documents.api_pages import MODULES, problems

MONKEYS: Final = {"loadtest.library", "loadtest.tcp_user", "loadtest.steps", "loadtest.conversation"}
"""Modules that have Locust patch the standard library, which is not for a process with other tests in it."""

SCRIPT = Path(__file__).with_name("api_pages.py")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the pages, made as ``make docs`` makes them."""
    folder = tmp_path_factory.mktemp("pages")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.timeout(300)
def test_what_is_public_has_a_page(pages: Path) -> None:
    """Each public name of the package is on its page; what is internal has none."""
    text = (pages / "chat_gevent.html").read_text()
    for name in chat_gevent.__all__:
        assert f'id="{name}"' in text, name
    assert (pages / "loadtest" / "tcp_user.html").exists()
    assert not (pages / "chat_gevent" / "engine.html").exists()
    assert not (pages / "chat_gevent" / "command").exists()


def test_broken_links_are_found(tmp_path: Path) -> None:
    """A page that is not there, a place that is not there, and a role that nobody has turned into a link."""
    page = '<a href="no.html">a</a> <a href="#no">b</a> <a href="#yes" id="yes">c</a> :class:`Nothing`'
    (tmp_path / "index.html").write_text(page)
    assert problems(tmp_path) == [
        "index.html: no.html leads to no page",
        "index.html: #no leads to no place on its page",
        "index.html: :class:`Nothing` is left",
    ]


def test_the_examples_of_docstrings_run() -> None:
    """What stands behind ``>>>`` in a public module gives what stands below it."""
    tried = 0
    for name in MODULES:
        if name not in MONKEYS:
            failed, count = doctest.testmod(importlib.import_module(name))
            assert not failed, name
            tried += count
    assert tried >= 5


def test_the_example_of_a_test_is_one(tmp_path: Path) -> None:
    """Both tests of the docstring of ``chat_gevent.testing`` pass when they are copied into a file."""
    assert testing.__doc__
    for number, block in enumerate(re.findall(r"::\n\n((?:    .*\n|\n)+)", testing.__doc__)):
        (tmp_path / f"test_copied{number}.py").write_text(textwrap.dedent(block))
    (tmp_path / "conftest.py").write_text("from chat_gevent.testing import chat_server\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=150, check=False)
    assert "2 passed" in done.stdout, done.stdout
