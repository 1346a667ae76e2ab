"""Data inside a page: no text closes its script element, and no number is one that JSON lacks."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kvar.report.page.script_json import script_json

EVIL = ["</script>", "<!-- <script>", "]]>", "\u2028\u2029", "&lt;", '"\\', "\ud800", "\x00"]


def test_any_text_is_plain_ascii_and_comes_back_whole():
    text = script_json({name: [name] for name in EVIL})
    assert text.isascii() and not set(text) & set("<>&")
    assert json.loads(text) == {name: [name] for name in EVIL}


def test_numbers_that_json_lacks_are_null_or_named():
    values = {"a": np.array([1.0, np.nan, np.inf, -np.inf]), "b": np.float32(0.1), "c": np.int64(7), "d": (True, None)}
    text = script_json(values)
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": [1, None, "inf", "-inf"], "b": 0.1, "c": 7, "d": [True, None],
    }  # fmt: skip


def test_numbers_keep_their_leading_digits():
    for value in (1.23456789e-12, 9.87654321e20, -123456.789, 0.0, 5e-324, 1e308):
        assert json.loads(script_json(value)) == pytest.approx(value, rel=1e-4, abs=1e-323)
