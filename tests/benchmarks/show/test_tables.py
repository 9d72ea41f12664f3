"""Tables in documents agree with the reports they are made from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.cli import main
from benchmarks.reports.document import ReportError
from benchmarks.reports.report import Fired, Report
from benchmarks.show import tables
from tests.benchmarks.made_reports import make

DOCUMENT = "# Title\n\n<!-- table: confirm -->\nold\n<!-- end table -->\n\nafter\n"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A directory with one report and a document beside it."""
    make({"base": 10, "slow": 20, "fast": 5}).save(tmp_path / "confirm.json")
    (tmp_path / "README.md").write_text(DOCUMENT)
    return tmp_path


@pytest.mark.parametrize("document", tables.documents(), ids=lambda path: path.parent.name + "-" + path.name)
def test_the_projects_tables_agree_with_its_reports(document: Path) -> None:
    """No table of a README differs from what ``python -m benchmarks tables`` writes."""
    assert not tables.update(document, tables.RESULTS, write=False), "run: python -m benchmarks tables"


def test_a_stale_table_is_found_and_written(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--check names the stale document and exits with 1; writing mends it and leaves the rest as it was."""
    document = results / "README.md"
    arguments = ["tables", str(document), "--results", str(results)]
    assert main([*arguments, "--check"]) == 1
    assert document.read_text() == DOCUMENT
    assert f"{document}: stale" in capsys.readouterr().out
    assert main(arguments) == 0
    assert main([*arguments, "--check"]) == 0
    written = document.read_text()
    assert written.startswith("# Title\n\n<!-- table: confirm -->\n| server |")
    assert written.endswith("<!-- end table -->\n\nafter\n")


def test_a_table_is_ordered_and_has_ratios(results: Path) -> None:
    """Cheapest first, the baseline's ratio 1, the others' with their intervals, and where it was measured."""
    lines = tables.table(Report.load(results / "confirm.json")).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["fast", "base", "slow"]
    assert lines[3].endswith(" | 1 |  |")
    assert re.search(r"\| (1\.9|2\.0)\d+ \(1\.\d+–2\.\d+\) \| slower \|$", lines[4])
    assert "10 blocks" in lines[-1]
    assert "A processor" in lines[-1]


def test_a_table_of_some_servers(results: Path) -> None:
    """Only those that are named have rows; the ratios are those of the whole run."""
    report = Report.load(results / "confirm.json")
    whole = tables.table(report).splitlines()
    document = results / "README.md"
    document.write_text(DOCUMENT.replace("confirm -->", "confirm of slow, base -->"))
    assert tables.update(document, results, write=True)
    some = document.read_text().splitlines()
    assert some[3:7] == [*whole[:2], whole[3], whole[4]]
    assert not tables.update(document, results, write=False)
    document.write_text(DOCUMENT.replace("confirm -->", "confirm of slow, nobody -->"))
    with pytest.raises(ReportError, match="nobody: not among base, slow, fast"):
        tables.update(document, results, write=True)


def test_ratios_are_to_this_projects_server_where_it_was_measured() -> None:
    """Whichever was named first; and the line below says so."""
    lines = tables.table(make({"other": 10, "chat_gevent": 5})).splitlines()
    assert lines[2].startswith("| chat_gevent ")
    assert lines[2].endswith(" | 1 |  |")
    assert lines[-1].split("; ")[2].startswith("ratios of ")
    assert " to chat_gevent" in lines[-1]


def test_a_rate_of_an_unsaturated_server_is_a_bound() -> None:
    """One trial in ten without saturation makes the rate a lower bound, which the line below explains."""
    report = make({"base": 10, "fast": 5})
    report.trials_of("fast")[3].saturated = False
    report.warnings += [Fired(check="not-saturated", message="m", server="fast", block=3)] * 2
    report.warnings.append(Fired(check="frequency", message="m"))
    lines = tables.table(report).splitlines()
    fast, base = (line.split("|") for line in lines[2:4])
    assert (fast[1].strip(), base[1].strip()) == ("fast", "base")
    assert re.fullmatch(r" ≥ [\d,]+/s ", fast[3])
    assert re.fullmatch(r" [\d,]+/s ", base[3])
    assert "≥" not in fast[2]
    assert "; ≥: the server was not saturated in every trial, and may do more" in lines[-1]
    assert lines[-1].endswith("; checks that fired in 20 trials: not-saturated (2), frequency (1).")
    sound = tables.table(make({"base": 10, "fast": 5}))
    assert "≥" not in sound
    assert "checks" not in sound


def test_markers_that_lead_nowhere(results: Path) -> None:
    """A table whose report is missing and a marker without an end are errors; an empty place may wait."""
    document = results / "README.md"
    document.write_text(DOCUMENT.replace("confirm", "nowhere"))
    with pytest.raises(ReportError, match=r"nowhere\.json: No such file"):
        tables.update(document, results, write=True)
    document.write_text(DOCUMENT.replace("confirm", "nowhere").replace("old\n", ""))
    assert not tables.update(document, results, write=True)
    document.write_text(DOCUMENT.replace("<!-- end table -->", ""))
    with pytest.raises(ReportError, match="no <!-- end table -->"):
        tables.update(document, results, write=True)
