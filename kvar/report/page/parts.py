"""Pieces of the report page; every text that comes from outside is escaped here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from kvar.analysis.frames.statistics_frame import at_step, find, students
from kvar.analysis.statistic_table import MEANINGS
from kvar.intervals import number
from kvar.plots.parts.style import student_series
from kvar.report.page.sections import head_html

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["figure_html", "flatten", "mapping_html", "samples_html", "statistics_html", "verdict_html"]


def verdict_html(paragraphs: Sequence[Sequence[str]]) -> str:
    """The verdict: paragraphs of sentences."""
    texts = [escape(" ".join(paragraph)) for paragraph in paragraphs]
    return "\n".join(f"<p>{re.sub(r'(K) (=) |(?<=[0-9]) (?=%)', _glue, text)}</p>" for text in texts)


def _glue(match: re.Match[str]) -> str:
    """The same text with spaces at which no line may break."""
    return match.group().replace(" ", "\u00a0")


def figure_html(title: str, uri: str) -> str:
    """A picture with its title below."""
    name = escape(title)
    return f'<figure><img src="{escape(uri)}" alt="{name}"><figcaption>{name}</figcaption></figure>'


def _cell(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return '<td class="number" title="not measured">-</td>'
    span = "" if math.isnan(low) or math.isnan(high) else f"<small>{number(low)} to {number(high)}</small>"
    return f'<td class="number" data-v="{value!r}">{number(value, 3)}{span}</td>'


def statistics_html(frame: pd.DataFrame, *, group: str = "all", step: int | str = "last") -> str:
    """Every statistic of every student and kernel with its interval, one line a pair, each column sortable."""
    labels = {name: look.label for name, look in student_series(frame).items()}
    present = set(frame[frame["group"] == group]["statistic"])
    names = [name for name in MEANINGS if name in present] + sorted(present - set(MEANINGS))
    table: dict[str, dict[tuple[str, str], tuple[float, float, float]]] = {}
    for name in names:
        rows = find(frame, name, group=group, step=step, only_k=False)
        ends = rows[["value", "low", "high"]].to_numpy(dtype=float).tolist()
        table[name] = dict(zip(zip(rows["student"], rows["kernel"], strict=True), map(tuple, ends), strict=True))
    shown = at_step(frame[frame["group"] == group], step).sort_values(["parameters", "student", "k"], kind="stable")
    order = {name: i for i, name in enumerate(students(frame))}
    lines, seen = [], set()
    for student, kernel, k, step_, n in zip(
        shown["student"], shown["kernel"], shown["k"], shown["step"], shown["n"], strict=True
    ):
        key = (student, kernel)
        if key in seen:
            continue
        seen.add(key)
        rank = 1e9 if math.isnan(k) else 1e6 if math.isinf(k) else k
        left = (
            f'<th scope="row" data-v="{order[student]}">{escape(labels[student])}</th>'
            f'<td data-v="{rank!r}">{escape(str(kernel))}</td>'
            f'<td class="number" data-v="{int(step_)}">{int(step_)}</td>'
            f'<td class="number" data-v="{int(n)}">{int(n)}</td>'
        )
        blank = (math.nan, math.nan, math.nan)
        lines.append(f"<tr>{left}{''.join(_cell(*table[name].get(key, blank)) for name in names)}</tr>")
    head = [("student", "name and parameters"), ("kernel", ""), ("step", "training step"), ("n", "trajectories")]
    head += [(name.replace("_", " "), MEANINGS.get(name, "")) for name in names]
    top = head_html(head, [i > 1 for i in range(len(head))])
    body = "\n".join(lines)
    return f'<div class="wide"><table class="sortable">{top}<tbody>\n{body}\n</tbody></table></div>'


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names.

    >>> flatten({"model": {"layers": 2, "names": ["a", "b"]}, "seed": 0})
    {'model.layers': 2, 'model.names': ['a', 'b'], 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def mapping_html(values: Mapping[str, Any]) -> str:
    """Settings as a table of two columns."""
    lines = "\n".join(
        f'<tr><th scope="row">{escape(str(name))}</th><td class="text">{escape(str(value))}</td></tr>'
        for name, value in flatten(values).items()
    )
    return f'<div class="wide"><table class="pairs"><tbody>\n{lines}\n</tbody></table></div>'


def samples_html(samples: Sequence[Mapping[str, Any]]) -> str:
    """Texts of models, one sample a line; whatever they contain is shown as text."""
    names = list(dict.fromkeys(name for sample in samples for name in sample))
    head = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in names)
    lines = "\n".join(
        "<tr>" + "".join(f'<td class="text">{escape(str(sample.get(name, "")))}</td>' for name in names) + "</tr>"
        for sample in samples
    )
    table = f'<table class="samples"><thead><tr>{head}</tr></thead><tbody>\n{lines}\n</tbody></table>'
    return f'<div class="wide">{table}</div>'
