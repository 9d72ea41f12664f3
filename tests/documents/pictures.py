"""``make pictures``: the pictures of README.md, each of a real run, light and dark.

``status-*.png`` is the status page of a server with two workers under a load test of a minute; ``demo-*.svg``
the last lines of ``make demo``, as a terminal shows them. Needs Chromium, and about three minutes.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI, TerminalTheme

from tests.browser import chromium
from tests.operate import ServerProcess

ROOT: Final = Path(__file__).parents[2]
PICTURES: Final = Path(__file__).with_name("pictures")
LOAD_SECONDS: Final = 75
LIGHT: Final = TerminalTheme(
    (255, 255, 255),
    (27, 31, 36),
    [
        *((27, 31, 36), (196, 32, 43), (26, 127, 55), (138, 97, 0)),
        *((31, 111, 181), (122, 79, 184), (15, 138, 138), (89, 99, 110)),
    ],
)


def status_page() -> None:
    """The upper part of the page, after a minute of load."""
    server = ServerProcess("--port", "0", "--admin", ":0", "--workers", "2", "--max-connections", "10000")
    url = server.logged(r"admin pages at (http://\S+)")[1]
    host = f"tcp://{server.host}:{server.port}"
    load = [sys.executable, "-m", "loadtest", "--host", host, "--headless", "-u", "500", "-r", "20"]
    with subprocess.Popen(
        [*load, "-t", f"{LOAD_SECONDS}s", "--rate", "4000"], cwd=ROOT, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as users, chromium() as browser:  # fmt: skip
        time.sleep(LOAD_SECONDS - 10)
        for scheme in ("light", "dark"):
            tab = browser.new_page(viewport={"width": 1100, "height": 880}, color_scheme=scheme)
            tab.goto(url)
            tab.wait_for_timeout(3000)
            tab.screenshot(path=PICTURES / f"status-{scheme}.png")
        users.wait()
    server.stop()
    server.close()


def demo() -> None:
    """What the demo says at its end."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "demo"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    last = done.stdout[done.stdout.rindex("done in") :].strip()
    for scheme, theme in (("light", LIGHT), ("dark", DIMMED_MONOKAI)):
        console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
        console.print("$ make demo\n...", highlight=False)
        console.print(last, highlight=False, markup=False)
        picture = console.export_svg(title="make demo", theme=theme)
        # Without the fonts of another host: the reader's own monospaced one will do.
        picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
        (PICTURES / f"demo-{scheme}.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    status_page()
    demo()
