"""The status page in a real Chromium: under load, while draining, without the server; wide, narrow, dark."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import CONTRAST, OVERLAPS, PICTURES, chromium
from tests.operate import ServerProcess, exchange, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

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
        until(lambda: self.page.evaluate(expression) == equals, 15, f"{expression} is {equals!r}")

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
def test_under_load_while_draining_and_afterwards(browser: Browser, operate: Operate, tmp_path: Path) -> None:
    """It shows 300 clients that talk and three that do not read; then the drain; then that nobody answers.

    Once there is a server again it shows that one. All this at 1,200 and 400 pixels, light and dark.
    """
    (tmp_path / "feed.py").write_text(SERVICE)
    arguments = [
        "--port",
        "0",
        "--drain-timeout",
        "10",
        "--linger-timeout",
        "20",
        "--slow-consumer",
        "drop-newest",
    ]
    server = operate(*arguments, "--admin", ":0", "--handler", "feed:Feed", cwd=tmp_path)
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
        until(lambda: server.metric("chat_gevent_queued_bytes") > 100_000, 20)
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
        assert talking.wait(20) == 0
        for each in views:
            each.says("Draining for ")
            each.until("document.querySelector('[data-key=\"drain.clients_left\"]').textContent", "3")
            each.is_in_order(base)
            each.picture("draining")
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(20)
    for each in views:
        each.says("The server does not answer since ")
        each.picture("gone")
    again = operate("--port", "0", "--admin", base.removeprefix("http://"))
    for each in views:
        each.says("Ready")
        each.until("document.querySelector('[data-rows=workers] td').textContent", str(again.process.pid))
        assert each.page.locator("[data-key='totals.connections']").first.inner_text() == "0"
        each.page.close()
