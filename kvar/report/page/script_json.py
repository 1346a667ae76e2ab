"""Data as JSON that is safe inside a script element."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

__all__ = ["script_json"]


def script_json(value: Any, digits: int = 5) -> Markup:
    r"""Plain ASCII JSON without ``<``, ``>`` and ``&``: no text can close the script element or open a comment in it.

    Args:
        value: mappings, lists, tuples, numpy arrays and scalars, texts, numbers, None.
        digits: significant digits of numbers. NaN becomes null, infinity the text "inf" or "-inf".

    >>> print(script_json({"a": ["</script><!--\u2028", float("nan"), float("inf"), 1 / 3, 2.0, 12345678]}))
    {"a":["\u003c/script\u003e\u003c!--\u2028",null,"inf",0.33333,2,12345678]}
    """
    return htmlsafe_json_dumps(_plain(value, digits), allow_nan=False, separators=(",", ":"))


def _plain(value: Any, digits: int) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item, digits) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, digits) for item in value]
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return _plain(value.tolist(), digits)
    if isinstance(value, float):
        return _number(value, digits)
    return value


def _number(value: float, digits: int) -> float | int | str | None:
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded
