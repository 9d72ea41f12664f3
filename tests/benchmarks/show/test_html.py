"""The HTML pages in a real Chromium: whole, readable on a phone, in the dark and on paper, and offline."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.judge.compare import compare
from benchmarks.reports.figures import figures
from benchmarks.reports.report import SeriesKind, Server
from benchmarks.show import history, plots
from benchmarks.show.html import comparison_page, history_page, report_page, subject_plots
from benchmarks.show.plots import Subject
from benchmarks.show.wording import markdown
from tests.benchmarks.made_reports import RATE, make
from tests.browser import CONTRAST, OVERLAPS, PATIENCE_MS, PICTURES, chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ["chat_gevent", "gevent_plain", "threads", "asyncio_protocol", "uvloop_protocol", "tornado", "trio",
         "twisted", "go", "c_epoll"]  # fmt: skip


@cache
def _two() -> str:
    return comparison_page(compare([make({"chat_gevent": 10, "threads": 13}, rich=True)], ["full-run"]))


@cache
def _many() -> str:
    costs = {name: 8.0 + 3 * place for place, name in enumerate(NAMES)}
    return comparison_page(compare([make(costs, rich=True, blocks=6)], ["all-servers"]))


@cache
def _runs() -> str:
    environment = {**make({"s": 1}, blocks=1).environment, "packages": {"gevent": "25.5"}}
    reports = [make({"s": 10}, rich=True, drift=0.01), make({"s": 10.1}, rich=True, drift=0.01, seed=2)]
    reports[1].environment = environment
    return comparison_page(compare(reports, ["before", "after"]))


@cache
def _refused() -> str:
    two = make({"s": 10}, seed=2)
    two.environment["kernel"] = "Linux 5.10"
    return comparison_page(compare([make({"s": 10}), two], ["before", "after"]))


@cache
def _single() -> str:
    return report_page(make({"chat_gevent": 10, "threads": 13}, rich=True))


PAGES: dict[str, Callable[[], str]] = {
    "two": _two,
    "many": _many,
    "runs": _runs,
    "refused": _refused,
    "single": _single,
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    with chromium() as started:
        yield started


class Written(dict[str, Path]):
    """Pages as files by their kind, each made when it is asked for first."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory

    def __missing__(self, name: str) -> Path:
        path = self[name] = self._directory / f"{name}.html"
        path.write_text(PAGES[name](), encoding="utf-8")
        return path


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every kind of page as a file."""
    PICTURES.mkdir(exist_ok=True)
    return Written(tmp_path_factory.mktemp("pages"))


def _open(browser: Browser, path: Path, width: int = 1200, **options: Any) -> tuple[Page, list[str]]:
    """The page at ``path`` with everything that it asked for or complained of."""
    page = browser.new_page(viewport={"width": width, "height": 900}, **options)
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    page.on("console", lambda message: seen.append(message.text))
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.set_default_timeout(PATIENCE_MS)
    page.goto(path.as_uri())
    return page, seen


@pytest.mark.browser
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (400, "light"), (1200, "dark")])
def test_a_page_opens_from_disk_and_fits(
    browser: Browser, pages: dict[str, Path], name: str, width: int, scheme: Any
) -> None:
    """It asks for no other file, complains of nothing, and needs no scrolling sideways, even at 400 px."""
    page, seen = _open(browser, pages[name], width, color_scheme=scheme)
    assert seen == [pages[name].as_uri()]
    for details in page.query_selector_all("details"):
        details.evaluate("element => element.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=PICTURES / f"report-{name}-{width}-{scheme}.png", full_page=True)
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("name", ["two", "many", "runs", "single"])
@pytest.mark.parametrize("width", [1200, 400])
def test_no_label_is_cut_or_covered(browser: Browser, pages: dict[str, Path], name: str, width: int) -> None:
    """In no drawing does a text reach over the edge or lie over another, and none is below 8 px high."""
    page, _ = _open(browser, pages[name], width)
    assert page.evaluate(OVERLAPS) == []
    heights = page.evaluate(
        "[...document.querySelectorAll('figure svg text')].map(t => t.getBoundingClientRect().height)"
    )
    assert min(heights) >= 8
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(browser: Browser, pages: dict[str, Path], scheme: Any) -> None:
    """All text, the drawings' too, has a contrast of at least 4.5 (WCAG 2.2, 1.4.3) in both schemes."""
    page, _ = _open(browser, pages["two"], color_scheme=scheme)
    worst, text = page.evaluate(CONTRAST)
    assert worst >= 4.5, text
    page.close()


@pytest.mark.browser
def test_on_paper_everything_is_there(browser: Browser, pages: dict[str, Path]) -> None:
    """Printed from a dark screen the page is black on white, and what is folded there is unfolded."""
    page, _ = _open(browser, pages["two"], color_scheme="dark")
    page.pdf(path=PICTURES / "report-two-print.pdf", format="A4")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.documentElement).color") == "rgb(0, 0, 0)"
    shown = page.get_by_text("CPython 3.11.7").first.bounding_box()
    assert shown is not None
    assert shown["height"] > 0
    page.screenshot(path=PICTURES / "report-two-print.png", full_page=True)
    assert (PICTURES / "report-two-print.pdf").stat().st_size > 10_000
    page.close()


@pytest.mark.browser
def test_the_verdict_comes_first(browser: Browser, pages: dict[str, Path]) -> None:
    """The first heading is the verdict, in sight without scrolling, then the table that it comes from."""
    page, _ = _open(browser, pages["two"], 400)
    heading = page.locator("h1")
    assert heading.inner_text().startswith("threads is slower than chat_gevent: server CPU per confirmation")
    box = heading.bounding_box()
    assert box is not None
    assert box["y"] < 100
    row = page.locator("table.cards tbody tr").first
    assert row.locator("td").first.get_attribute("data-label") == "chat_gevent"
    assert row.locator("td.verdict").inner_text().endswith("slower")
    page.close()


def test_a_page_holds_every_part() -> None:
    """Ratios, bars with every trial as a dot, percentiles, memory, series, blocks; where it was made."""
    text = _two()
    for title in (
        "threads against chat_gevent",
        "Server CPU per confirmation",
        "Latency from the intended start",
        "Memory over connections",
        "Confirmations over time",
        "block by block",
        "Parameters",
        "Environment",
        "Servers",
        "Checks that fired",
    ):
        assert title in text, title
    figure = text[text.index("<h3>Server CPU per confirmation</h3>") :]
    figure = figure[: figure.index("</figure>")]
    assert len(re.findall(r"<use ", figure)) >= 20  # ten blocks, two servers


def test_drawings_are_told_apart() -> None:
    """A series over time shares its metric's title but not its drawing's, and blocks count from 1."""
    kind = SeriesKind(title=RATE.title, unit="1/s")
    report = make({"a": 10, "b": 12}, blocks=3, rich=True, series={"rate": kind})
    titles = [plot.title for plot in subject_plots([Subject(s.name, report, s.name) for s in report.servers])]
    assert {"Confirmations a second", "Confirmations a second over time"} <= set(titles)
    assert len(set(titles)) == len(titles)
    leading = figures(report)[0]
    plot = plots.blocks(leading, [Subject("a", report, "a")], {"a": leading})
    assert plot is not None
    numbers = re.findall(r"<text[^>]*>(\d)</text>", plot.svg)
    assert numbers[:3] == ["1", "2", "3"]


def test_a_dash_is_explained() -> None:
    """Where a metric has no verdict, page, Markdown and terminal say what that means; else nothing does."""
    result = compare([make({"a": 10, "b": 12})], ["r"])
    assert "takes no part in verdicts" in comparison_page(result)
    assert "takes no part in verdicts" in markdown(result)
    result.comparisons = [c for c in result.comparisons if c.verdict is not None]
    assert "takes no part in verdicts" not in comparison_page(result)


def test_differences_between_reports_are_marked() -> None:
    """What differs between two environments stands first and is marked."""
    text = _runs()
    marked = re.findall(r'<tr class="differs"><th scope="row">([^<]*)', text)
    assert "packages.gevent" in marked


def test_a_refusal_says_why() -> None:
    """The page of a refused comparison names the difference and holds no ratio."""
    text = _refused()
    assert "Not comparable: kernel differs (Linux 6.1 and Linux 5.10)." in text
    assert "95% interval" not in text


def test_names_from_reports_are_text_not_markup() -> None:
    """A server, a label or a warning that looks like HTML is shown as it is, in tables and in drawings."""
    evil = "<script>alert(1)</script>"
    report = make({"base": 10, evil: 12}, rich=True)
    report.warnings[0] = replace(report.warnings[0], message=evil)
    report.servers[0] = Server(name="base", version=evil, command=["$x^2$", evil], source_hash="x")
    text = comparison_page(compare([report], [evil]))
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_equal_reports_give_equal_pages() -> None:
    """Nothing in a page depends on when or how often it is made, so pages can be compared and kept in git."""
    assert _two.__wrapped__() == _two.__wrapped__()


def test_pages_need_no_network_and_no_script() -> None:
    """No address, no script and no font to fetch in any page; its policy forbids them too."""
    for make_page in PAGES.values():
        text = make_page()
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+", text)) - {"http://www.w3.org"}
        assert addresses == set()
        assert "<script" not in text
        assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text


def test_history_page(tmp_path: Path) -> None:
    """Three reports give three lines and a drawing of the metric over them."""
    for day in (1, 2, 3):
        made = make({"s": 10 + day}, seed=day, created=f"2026-11-0{day}T00:00:00Z")
        made.save(tmp_path / f"{day}.json")
    text = history_page(history.collect(tmp_path))
    assert text.count("confirm") >= 3
    assert "confirm: server CPU per confirmation" in text.replace("Confirm:", "confirm:")
    assert "<svg" in text
