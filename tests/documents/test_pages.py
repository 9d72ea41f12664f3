"""What the pages name is there: links with their anchors, files, modules, tests and targets of make."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from benchmarks.experiments import EXPERIMENTS
from benchmarks.measure.scenarios import SCENARIOS
from chat_gevent.command.config import FIELDS
from tests.documents.consoles import PAGES, ROOT


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings have where pages are shown on the web."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).strip().replace(" ", "-") for each in headings}


def said_in_code(page: str) -> list[str]:
    """What stands between backticks, and the lines of blocks."""
    text = (ROOT / page).read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    inline = [re.sub(r"\s+", " ", each) for each in re.findall(r"`([^`]+)`", rest)]
    return [*inline, *(line for block in blocks for line in block.splitlines())]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Each link to a file leads to one, and each anchor to a heading."""
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_commands_name_what_there_is(page: str) -> None:
    """Modules, tests, scenarios, experiments, targets of make, and options of the server."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for said in said_in_code(page):
        for module in re.findall(r"python -m ((?:benchmarks|loadtest|chat_gevent)[\w.]*)", said):
            assert importlib.util.find_spec(module), said
        for path in re.findall(r"(?:^|\s)(tests/[\w/]+(?:\.py)?)", said):
            assert (ROOT / path).exists(), said
        for path, word in re.findall(r"pytest (tests/\S+) -k (\w+)", said):
            assert re.search(rf"def test_\w*{word}", (ROOT / path).read_text()), said
        for name in re.findall(r"benchmarks experiment ([a-z][\w-]+)", said):
            assert name in EXPERIMENTS, said
        for name in re.findall(r"benchmarks run ([a-z]+)", said):
            assert name in SCENARIOS, said
        for name in re.findall(r"^(?:\$ )?make (\w+)", said):
            assert name in targets, said
        if "chat-gevent serve" in said:
            for name in re.findall(r" --([a-z][\w-]+)", said):
                known = name.replace("-", "_").removeprefix("no_") in FIELDS
                assert known or name in ("config", "print-config", "help", "help-all"), said
