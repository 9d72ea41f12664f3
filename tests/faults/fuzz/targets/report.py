"""A report file is read, or refused with one line; what was read is written as a report that is the same.

Half of the inputs are changes to a report that is right, because no search would write one from nothing: each
names a place in it, by counting, and what is to be there.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.reports.document import ReportError
from benchmarks.reports.report import Report
from tests.benchmarks.made_reports import make
from tests.faults.fuzz.choices import Choices

WHOLE = make({"a": 10.0, "b": 12.0}, blocks=2, rich=True).to_json()
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where files are written without a disk: each report is synchronised with it."""


def check(data: bytes) -> None:
    """Raise AssertionError where a report is neither read nor refused as it should be."""
    chosen = Choices(data)
    content = json.dumps(_changed(chosen)).encode() if chosen.byte() & 1 else chosen.rest()
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder) / "report.json"
        path.write_bytes(content)
        try:
            report = Report.load(path)
        except ReportError as error:
            assert "\n" not in str(error), f"{error!s} is not one line"
            assert str(error).startswith(str(path))
            return
        again = path.with_name("again.json")
        report.save(again)
        assert Report.load(again) == report


def _changed(chosen: Choices) -> Any:
    """The report with values of the input at some of its places."""
    document = json.loads(json.dumps(WHOLE))
    for _ in range(1 + chosen.byte() % 3):
        places = list(_places(document))
        holder, key = places[(chosen.byte() * 256 + chosen.byte()) % len(places)]
        new: Any = chosen.of((None, True, -1, 0, 1e300, "", "chat_gevent", [], {}, [[]], {"a": 1}, 2**70))
        if chosen.byte() & 1:
            del holder[key]
        else:
            holder[key] = new
        if not document:
            break
    return document


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, each in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(each, dict | list):
            yield from _places(each)
