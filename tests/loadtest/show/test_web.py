"""Locust's web page in a real Chromium: the form has the options, the tab fills, reports download."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from benchmarks.reports.report import Report
from tests.browser import PICTURES, chromium
from tests.loadtest.locust_command import LOCUSTFILE, PATIENT, ROOT
from tests.loadtest.ports import reserved_port

pytestmark = pytest.mark.timeout(300)

LIMIT = 100
"""Seconds within which what a test waits for comes, on a machine that is busy with other things."""


@contextmanager
def server() -> Iterator[str]:
    """A server to load; gives its host."""
    command = [sys.executable, "-m", "benchmarks.measure.servers.gevent_plain"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().removeprefix("ready ").strip()
        finally:
            process.kill()


@contextmanager
def locust(host: str, *options: str) -> Iterator[str]:
    """Locust with its page; gives the page's address."""
    with ExitStack() as ports:
        port, master = ports.enter_context(reserved_port()), ports.enter_context(reserved_port())
        command = [*PATIENT, "-f", str(LOCUSTFILE), "--host", host]
        command += ["--web-host", "127.0.0.1", "--web-port", str(port)]
        if "--processes" in options:
            command += ["--master-bind-port", str(master), "--master-port", str(master)]
        with page_of([*command, *options], f"http://127.0.0.1:{port}") as page:
            yield page


@contextmanager
def page_of(command: list[str], page: str) -> Iterator[str]:
    """Run ``command`` and give the address of its page once that answers."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            end = time.monotonic() + LIMIT
            while True:
                try:
                    urlopen(page, timeout=30).close()
                    break
                except URLError:
                    assert process.poll() is None, process.stderr.read() if process.stderr else ""
                    assert time.monotonic() < end
                    time.sleep(0.1)
            yield page
        finally:
            process.terminate()
            process.communicate(timeout=60)


def ask(page: str, path: str) -> Any:
    """What the page's server answers, as JSON."""
    with urlopen(f"{page}/{path}", timeout=30) as answer:
        return json.load(answer)


def rows(page: str) -> list[dict[str, str]]:
    """The rows of our tab."""
    (table,) = [table for table in ask(page, "stats/requests")["extended_stats"] if table["key"] == "tcp"]
    found: list[dict[str, str]] = table["data"]
    return found


def on_schedule(page: str) -> tuple[int, int]:
    """How many messages were intended and how many answered, by the tab."""
    notes = [row["note"] for row in rows(page) if row["part"] == "Schedule"]
    found = re.search(
        r"intended ([\d,]+), answered ([\d,]+)", notes[0] if notes else "intended 0, answered 0"
    )
    assert found is not None
    return int(found[1].replace(",", "")), int(found[2].replace(",", ""))


def wait_for_last_reports(page: str, end: float) -> None:
    """Until every process has said that its connections are closed, which its last report says."""
    while [row["count"] for row in rows(page) if row["what"] == "open now"] != ["0"]:
        assert time.monotonic() < end, rows(page)
        time.sleep(0.1)


def pictures(tab: Any, name: str, *, switched: bool = True) -> None:
    """Take the page at both widths, light and dark; nothing may stick out sideways.

    Locust's own pages have a switch for the colours, and do not go by the system's wish once they are open.
    """
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        tab.set_viewport_size({"width": 1200, "height": 900})
        if switched and scheme == "dark":
            tab.locator("header button").last.click()
        for width in (1200, 400):
            tab.set_viewport_size({"width": width, "height": 900})
            tab.screenshot(
                path=PICTURES / f"{name}-{width}-{scheme}.png", full_page=True, animations="disabled"
            )
            wide = tab.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{name} at {width} px is {wide} px wide"
    tab.set_viewport_size({"width": 1200, "height": 900})
    if switched:
        tab.locator("header button").last.click()


@pytest.mark.browser
def test_a_person_starts_a_paced_test_and_reads_the_tab(tmp_path: Path) -> None:
    """The form takes our options, refuses what does not fit, and the tab shows what is measured."""
    PICTURES.mkdir(exist_ok=True)
    with server() as host, locust(host) as page, chromium() as browser:
        from playwright.sync_api import expect

        expect.set_options(timeout=60_000)
        tab = browser.new_page(viewport={"width": 1200, "height": 900})
        tab.set_default_timeout(60_000)
        tab.goto(page)
        tab.locator("input[name=userCount]").fill("20")
        tab.locator("input[name=spawnRate]").fill("20")
        tab.get_by_text("Custom parameters").click()
        tab.locator("input[name=rate]").fill("400")
        expect(
            tab.locator("input[name=writeTimeout]").or_(tab.locator("input[name=write_timeout]"))
        ).to_be_visible()
        expect(tab.get_by_text("Knee p99", exact=True).first).to_be_visible()
        headings = tab.locator(".tcp-group").all_inner_texts()
        assert headings == ["What is sent", "How it is driven", "Connections", "Shape of the load"]
        top = "name => document.querySelector(`[name=${name}]`).getBoundingClientRect().top"
        tops = [tab.evaluate(top, name) for name in ("messageSize", "rate", "tlsCa", "kneeP99")]
        assert tops == sorted(tops), "the fields are in the order of their groups"
        pictures(tab, "locust-form")
        tab.get_by_role("button", name="Start").click()
        tab.get_by_role("tab", name="TCP").click()
        expect(tab.get_by_text("CONFIRM response")).to_be_visible(timeout=60_000)
        expect(tab.get_by_text("target 400.0/s")).to_be_visible(timeout=60_000)
        expect(tab.get_by_text("open now")).to_be_visible()
        expect(tab.get_by_text(re.compile(r"intended (?:[2-9]|\d{2,}),\d{3},"))).to_be_visible(timeout=60_000)
        pictures(tab, "locust-tcp-tab")
        with tab.expect_download() as download:
            tab.get_by_role("tab", name="Download Data").click()
            tab.get_by_role("link", name="Download TCP report").click()
        saved = tmp_path / "report.json"
        download.value.save_as(saved)
        assert Report.load(saved).kind == "locust"
        tab.goto(f"{page}/tcp/report.html")
        expect(tab.get_by_role("heading", name="Latency in milliseconds")).to_be_visible()
        pictures(tab, "locust-tcp-report", switched=False)


def test_the_tab_of_several_processes_has_all_of_them() -> None:
    """``--processes 2``: the page has users and health of both workers; bad options are refused."""
    with server() as host, locust(host, "--processes", "2") as page:
        from urllib.parse import urlencode

        def swarm(**form: str) -> Any:
            data = urlencode({"user_count": "10", "spawn_rate": "10", "host": host, **form}).encode()
            with urlopen(f"{page}/swarm", data=data, timeout=30) as answer:
                return json.load(answer)

        refused = swarm(rate="fast")
        assert refused["success"] is False
        assert "messages a second" in refused["message"]
        assert swarm(hold="5", rate="5")["success"] is False
        refused = swarm(framing="length:1", message_size="300")
        assert refused["success"] is False
        assert "(300 bytes) or its confirmation is too long" in refused["message"]
        end = time.monotonic() + LIMIT
        while ask(page, "worker-count")["worker_count"] < 2:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert swarm(rate="200")["success"] is True
        end = time.monotonic() + LIMIT
        while True:
            found = rows(page)
            workers = [row for row in found if row["part"] == "Generator"]
            held = [row["count"] for row in found if row["what"] == "open now"]
            if len(workers) == 2 and held == ["10"]:
                break
            assert time.monotonic() < end, str(found)
            time.sleep(0.2)
        assert [row["what"] for row in found if row["part"] == "Latency"][:1] == ["CONNECT service"]
        with urlopen(f"{page}/tcp/report.json", timeout=30) as answer:
            assert Report.from_json(json.load(answer)).parameters["rate"] == "200"


@pytest.mark.alone
def test_a_reset_of_the_figures_leaves_no_backlog_that_was_not_there() -> None:
    """The page's button is the master's; what its workers counted before does not come back with a report."""
    with server() as host, locust(host, "--processes", "2") as page:
        end = time.monotonic() + LIMIT
        while ask(page, "worker-count")["worker_count"] < 2:
            assert time.monotonic() < end
            time.sleep(0.1)
        begin = time.monotonic()
        end = begin + LIMIT
        form = f"user_count=10&spawn_rate=10&rate=100&host={host}".encode()
        urlopen(f"{page}/swarm", data=form, timeout=30).close()
        while (before := on_schedule(page)[0]) < 750:
            assert time.monotonic() < end, rows(page)
            time.sleep(0.2)
        urlopen(f"{page}/stats/reset", data=b"", timeout=30).close()
        while on_schedule(page)[0] < 375:  # both workers have reported
            assert time.monotonic() < end, rows(page)
            time.sleep(0.2)
        urlopen(f"{page}/stop", data=b"", timeout=30).close()
        wait_for_last_reports(page, end)
        elapsed = time.monotonic() - begin
        intended, answered = on_schedule(page)
        # And no backlog: what was answered before is not missing. Where the machine is busy, messages of two
        # seconds may be late at the reset or at the stop.
        assert abs(intended - answered) < before / 3
        # Both parts together are no more than was due since the start, the first message of each at once.
        assert 375 <= intended <= 100 * elapsed + 10 - before


@pytest.mark.parametrize("processes", [(), ("--processes", "2")], ids=["one-process", "workers"])
def test_a_report_is_the_same_whenever_it_is_downloaded(processes: tuple[str, ...]) -> None:
    """What comes after a stop is no part of the run: no trials without messages, no idle generator."""
    with server() as host, locust(host, *processes) as page:
        end = time.monotonic() + LIMIT
        while processes and ask(page, "worker-count")["worker_count"] < 2:
            assert time.monotonic() < end
            time.sleep(0.1)
        end = time.monotonic() + LIMIT
        form = f"user_count=10&spawn_rate=10&rate=100&host={host}".encode()
        urlopen(f"{page}/swarm", data=form, timeout=30).close()
        while on_schedule(page)[0] < 250:
            assert time.monotonic() < end, rows(page)
            time.sleep(0.2)
        urlopen(f"{page}/stop", data=b"", timeout=30).close()

        def report() -> dict[str, Any]:
            with urlopen(f"{page}/tcp/report.json", timeout=30) as answer:
                found: dict[str, Any] = json.load(answer)
            del found["id"], found["environment"]
            return found

        wait_for_last_reports(page, end)
        first = report()
        time.sleep(3.3)  # in which three more samples would be taken
        assert report() == first
        assert first["trials"][0]["messages"]
        assert first["trials"][-1]["messages"]


def test_the_form_asks_for_a_host() -> None:
    """Neither the form nor the command line has one: it is told, and nothing is started."""
    from urllib.parse import urlencode

    with locust("") as page:
        data = urlencode({"user_count": "1", "spawn_rate": "1", "host": ""}).encode()
        with urlopen(f"{page}/swarm", data=data, timeout=30) as answer:
            said = json.load(answer)
    assert said["success"] is False
    assert "a host is missing" in said["message"]
