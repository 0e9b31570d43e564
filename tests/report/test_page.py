"""The scaffold of a page."""

import importlib.util
import json
import re
from html.parser import HTMLParser

import pytest

from peftsearch.errors import ReportError
from peftsearch.report.page import Chart, Choice, Drawing, Grid, Section, Table, Text, label, page, plotly_js

HOSTILE = "</script><script>alert(1)</script>\"'&"


class Outline(HTMLParser):
    """Tags and texts of a document as a parser sees them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.texts, self._inside = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._inside = tag
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        (self.scripts if self._inside == "script" else self.texts).append(data)

    def handle_endtag(self, tag):
        self._inside = ""


def outline(*items, title="Title", subtitle=""):
    text = page(title, [Section(title="One", items=items)], subtitle)
    return Outline(text.replace(plotly_js(), "PLOTLY")), text


def chart(text="x", **more):
    figure = {"data": [{"type": "scatter", "x": [1.0, float("nan"), float("inf")], "y": [1, 2, 3], "text": [text] * 3}]}
    return Chart(figure=figure, description=text, caption=text, **more)


def test_no_text_becomes_a_tag():
    items = [
        Text(text=HOSTILE),
        Text(text=HOSTILE, kind="code"),
        Table(columns=[HOSTILE], rows=[[HOSTILE]], caption=HOSTILE, folded=True),
        Choice(label=HOSTILE, charts={HOSTILE: chart(HOSTILE, title=HOSTILE), "b": chart()}),
    ]
    seen, _ = outline(*items, title=HOSTILE, subtitle=HOSTILE)
    harmless, _ = outline(
        Text(text="x"),
        Text(text="x", kind="code"),
        Table(columns=["x"], rows=[["x"]], caption="x", folded=True),
        Choice(label="x", charts={"a": chart("x", title="x"), "b": chart()}),
        subtitle="x",
    )
    assert [tag for tag, _ in seen.tags] == [tag for tag, _ in harmless.tags]
    assert "".join(seen.texts).count(HOSTILE) == 12


def test_nothing_is_loaded_from_elsewhere():
    seen, text = outline(chart(), Drawing(svg="<svg></svg>", caption="x"))
    assert not [
        a for tag, a in seen.tags if tag != "a" and ("src" in a or not a.get("href", "data:").startswith("data:"))
    ]
    policy = next(a["content"] for tag, a in seen.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert len(re.findall(r"'sha256-[\w+/]+=*'", policy)) == 2
    assert text.count(plotly_js()) == 1


def test_figures_are_json_with_gaps_for_what_is_not_finite():
    seen, _ = outline(chart("</script>"))
    data = next(json.loads(s) for s in seen.scripts if s.startswith("[{"))
    assert data[0]["figure"]["data"][0]["x"] == [1.0, None, None]
    assert data[0]["description"] == "</script>"


def test_numbers_sort_as_numbers_and_are_set_for_readers():
    numbers = [12345, 0.91234, 123.45, 3e9, 0.00001234, None]
    seen, text = outline(Table(columns=["n"], rows=[[n] for n in numbers], strong=frozenset({1})))
    values = [a["data-value"] for tag, a in seen.tags if tag == "td" and "data-value" in a]
    assert list(map(float, values)) == numbers[:-1]
    shown = re.findall(r"<td[^>]*>([^<]*)</td>", text)
    assert shown == ["12,345", "0.9123", "123.5", "3,000,000,000", "1.23e-05", ""]
    assert text.count('<tr class="strong">') == 1


def test_charts_side_by_side_keep_their_titles():
    _, text = outline(Grid(items=[chart(title="left"), chart(title="right")]))
    assert text.index("<h3>left</h3>") < text.index("<h3>right</h3>")
    assert text.count('<div class="chart"') == 2


def test_readers_without_javascript_are_told():
    assert "need JavaScript" in outline()[1].split("<noscript>")[1].split("</noscript>")[0]


def test_labels_reach_plotly_as_they_are():
    assert label("a<b>&'") == "a&lt;b&gt;&amp;'"


def test_a_missing_extra_is_said(monkeypatch):
    monkeypatch.setattr("peftsearch.report.page.find_spec", lambda name: None)
    with pytest.raises(ReportError, match=r'pip install "peftsearch\[report\]"'):
        page("x", [])


def test_the_extra_is_installed_where_tests_run():
    assert importlib.util.find_spec("plotly") is not None
