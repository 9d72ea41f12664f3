"""Reports that somebody else made: what they say commands neither a terminal nor whatever else shows them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cli import main
from benchmarks.reports.plain import plain
from tests.benchmarks.made_reports import make

EVIL = "\x1b]0;owned\x07\x1b[2J\u202eevil\r\n::error::x [/red]<script>|\x9b31m"


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A report with something evil wherever a text of one's own may stand."""
    made: dict[str, Any] = make({"a": 10.0, "b": 12.0}, blocks=3, rich=True).to_json()
    for server in made["servers"]:
        server |= {"name": server["name"] + EVIL, "version": EVIL, "command": [EVIL]}
    for trial in made["trials"]:
        trial |= {"server": trial["server"] + EVIL, "errors": {EVIL: 1}}
    for fired in made["warnings"]:
        fired |= {"message": EVIL, "server": None}
    for metric in made["metrics"].values():
        metric |= {"title": metric["title"] + EVIL, "unit": EVIL}
    made["environment"] |= {"kernel": EVIL, EVIL: EVIL}
    made["parameters"] |= {EVIL: EVIL}
    made |= {"scenario": EVIL, "id": EVIL}
    made["revision"]["commit"] = EVIL
    file = tmp_path / "report.json"
    file.write_text(json.dumps(made))
    return file


@pytest.mark.parametrize(
    "words",
    [
        ["show", "{}"],
        ["show", "{}", "--verbose"],
        ["compare", "{}"],
        ["compare", "{}", "{}"],
        ["compare", "{}", "{}", "--markdown", "-"],
        ["history", "{folder}", "--github"],
    ],
)
def test_nothing_commands_the_terminal(
    words: list[str], report: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every character that is shown is printable, no line is begun by a report, and no markup is taken."""
    main([word.format(report, folder=report.parent) for word in words])
    shown, said = capfd.readouterr()
    assert "owned" in shown
    assert "Traceback" not in said
    for line in (*shown.split("\n"), *said.split("\n")):
        assert line.isprintable() or re.fullmatch(r"[^\S\n]*", line), ascii(line)
        assert not line.startswith("::error::x")


def test_nothing_commands_the_page(report: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """HTML has it as text, and without control characters."""
    page = report.with_name("page.html")
    main(["show", str(report), "--html", str(page)])
    capfd.readouterr()
    text = page.read_text()
    assert "<script>|" not in text
    assert "owned" in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


def test_what_is_refused_is_said_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The complaint about a key that is not to be there does not repeat it as it is."""
    made = make({"a": 10.0}, blocks=1).to_json()
    made["trials"][0]["values"] = {EVIL: "x"}
    file = tmp_path / "report.json"
    file.write_text(json.dumps(made))
    assert main(["show", str(file)]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.isprintable()


def test_what_is_harmless_stays() -> None:
    """Letters, units and spaces of any language are left alone; what is written out is told apart."""
    for text in ("µs, 95 %, 漢字\u00a0x", "a\\b"):
        assert plain(text) == text
    assert plain({"a\n": ["\x1b", 1, None]}) == {"a\\n": ["\\x1b", 1, None]}
