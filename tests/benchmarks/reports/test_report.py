"""Reports are written whole or not at all, and anything else than one is refused in one line."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from benchmarks.reports.document import ReportError, json_schema
from benchmarks.reports.report import Report
from tests.benchmarks.made_reports import make


def test_a_report_survives_a_round_trip(tmp_path: Path) -> None:
    """What is loaded equals what was saved, every part of it."""
    report = make({"a": 10, "b": 12}, blocks=2, rich=True)
    report.save(tmp_path / "r.json")
    loaded = Report.load(tmp_path / "r.json")
    assert loaded.to_json() == json.loads(json.dumps(report.to_json()))
    assert [trial.server for trial in loaded.trials_of("b")] == ["b", "b"]


def test_the_schema_is_a_schema() -> None:
    """The schema file itself is valid JSON schema, so that other tools can use it."""
    Draft202012Validator.check_schema(json_schema())


def test_saving_replaces_the_file_in_one_step(tmp_path: Path) -> None:
    """A report that cannot be saved leaves the old file whole and nothing beside it."""
    path = tmp_path / "r.json"
    report = make({"a": 10, "b": 12}, blocks=2)
    report.save(path)
    before = path.read_bytes()
    report.trials[0].values["cpu"] = float("nan")
    with pytest.raises(ReportError, match="not a finite number"):
        report.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_half_a_report(tmp_path: Path) -> None:
    """Another process that loads the file over and over while it is saved always gets a report."""
    path = tmp_path / "r.json"
    report = make({"a": 10, "b": 12}, blocks=30)
    report.save(path)
    read = "\n".join([
        "import sys",
        "from benchmarks.reports.report import Report",
        "print('reading', flush=True)",
        "print(min(len(Report.load(sys.argv[1]).trials) for _ in range(15)))",
    ])  # fmt: skip
    reader = subprocess.Popen(
        [sys.executable, "-c", read, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "reading\n"
    saves = 0
    while reader.poll() is None:
        report.save(path)
        saves += 1
    assert reader.stdout.read() == "60\n"
    reader.stdout.close()
    assert saves > 1


def _text(change: Callable[[dict[str, Any]], Any]) -> str:
    document = copy.deepcopy(make({"a": 10, "b": 12}, blocks=2).to_json())
    change(document)
    return json.dumps(document)


BROKEN: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "the file is empty"),
    "not JSON": ("hello", "it is not JSON"),
    "a configuration file": ('[project]\nname = "x"\n', "it is not JSON"),
    "a binary file": (b"\xff\xfe\x00", "not UTF-8"),
    "another program's JSON": ('{"version": 1}', 'does not say "schema"'),
    "a list": ("[]", 'does not say "schema"'),
    "NaN": ('{"schema": NaN}', "NaN is not a finite number"),
    "too deep": ("[" * 100_000, "nested too deeply"),
    "older": (_text(lambda d: d.update(schema_version=0)), "schema version 0 is older than 1"),
    "newer": (_text(lambda d: d.update(schema_version=2)), "schema version 2 is newer than 1"),
    "a version in words": (_text(lambda d: d.update(schema_version="one")), "not a number"),
    "a part missing": (_text(lambda d: d.pop("trials")), "'trials' is a required property"),
    "a wrong type": (_text(lambda d: d["trials"][0].update(messages="many")), "trials/0/messages"),
    "an unknown part": (_text(lambda d: d["trials"][0].update(colour="red")), "colour"),
    "an unknown server": (_text(lambda d: d["trials"][0].update(server="c")), "'c', which is not among"),
    "an unknown metric": (_text(lambda d: d["trials"][0]["values"].update(x=1)), "metric 'x'"),
    "two of one name": (_text(lambda d: d["servers"][1].update(name="a")), "two servers share a name"),
    "two of one order": (_text(lambda d: d["trials"][1].update(order=0)), "two trials share an order"),
    "infinity": (
        _text(lambda d: None).replace('"seconds": 1.0', '"seconds": 1e999', 1),
        "not a finite number",
    ),
}


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.replace(" ", "-"))
def test_what_is_no_report_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    """The line names the file and what is wrong with it."""
    content, expected = BROKEN[case]
    path = tmp_path / "r.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ReportError) as caught:
        Report.load(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert expected in message
    assert "\n" not in message
    assert len(message) < 400


def test_a_report_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    """Whatever number of bytes is missing from the end, the line says so."""
    path = tmp_path / "r.json"
    make({"a": 10, "b": 12}, blocks=1).save(path)
    whole = path.read_text(encoding="utf-8").rstrip()
    for length in range(0, len(whole) - 1, 97):
        path.write_text(whole[:length], encoding="utf-8")
        with pytest.raises(ReportError, match=r"cut short|file is empty"):
            Report.load(path)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """A missing file and a directory are named with the system's reason."""
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(ReportError, match=f"^{path}: "):
            Report.load(path)
