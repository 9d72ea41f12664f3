"""For tests of pages: a real Chromium, and what is wrong with a page that it shows."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.conftest import require, require_tool

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PICTURES: Final = Path(__file__).parents[1] / "test-output"
"""Where screenshots are kept."""

FLAGS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

PATIENCE_MS: Final = 120_000
"""Longest wait for Chromium to start and for a page to do something, in milliseconds; its own is 30,000."""

OVERLAPS: Final = """() => {
  const found = [];
  for (const svg of document.querySelectorAll('figure svg')) {
    const frame = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
    for (const [text, box] of texts)
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1)
        found.push('cut: ' + text);
    for (let i = 0; i < texts.length; i++)
      for (let j = 0; j < i; j++) {
        const [a, b] = [texts[i][1], texts[j][1]];
        const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (across > 2 && down > 4) found.push(texts[i][0] + ' over ' + texts[j][0]);
      }
  }
  return found;
}"""
"""Gives the texts of drawings that reach over the edge or lie over another."""

CONTRAST: Final = """() => {
  const light = c => { const [r, g, b] = c.match(/[0-9.]+/g).slice(0, 3)
    .map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const back = element => { for (let e = element; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor; if (!c.startsWith('rgba(0, 0, 0, 0')) return c; } };
  const ratios = [];
  for (const e of document.querySelectorAll('h1, h2, h3, p, dt, dd, a, td, th, li, summary, figure text')) {
    const style = getComputedStyle(e), colour = e instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(colour), light(back(e))].sort((x, y) => y - x);
    ratios.push([(a + .05) / (b + .05), e.textContent.slice(0, 30)]);
  }
  return ratios.sort((x, y) => x[0] - y[0])[0];
}"""
"""Gives the lowest contrast of a text to what is behind it, and that text; WCAG 2.2 (1.4.3) wants 4.5."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium, without a network of its own; skips the test where there is none."""
    path = require_tool("chromium")
    require(importlib.util.find_spec("playwright"), "the Python package playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS, timeout=PATIENCE_MS)
        try:
            yield browser
        finally:
            browser.close()
