"""Pages: one HTML file each, which needs no network and no script, in one style.

``templates/base.html`` has the skeleton and the style sheet, ``parts.html`` the macros ``drawings(plots)``
and ``facts(tables)``. A page is a template of the package that makes it, with the blocks of the skeleton:

    {% extends "base.html" %}
    {% from "parts.html" import drawings, facts %}
    {% block title %}...{% endblock %}
    {% block content %}...{% endblock %}
    {% block footer %}...{% endblock %}

All that is put into a template is escaped, but for the SVG of a :class:`~benchmarks.reports.drawing.Plot`:
Matplotlib has escaped every text in it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jinja2 import Environment


@dataclass(frozen=True, slots=True)
class FactRow:
    """A name and its values, one for each report; ``differs`` marks it."""

    cells: Sequence[str]
    differs: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """A table of names and values for the macro ``facts``; it needs headings for several values a name."""

    title: str
    rows: Sequence[FactRow]
    headings: Sequence[str] = ()
    folded: bool = False


def render(package: str, template: str, **values: Any) -> str:
    """The page that ``templates/TEMPLATE`` of ``package`` makes of ``values``; one that lacks raises."""
    return _environment(package).get_template(template).render(values)


@functools.cache
def _environment(package: str) -> Environment:
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("benchmarks.reports")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
