"""The status page in a real Chromium: under load, while draining, without the server; wide, narrow, dark."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chat_gevent.command import page as status_page
from chat_gevent.command.page_values import FORMS
from tests.browser import CONTRAST, OVERLAPS, PICTURES, chromium
from tests.operate import ServerProcess, exchange, kept_port, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

Operate = Callable[..., ServerProcess]
VIEWS = [(1200, "light"), (1200, "dark"), (400, "light"), (400, "dark")]
TALK = Path(__file__).parents[2] / "talk.py"

LINES = "[...document.querySelectorAll('figure path')].filter(path => path.getTotalLength() > 2).length"

SERVICE = """
from chat_gevent import Service

class Feed(Service):
    def started(self, server):
        self.server = server
        server.every(0.05, lambda: server.broadcast("x" * 5000, to=server.group("feed")))

    def message(self, message, client):
        if message == "feed":
            self.server.group("feed").add(client)
        return "Received: " + message
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    with chromium() as started:
        PICTURES.mkdir(exist_ok=True)
        yield started


class Watched:
    """A page, all that it asked for, and all that the browser complained of."""

    def __init__(self, browser: Browser, width: int = 1200, scheme: Any = "light", **options: Any) -> None:
        self.width = width
        self.scheme = scheme
        self.page: Page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme, **options
        )
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def until(self, expression: str, equals: Any) -> None:
        """Wait for a value in the page; playwright's own way needs eval, which the page's policy forbids."""
        until(lambda: self.page.evaluate(expression) == equals, 30, f"{expression} is {equals!r}")

    def says(self, headline: str) -> None:
        """Wait for a headline that begins with that."""
        self.until(f"document.getElementById('headline').textContent.slice(0, {len(headline)})", headline)

    def is_in_order(self, base: str) -> None:
        """Nothing was asked of anybody else, nothing complained of, and nothing is cut or too faint."""
        assert {re.sub(r"\?.*", "", url) for url in self.asked} <= {f"{base}/", f"{base}/status.json"}
        assert self.complaints == []
        assert self.page.evaluate("document.documentElement.scrollWidth") <= self.width
        assert self.page.evaluate(OVERLAPS) == []
        worst, text = self.page.evaluate(CONTRAST)
        assert worst >= 4.5, text

    def picture(self, name: str) -> None:
        """Keep how it looks."""
        path = PICTURES / f"status-{name}-{self.width}-{self.scheme}.png"
        self.page.screenshot(path=path, full_page=True)


def base_of(server: ServerProcess) -> str:
    """The address of its admin pages."""
    return server.logged(r"admin pages at (http://\S+)").group(1).rstrip("/")


@pytest.mark.browser
@pytest.mark.timeout(180)
def test_under_load_while_draining_and_afterwards(browser: Browser, operate: Operate, tmp_path: Path) -> None:
    """It shows 300 clients that talk and three that do not read; then the drain; then that nobody answers.

    Once there is a server again it shows that one. All this at 1,200 and 400 pixels, light and dark.
    """
    (tmp_path / "feed.py").write_text(SERVICE)
    arguments = [
        "--port",
        "0",
        "--drain-timeout",
        "40",
        "--linger-timeout",
        "40",
        "--slow-consumer",
        "drop-newest",
    ]
    server = operate(*arguments, "--admin", f":{kept_port()}", "--handler", "feed:Feed", cwd=tmp_path)
    base = base_of(server)
    talk = [sys.executable, str(TALK), server.host, str(server.port), "300"]
    with contextlib.ExitStack() as stack:
        talking = stack.enter_context(subprocess.Popen(talk, stdout=subprocess.PIPE))
        stack.callback(talking.kill)
        assert talking.stdout is not None
        assert talking.stdout.readline() == b"talking\n"
        for _ in range(3):
            silent = stack.enter_context(socket.socket())
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            silent.connect(server.address())
            exchange(silent, b"feed")
        until(lambda: server.metric("chat_gevent_queued_bytes") > 100_000)
        views = [Watched(browser, *each) for each in VIEWS]
        for each in views:
            each.page.goto(f"{base}/")
            each.says("Ready: new clients are welcome")
            each.until(LINES, 7)
            each.until("document.querySelector('[data-rows=busiest]').rows.length", 11)
            assert each.page.locator("[data-key='totals.connections']").first.inner_text() == "303"
            assert each.page.locator("[data-rows=slowest] tbody tr").count() == 3
            each.page.locator("summary").click()
            each.is_in_order(base)
            each.picture("load")
        server.process.send_signal(signal.SIGTERM)
        assert talking.wait(30) == 0
        for each in views:
            each.says("Draining for ")
            each.until("document.querySelector('[data-key=drain_left]').textContent", "3 left")
            each.is_in_order(base)
            each.picture("draining")
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(30)
    for each in views:
        each.says("The server has not answered since ")
        each.until("document.querySelector('main').className", "stale")
        each.picture("gone")
    again = operate("--port", "0", "--admin", base.removeprefix("http://"))
    for each in views:
        each.says("Ready")
        each.until("document.querySelector('[data-rows=workers] td').textContent", str(again.process.pid))
        assert each.page.locator("[data-key='totals.connections']").first.inner_text() == "0"
        each.page.close()


EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&amp;"


def made() -> dict[str, Any]:
    """What a server of four workers tells after ten minutes, with a name that looks like markup."""
    seconds = range(600)
    wave = [1 + math.sin(second / 40) for second in seconds]
    series = {
        "connections": [12_000 + 700 * each for each in wave],
        "queued_bytes": [30_000 * each for each in wave],
        "loop_lag_p50_seconds": [0.0004 * each for each in wave],
        "loop_lag_p99_seconds": [
            0.08 if second == 300 else 0.0021 * each for second, each in enumerate(wave)
        ],
        "messages_per_second": [None, *(23_456.25 * each for each in wave[1:])],
        "pushes_per_second": [None, *(4_100.5 * each for each in wave[1:])],
        "refused_per_second": [None, *(3.0 if 200 < second < 260 else 0.0 for second in seconds[1:])],
        "closed_per_second": [None, *(17.2 * each for each in wave[1:])],
    }
    workers = [
        {
            **{"worker": number, "pid": 31_000 + number, "connections": 3_200, "connections_limit": 5_000},
            **{
                "messages": 12_345_678,
                "messages_per_second": 5_864.2,
                "greenlets_busy": 3,
                "queued_bytes": 9_000,
            },
            **{"loop_lag_p50_seconds": 0.00041, "loop_lag_p99_seconds": 0.0021, "cpu_seconds": 4_321.0},
            **{"resident_bytes": 88_000_000, "draining": number == 2, "age_seconds": 0.42},
        }
        for number in range(4)
    ]
    clients = [
        {
            **{"id": number, "address": "[2001:db8:1111:2222:3333:4444:5555:6666]:65535", "worker": 1},
            **{
                "since": "2026-11-25T15:18:13+00:00",
                "idle_seconds": 0.1,
                "messages": 98_765,
                "received": 3_456_789,
            },
            **{"sent": 4_567_890, "framing": "line", "tls": True, "queued_bytes": 9, "state": "queued"},
            **{"messages_per_second": 1_234.6, "due_bytes": 262_144},
        }
        for number in range(10)
    ]
    clients[0]["address"] = EVIL
    return {
        **{
            "version": "9.9.9",
            "time": 1_795_619_893.4,
            "started": 1_795_400_000.0,
            "ready": True,
            "drain": None,
        },
        "backplane": {"connected": True, "published": 1_234, "received": 5_678, "dropped": 0},
        "handler": {"calls": 49_382_712, "seconds": 1_234.5, "running": 7},
        "totals": {
            **{
                "connections": 12_800,
                "connections_limit": 20_000,
                "accepted": 654_321,
                "messages": 49_382_712,
            },
            **{"received_bytes": 3_456_789_012, "sent_bytes": 5_678_901_234, "pushes": 9_876_543},
            **{"pushes_dropped": 12, "queued_bytes": 36_000, "broadcasts": 4_321, "broadcast_seconds": 98.7},
            **{"greenlets_busy": 12, "greenlets_free": 24, "log_lines_dropped": 0},
        },
        "refused": {"server-full": 180, "address-full": 0},
        "closed": {"slow": 3, "reset": 1_200, "unused": 640_000, EVIL: 3},
        "errors": {"handler-failed": 2, "idle-timeout": 41},
        "workers": workers,
        "history": {"seconds": 600, "newest": 1_795_619_893.0, "series": series},
        "busiest": clients,
        "slowest": clients[:2],
    }


def reads(place: Locator, text: str) -> bool:
    """Whether that text stands there."""
    return place.inner_text() == text


def fill(watched: Watched, told: dict[str, Any], first: dict[str, Any] | None = None) -> None:
    """Open the page as a server would send it that tells ``first``, or ``told``, and afterwards ``told``."""
    headers = {"Content-Security-Policy": status_page.POLICY, "Content-Type": "text/html; charset=utf-8"}
    body = status_page.render(first or told)
    watched.page.route("http://made/", lambda route: route.fulfill(headers=headers, body=body))
    watched.page.route("http://made/status.json*", lambda route: route.fulfill(json=told))
    watched.page.goto("http://made/")


def shown(
    browser: Browser, told: dict[str, Any], *view: Any, first: dict[str, Any] | None = None, **options: Any
) -> Watched:
    """A page of a server that tells these figures."""
    watched = Watched(browser, *view, **options)
    fill(watched, told, first)
    return watched


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [*VIEWS, (320, "light"), (700, "light"), (1100, "dark")])
def test_ten_minutes_of_four_workers_fit(browser: Browser, width: int, scheme: str) -> None:
    """Long addresses, large numbers, four workers, a whole history: nothing to scroll at any width."""
    view = shown(browser, made(), width, scheme)
    view.until(LINES, 7)
    view.page.locator("summary").click()
    view.is_in_order("http://made")
    view.picture("ten-minutes")
    view.page.close()


CELLS = """document => [...document.querySelectorAll(
    'h1, [data-key]:not(th), tbody th, tbody td, [data-label]'
)].map(each => [each.tagName, each.className, each.dataset.label ?? '', each.textContent])"""

VALUES = (
    *(0, 1e-7, 3.2e-4, 0.0123, 0.4, 0.7, 7.26, 9.96, 10, 61, 99.4, 999, 1_000, 3_600, 12_345.6, 90_000),
    *(1_048_576, 5e9, 3e12, 2**60),
)


@pytest.mark.browser
def test_server_and_script_write_the_same(browser: Browser) -> None:
    """A page that the script has brought from other figures to these is what the server writes of these."""
    told, before = made(), made()
    before.update(workers=told["workers"][:2], busiest=[], slowest=told["busiest"], closed={}, ready=False)
    before["totals"] = dict.fromkeys(told["totals"], 1)
    before["history"] = {**told["history"], "series": {name: [] for name in told["history"]["series"]}}
    view = shown(browser, told, first=before)
    view.says("Ready")
    as_scripted = view.page.evaluate(f"({CELLS})(document)")
    as_served = view.page.evaluate(
        f"page => ({CELLS})(new DOMParser().parseFromString(page, 'text/html'))", status_page.render(told)
    )
    assert as_scripted == as_served
    assert len(as_served) > 300
    for form in ("count", "rate", "seconds", "bytes", "duration"):
        written = [FORMS[form](value) for value in VALUES]
        assert view.page.evaluate(f"values => values.map(value => FORMS.{form}(value))", VALUES) == written
    view.page.close()


@pytest.mark.browser
def test_names_are_text_not_markup(browser: Browser) -> None:
    """An address or a reason that looks like markup is shown as it is, by the server and by the script."""
    told = made()
    assert EVIL not in status_page.render(told)
    for options in ({"java_script_enabled": False}, {"first": {**told, "busiest": [], "closed": {}}}):
        view = shown(browser, told, **options)
        view.page.on("dialog", lambda dialog: pytest.fail(f"ran: {dialog.message}"))
        first = view.page.locator("[data-rows=busiest] tbody th").first
        first.wait_for()
        until(partial(reads, first, EVIL))
        assert EVIL in view.page.locator("[data-rows=closed]").inner_text()
        assert view.page.locator("main img, main script").count() == 0
        assert view.complaints == []
        view.page.close()


@pytest.mark.browser
def test_the_policy_lets_nothing_else_run(browser: Browser) -> None:
    """A script, a style or a picture of elsewhere that gets into the page anyway is refused."""
    assert status_page.POLICY.startswith("default-src 'none'; ")
    assert "unsafe" not in status_page.POLICY
    view = shown(browser, made())
    view.until(LINES, 7)
    assert view.complaints == []
    failed: list[str] = []
    view.page.on("requestfailed", lambda request: failed.append(request.url))
    view.page.evaluate("""() => {
        for (const [name, text] of [['script', 'window.ran = true'], ['style', 'main { display: none }']]) {
            const element = document.createElement(name);
            element.textContent = text;
            document.body.append(element);
        }
        const picture = document.createElement('img');
        picture.src = 'http://elsewhere.example/';
        document.body.append(picture);
    }""")
    until(lambda: len(view.complaints) >= 3)
    assert view.page.evaluate("window.ran") is None
    assert view.page.locator("main").is_visible()
    assert failed == ["http://elsewhere.example/"]
    assert all("Content Security Policy" in complaint for complaint in view.complaints)
    view.page.close()


@pytest.mark.browser
def test_every_worker_has_a_row(browser: Browser, operate: Operate) -> None:
    """Of two workers each is there with its process, and of a client by which of them it is served."""
    server = operate("--port", "0", "--admin", ":0", "--framing", "line", "--workers", "2")
    with server.connect() as client:
        exchange(client, b"hello")
        view = Watched(browser)
        view.page.goto(f"{base_of(server)}/")
        view.says("Ready")
        pids = [each["pid"] for each in json.loads(server.ask("/status.json")[1])["workers"]]
        assert view.page.locator("[data-rows=workers] td:nth-child(2)").all_inner_texts() == list(
            map(str, pids)
        )
        assert len(set(pids)) == 2
        assert view.page.locator("[data-rows=busiest] thead").inner_text().startswith("address\tworker\t")
        view.is_in_order(base_of(server))
        view.page.close()


@pytest.mark.browser
def test_a_server_that_stands_still_is_told(browser: Browser, operate: Operate) -> None:
    """One that takes connections but answers nothing is told after three seconds; then that it is back."""
    server = operate("--port", "0", "--admin", ":0")
    view = Watched(browser)
    view.page.goto(f"{base_of(server)}/")
    view.until("known !== null", True)
    server.process.send_signal(signal.SIGSTOP)
    view.says("The server has not answered since ")
    assert "It takes long to answer." in view.page.locator("#freshness").inner_text()
    server.process.send_signal(signal.SIGCONT)
    view.says("Ready")
    view.page.close()


@pytest.mark.browser
def test_without_javascript_it_is_a_snapshot(browser: Browser, operate: Operate) -> None:
    """The figures are there, it says that the page has to be loaded again, and no place for lines is left."""
    server = operate("--port", "0", "--admin", ":0", "--framing", "line")
    with server.connect() as client:
        exchange(client, b"hello")
        view = Watched(browser, 400, java_script_enabled=False)
        view.page.goto(f"{base_of(server)}/")
        assert view.page.locator("#headline").inner_text() == "Ready: new clients are welcome"
        assert view.page.locator("[data-key='totals.connections']").first.inner_text() == "1"
        assert view.page.get_by_text("Reload the page for newer ones.").is_visible()
        assert not view.page.locator(".plot").first.is_visible()
        assert view.asked == [f"{base_of(server)}/"]
        assert view.complaints == []
        view.picture("no-script")
        view.page.close()


@pytest.mark.browser
def test_a_hidden_page_asks_nothing(browser: Browser) -> None:
    """While the page is hidden nothing is asked, however long; at once when it is seen again."""
    view = Watched(browser)
    view.page.clock.install()
    fill(view, made())
    view.until(LINES, 7)
    asked = len(view.asked)
    view.page.clock.run_for(3_000)
    until(lambda: view.page.evaluate("1") and len(view.asked) > asked)
    hide = """hidden => {
        Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
        document.dispatchEvent(new Event('visibilitychange'));
    }"""
    view.page.evaluate(hide, True)
    view.until("asking", False)
    asked = len(view.asked)
    view.page.clock.run_for(600_000)
    view.until("asking", False)
    assert len(view.asked) == asked
    view.page.evaluate(hide, False)
    until(lambda: view.page.evaluate("1") and len(view.asked) == asked + 1)
    view.page.close()


def test_it_answers_to_its_own_names_only(operate: Operate) -> None:
    """By a name that leads here but is not this server's, a page of somebody else's could read it: refused.

    The page is sent with its policy; and it may stand in no other page.
    """
    server = operate("--port", "0", "--admin", ":0")
    address = base_of(server).removeprefix("http://")
    for name, status in (("attacker.example", 421), (address, 200), ("localhost", 200)):
        host, port = address.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/", headers={"Host": name})
            answer = connection.getresponse()
            body = answer.read().decode()
        assert answer.status == status
        assert ("<h1" in body) == (status == 200)
        assert answer.headers["Content-Security-Policy"] == status_page.POLICY
        assert "frame-ancestors 'none'" in status_page.POLICY
