"""The page in a real browser."""

import pytest

from peftsearch.report.write_up import write_up
from peftsearch.study.record import read_record
from tests.browser import needs_chromium, open_page

pytestmark = [needs_chromium, pytest.mark.slow]


@pytest.fixture(scope="module")
def page(finished, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(write_up(read_record(finished)), encoding="utf-8")
    return path


def test_every_chart_is_drawn_without_an_error_or_a_request(page):
    seen = open_page(page)
    assert seen["console"] == []
    assert seen["asked"] == []
    n_charts = page.read_text().count('<div class="chart"')
    assert n_charts > 8
    assert seen["dom"].count('data-drawn="1"') == n_charts
    assert "fill: rgb(28, 33, 40)" in seen["dom"]  # texts of charts in the ink of the light theme
    assert "alert" in seen["dom"]  # the hostile name is there as text
    assert "<script>alert" not in seen["dom"]
    assert "<img src=x" not in seen["dom"]


def test_a_phone_in_the_dark(page):
    seen = open_page(page, probe=True, phone=True, dark=True)
    facts = seen["facts"]
    assert seen["console"] == []
    assert facts["width"] == 390
    assert facts["first"] == facts["redrawn"] == facts["charts"] > 8
    assert facts["options"] == 4  # params, train_flops, step_s, peak_memory_bytes
    assert facts["scroll"] <= 0
    assert facts["overflow"] <= 0
    assert (facts["body"], facts["font"]) == ("rgb(14, 17, 22)", "rgb(230, 234, 239)")
    assert facts["sorted"] == sorted(facts["sorted"], reverse=True)
    assert facts["left"] == 0


def test_a_page_that_asks_for_something_is_seen(page, tmp_path):
    """The test above can fail: a request and an error are noticed."""
    bad = tmp_path / "bad.html"
    body = '<body><img src="/picture.png"><script>console.error("broken")</script></body>'
    bad.write_text(f"<!DOCTYPE html><html>{body}</html>")
    seen = open_page(bad)
    assert "/picture.png" in seen["asked"]
    assert any("broken" in line for line in seen["console"])
