"""``make docs``: pages of the public modules, made from their docstrings by pdoc, with their links checked.

A warning of pdoc's is an error. A link of a text that leads to no page or to no place on its page is one too,
and so is a role of Sphinx's (``:class:`X```) that pdoc left as it was.
"""

from __future__ import annotations

import re
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

MODULES: Final = (
    "chat_gevent",
    *(
        f"chat_gevent.{name}"
        for name in (
            "backplane", "broadcast", "client", "confirm", "core", "errors", "framing", "identity", "rooms",
            "server", "service", "settings", "testing",
        )
    ),
    "loadtest",
    *(
        f"loadtest.{name}"
        for name in (
            "conversation", "errors", "framing", "library", "messages", "pushes", "replies", "reply",
            "schedule", "session", "steps", "tcp_user",
        )
    ),
    "benchmarks",
    "benchmarks.judge",
    *(
        f"benchmarks.judge.{name}"
        for name in ("change_points", "comparable", "compare", "noise", "statistics")
    ),
    "benchmarks.reports",
    *(f"benchmarks.reports.{name}" for name in ("environment", "figures", "histograms", "report")),
)  # fmt: skip
"""What people import. The other modules say themselves what they are for; CONTRIBUTING.md has a map."""


_ROLE: Final = re.compile(r":(?:class|mod|func|meth|data|attr):\S+")
_TO_PRIVATE: Final = re.compile(r'<a [^>]*href="[^"]*#_\w[^"]*"[^>]*>(.*?)</a>', re.DOTALL)
"""A link of pdoc's to a private base class, which has no place on any page."""
_TO_MEMBER: Final = re.compile(r'(?<=<code>)<a href="#([^"]+)">([^<]*)</a>(?=</code>)')
"""A link that pdoc makes of a name in a text, also where it does not show the member of that name."""


def build(folder: Path) -> None:
    """Write the pages into ``folder``. Raises UserWarning for what pdoc warns of."""
    import pdoc
    import pdoc.render

    import loadtest.tcp_user  # noqa: F401 - Locust has to patch the standard library before others use it

    pdoc.render.configure(docformat="restructuredtext", footer_text="chat_gevent", search=False)
    others = f"!(?!(?:{'|'.join(map(re.escape, MODULES))})$).*"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        # The stubs of gevent have a parameter for it, gevent itself has none.
        warnings.filterwarnings("ignore", message=".*Greenlet' is not subscriptable")
        pdoc.pdoc("chat_gevent", "loadtest", "benchmarks", others, output_directory=folder)
    for path in folder.rglob("*.html"):
        text = _TO_PRIVATE.sub(r"\1", path.read_text())
        places = _Page(text).places

        def unless_shown(link: re.Match[str], places: set[str] = places) -> str:
            return link[0] if link[1] in places else link[2]

        path.write_text(_TO_MEMBER.sub(unless_shown, text))


class _Page(HTMLParser):
    """The places of a page, and where its links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element's id and href."""
        given = dict(attrs)
        if identity := given.get("id"):
            self.places.add(identity)
        if tag == "a" and (link := given.get("href")):
            self.links.append(link)


def problems(folder: Path) -> list[str]:
    """What is wrong with the pages in ``folder``: a line for each broken link and each role that is left."""
    pages = {path: _Page(path.read_text()) for path in folder.rglob("*.html")}
    found = []
    for path, page in pages.items():
        name = path.relative_to(folder)
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target not in pages:
                found.append(f"{name}: {link} leads to no page")
            elif parts.fragment and unquote(parts.fragment) not in pages[target].places:
                found.append(f"{name}: {link} leads to no place on its page")
        source_less = re.sub(r"<pre>.*?</pre>", "", path.read_text(), flags=re.DOTALL)
        found += [
            f"{name}: {role} is left"
            for role in re.findall(r":(?:class|mod|func|meth|data|attr):\S+", source_less)
        ]
    return found


def main() -> int:
    """Make the pages in the folder that is named, and check them; returns the exit status."""
    folder = Path(sys.argv[1]).resolve()
    build(folder)
    wrong = problems(folder)
    print("\n".join(wrong) or f"{folder / 'index.html'}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
