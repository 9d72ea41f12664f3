"""Drawings as inline SVG that follows the page: text stays text, and every colour is a CSS variable.

Matplotlib draws with marker colours that no plot would use; :func:`inline_svg` replaces them by
``var(--ink)``, ``var(--grid)``, ``var(--s1)`` ... of the page's style sheet, so that one drawing serves
light, dark and print. Drawings are narrow (a phone's width) and scaled up, never down to unreadable text.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

INK: Final = "#010203"
GRID: Final = "#040506"
BAND: Final = "#070809"
PAPER: Final = "#0a0b0c"
COLOURS: Final = tuple(f"#0d0e{16 + i:02x}" for i in range(8))
_STYLES: Final = ("-", "--", ":")
_VARIABLES: Final = {
    INK: "var(--ink)",
    GRID: "var(--grid)",
    BAND: "var(--band)",
    PAPER: "var(--paper)",
    **{colour: f"var(--s{number})" for number, colour in enumerate(COLOURS, 1)},
}
PANELS_A_ROW: Final = 3
_WIDTH: Final = 5.2  # inches; 499 CSS pixels
_RC: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "benchmarks",  # equal figures give equal files
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.size": 10,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing with what it shows in a sentence, for those who cannot see it too."""

    title: str
    caption: str
    svg: str


Draw = Callable[[Any], None]


def inline_svg(height: float, draw: Draw) -> str:
    """What ``draw`` puts on the axes that it is given, ``height`` inches high and 5.2 wide, as SVG text."""
    return _render(height, lambda figure: draw(figure.add_subplot()))


def panels(titles: Sequence[str], draw: Callable[[Any, int], None], finish: Draw) -> str:
    """Small drawings with the same axes, three a row.

    ``draw`` gets the axes and number of each, and may draw the first one in grey beside it; ``finish`` is
    called with each once all are drawn.
    """
    rows = math.ceil(len(titles) / PANELS_A_ROW)

    def draw_all(figure: Any) -> None:
        every = list(figure.subplots(rows, PANELS_A_ROW, sharex=True, sharey=True, squeeze=False).flat)
        for axes in every[len(titles) :]:
            axes.set_visible(False)
        for place, axes in enumerate(every[: len(titles)]):
            draw(axes, place)
        for place, axes in enumerate(every[: len(titles)]):
            finish(axes)
            labels = axes.get_xlabel(), axes.get_ylabel()
            axes.set(xlabel="", ylabel="")
            axes.set_title(titles[place], fontsize=8.5)
            axes.tick_params(labelsize=8, labelbottom=place + PANELS_A_ROW >= len(titles))
        figure.supxlabel(f"{labels[0]}; in grey: {titles[0]}", fontsize=8.5)
        figure.supylabel(labels[1], fontsize=8.5)

    return _render(0.5 + 1.35 * rows, draw_all)


def _render(height: float, draw: Draw) -> str:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(_RC):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _svg(buffer.getvalue())


def _svg(text: str) -> str:
    """The drawing without its prologue and metadata, its colours the page's, its size its container's."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"(<svg [^>]*?)\s+width=\"[^\"]*\"", r"\1", text, count=1)
    text = re.sub(r"(<svg [^>]*?)\s+height=\"[^\"]*\"", r'\1 aria-hidden="true"', text, count=1)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    return text


def colour(index: int) -> tuple[str, str]:
    """Colour and line style of the ``index``-th subject: 8 colours, then the same dashed, then dotted."""
    return COLOURS[index % len(COLOURS)], _STYLES[index // len(COLOURS) % len(_STYLES)]


def legend_height(entries: int) -> float:
    """How many inches a legend of so many entries takes."""
    return 0.2 * math.ceil(entries / 2)


def legend(axes: Any, entries: int) -> None:
    """Below the drawing, two entries a row, where it covers no data."""
    if entries:
        below = axes.figure.legend(
            loc="outside lower center", ncols=min(2, entries), handlelength=2.2, columnspacing=1.2
        )
        for handle in below.legend_handles:
            handle.set_alpha(1)


def short(label: str) -> str:
    """A label of at most 24 characters."""
    return label if len(label) <= 24 else label[:22] + "…"


def thousands(axis: Any) -> None:
    """Numbers along the axis with commas, and 10,000 as 10k."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))


def plain_log(axis: Any) -> None:
    """Ticks of a logarithmic axis at 1, 2 and 5, or at 1 alone over three decades, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.get_data_interval()
    subs = (1.0, 2.0, 5.0) if high < 1000 * low else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))


def _number(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:,.0f}k"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == round(value) else f"{value:g}"
