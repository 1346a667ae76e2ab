"""Sections of the report from any table: escaped, numeric where numbers are, capped aloud."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kvar.intervals import Interval
from kvar.report import section
from tests.report.test_html import EVIL, Page


def test_a_section_shows_any_table_as_text_and_numbers():
    frame = pd.DataFrame(
        {
            EVIL: [EVIL, None],
            "n": np.array([3, 12345], dtype=np.int64),
            "score": [0.123456, np.nan],
            "cell": [Interval(2.0, 1.0, 3.0), Interval(float("nan"))],
            "flag": [True, False],
        }
    )
    page = Page(section(EVIL, frame, EVIL))
    assert page.text().count(EVIL) == 4  # heading, remark, head, cell
    assert not page.all("script") and not page.all("img")
    values = [attrs.get("data-v") for attrs in page.all("td")]
    assert values == [None, "3.0", "0.123456", "2.0", None, None, "12345.0", None, None, None]
    assert "2<small>1 to 3</small>" in section("t", frame)
    assert "12345" in page.text() and "nan" not in page.text()
    kinds = [attrs.get("class") for attrs in page.all("th")]
    assert kinds == [None, "number", "number", "number", None]


def test_a_long_table_is_cut_and_says_so():
    frame = pd.DataFrame({"x": range(500)})
    page = Page(section("t", frame, most=10))
    assert len(page.all("tr")) == 11
    assert "The first 10 of 500 rows." in page.text()
    assert "rows." not in Page(section("t", frame.head(10), most=10)).text()
