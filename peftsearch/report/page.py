"""One self-contained HTML page: sections of text, tables, plotly charts and drawings.

The page contains its own style, script and plotly.js, and its content security policy forbids all requests and all
other scripts. Light and dark mode follow the reader's system. Without JavaScript, only the charts are missing.

Colours in figures are names of the page's palette (`--blue`, see `page.css`), which differs between light and dark mode
and can be distinguished by colour-blind readers (Okabe and Ito, 2008).
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from importlib.util import find_spec
from typing import Any, Literal

from peftsearch.errors import ReportError

Figure = Mapping[str, Any]
"""A figure of plotly: `data`, a list of traces, and `layout`. Texts from users must go through `label`."""
Cell = str | int | float | None
_SHORT = 30
"""Most characters of a cell that stays on one line."""
PALETTE = ("--blue", "--orange", "--green", "--red", "--purple", "--sky", "--yellow", "--grey")
"""Colours of traces, in the order of use."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A paragraph, or lines of code."""

    text: str
    kind: Literal["plain", "lead", "note", "code"] = "plain"


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows below a header; a click on a column's name sorts them."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    """Cells by row. Numbers are aligned and sorted as numbers; None is an empty cell."""
    caption: str = ""
    folded: bool = False
    """Whether to show only the caption until it is clicked; a folded table has a field to filter its rows."""
    strong: frozenset[int] = frozenset()
    """Indices of the rows to highlight, from 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A plotly figure."""

    figure: Figure
    description: str
    """Description for readers who cannot see the chart."""
    caption: str = ""
    """Text below the chart, which explains its marks and bars."""
    height: int = 400
    """Height in pixels."""
    title: str = ""
    """Heading above the chart, for several charts side by side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Several charts in one place, from which the reader chooses; the first is shown initially."""

    label: str
    """Label of the choice."""
    charts: Mapping[str, Chart]


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """An inline SVG from trusted code, which is not escaped."""

    svg: str
    caption: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Charts side by side if there is room."""

    items: Sequence[Chart | Choice]


Item = Text | Table | Chart | Choice | Drawing | Grid


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of the page."""

    title: str
    items: Sequence[Item]


def page(title: str, sections: Sequence[Section], subtitle: str = "") -> str:
    """Render a page as HTML.

    Args:
        title: Heading, and title of the browser window.
        sections: Sections of the page, in order.
        subtitle: Line below the heading.

    Raises:
        ReportError: plotly is not installed.
    """
    style, scripts = _own("page.css"), (plotly_js(), _own("page.js"))
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'; "
        f"script-src {' '.join(map(_hash, scripts))}"
    )
    body = "\n".join(_section(section, index) for index, section in enumerate(sections))
    links = "".join(f'<a href="#s{i}">{escape(s.title)}</a>' for i, s in enumerate(sections) if s.title)
    below = f"<p>{escape(subtitle)}</p>" if subtitle else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{escape(title)}</h1>{below}<nav>{links}</nav></header>
<noscript><p class="note">The charts of this page need JavaScript; texts, tables and drawings do not.</p></noscript>
<main>
{body}
</main>
<script>{scripts[0]}</script>
<script>{scripts[1]}</script>
</body>
</html>
"""


def plotly_js() -> str:
    """The source of plotly.js, which the Python package contains.

    Raises:
        ReportError: The package is not installed.
    """
    if find_spec("plotly") is None:
        raise ReportError('the page needs plotly, which is not installed: pip install "peftsearch[report]"')
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def label(text: object) -> str:
    """Escape a text from a user for a plotly label, because plotly interprets tags and entities."""
    return escape(str(text), quote=False)


def _own(name: str) -> str:
    return resources.files("peftsearch.report").joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _section(section: Section, index: int) -> str:
    heading = f"<h2>{escape(section.title)}</h2>" if section.title else ""
    return f'<section id="s{index}">{heading}\n' + "\n".join(map(_item, section.items)) + "\n</section>"


def _item(item: Item) -> str:
    match item:
        case Text():
            return _text(item)
        case Table():
            return _table(item)
        case Chart():
            return _charts("", {"": item})
        case Choice():
            return _charts(item.label, item.charts)
        case Grid():
            return f'<div class="grid">{"".join(map(_item, item.items))}</div>'
        case Drawing():
            return f'<figure><div class="drawing">{item.svg}</div>{_caption(item.caption)}</figure>'


def _text(text: Text) -> str:
    if text.kind == "code":
        return f"<pre><code>{escape(text.text)}</code></pre>"
    return f'<p class="{text.kind}">{escape(text.text)}</p>'


def _caption(text: str) -> str:
    return f"<figcaption>{escape(text)}</figcaption>" if text else ""


def _charts(choose: str, charts: Mapping[str, Chart]) -> str:
    first = next(iter(charts.values()))
    shown = [{"figure": c.figure, "caption": c.caption, "description": c.description} for c in charts.values()]
    data = json.dumps(_finite(shown), ensure_ascii=False).replace("<", "\\u003c")  # no "</script>" ends the data
    select = ""
    if len(charts) > 1:
        options = "".join(f'<option value="{i}">{escape(name)}</option>' for i, name in enumerate(charts))
        select = f"<label>{escape(choose)} <select>{options}</select></label>"
    heading = f"<h3>{escape(first.title)}</h3>" if first.title else ""
    return (
        f'<figure class="charts">{heading}{select}<div class="chart" role="img" '
        f'aria-label="{escape(first.description)}" style="height:{int(first.height)}px"></div>'
        f"<figcaption>{escape(first.caption)}</figcaption>"
        f'<script type="application/json">{data}</script></figure>'
    )


def _finite(value: Any) -> Any:
    """Convert values to JSON; numbers that are not finite become null, a gap in a chart."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _table(table: Table) -> str:
    numeric = [any(isinstance(row[i], (int, float)) for row in table.rows) for i in range(len(table.columns))]
    mark = {True: ' class="number"', False: ""}
    head = "".join(
        f'<th scope="col"{mark[is_it]}><button type="button">{escape(name)}</button></th>'
        for name, is_it in zip(table.columns, numeric, strict=True)
    )
    marks = [' class="strong"' if i in table.strong else "" for i in range(len(table.rows))]
    rows = "\n".join(f"<tr{m}>{''.join(map(_cell, row))}</tr>" for m, row in zip(marks, table.rows, strict=True))
    grid = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>'
    if table.folded:
        search = '<input type="search" placeholder="Filter rows" aria-label="Filter rows">'
        return f"<details><summary>{escape(table.caption)}</summary>{search}{grid}</details>"
    return f"<figure>{grid}{_caption(table.caption)}</figure>"


def _cell(value: Cell) -> str:
    if value is None:
        return "<td></td>"
    if isinstance(value, str):
        return f"<td{' class=long' * (len(value) > _SHORT)}>{escape(value)}</td>"
    return f'<td class="number" data-value="{value!r}">{_number(value)}</td>'


def _number(value: float) -> str:
    """Format a number: whole numbers in full, others with a few digits."""
    if isinstance(value, int) or (abs(value) >= 10 and value.is_integer()):
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.4f}" if abs(value) >= 0.001 else f"{value:.3g}"
