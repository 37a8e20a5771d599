"""The frame of every page."""

from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from instil.report.template import fill

STUDY = {
    **{"title": "A & B", "summary": "<i>", "counts": [("reproduced", 1)], "total": 2},
    **{"sizes": (), "findings": [], "glance": None, "figures": []},
}


def test_a_page_has_its_title_its_style_and_no_markup_of_ours_to_run():
    page = fill("study.html", {**STUDY, "means": {"columns": [], "lines": []}})
    assert page.startswith("<!doctype html>")
    assert "<title>A &amp; B</title>" in page and "&lt;i&gt;" in page
    assert "default-src 'none'" in page and "--accent" in page


def test_what_a_page_needs_and_is_not_given_is_an_error():
    with pytest.raises(UndefinedError, match="means"):
        fill("study.html", STUDY)
