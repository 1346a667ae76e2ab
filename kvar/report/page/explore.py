"""The data of the page's interactive plot, a statistics frame in a compact form."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from kvar.analysis.frames.across_seeds import across_seeds
from kvar.analysis.statistic_table import MEANINGS, TABLE
from kvar.plots.parts.style import OKABE_ITO, names_count
from kvar.plots.parts.ticks import compact_count

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MEAN", "MOST_VALUES", "explore_data", "with_means"]

MOST_VALUES = 250_000
"""Most values, each with its interval, on a page, about 6 MB; groups, then early steps, are left out."""

MEAN = "mean over seeds"
"""The seed of an average over seeds."""

_FACETS = ("task", "student", "method", "seed")


def explore_data(frame: pd.DataFrame, most: int = MOST_VALUES) -> dict[str, Any]:
    """A statistics frame by line, step and parameter group, with means over seeds.

    Args:
        frame: a statistics frame; the columns "student" and, if present, "task", "method" and "seed" identify its runs.
        most: number of values, each with its interval, to keep: groups "all" first, last steps before early ones.

    Returns:
        facets, each with its values in order; kernels (name, k) and statistics (name, meaning, whether on a log scale);
        lines, each with its facets and parameters; blocks [line, step, group, {statistic: [values, lows, highs, n]}],
        each list one number a kernel, n one number where all have the same; shown and measured, how many values.
    """
    frame = with_means(frame[frame["value"].notna()])
    order = ["parameters", *_FACETS]
    lines = frame[order].drop_duplicates(list(_FACETS)).sort_values(order, kind="stable", key=_natural)
    kernels = frame[["kernel", "k"]].drop_duplicates("kernel").sort_values("k", kind="stable", na_position="last")
    present = set(frame["statistic"])
    statistics = [name for name in MEANINGS if name in present] + sorted(present - set(MEANINGS))
    blocks, shown = _blocks(frame, lines, list(kernels["kernel"]), statistics, most)
    groups = list(dict.fromkeys(frame["group"].astype(str)))
    return {
        "facets": {
            name: list(dict.fromkeys(lines[name] if name == "student" else lines[name].sort_values(key=_natural)))
            for name in _FACETS
        },
        "kernels": list(zip(kernels["kernel"], kernels["k"].astype(float), strict=True)),
        "statistics": [
            (name, MEANINGS.get(name, name.replace("_", " ")), name in TABLE and TABLE[name].log) for name in statistics
        ],
        "groups": sorted(groups, key=lambda name: name != "all"),
        "lines": [
            {**row, "size": _size(str(row["student"]), float(row["parameters"]))} for row in lines.to_dict("records")
        ],
        "blocks": blocks,
        "shown": shown,
        "measured": len(frame),
        "palette": OKABE_ITO,
        "mean": MEAN,
    }


def with_means(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with every facet, and the means over seeds where there are several.

    The means' seed is :data:`MEAN`; their intervals are t intervals over the seeds, and their n is the number of seeds.
    """
    import pandas as pd

    frame = frame.assign(**{name: frame[name].astype(str) if name in frame else "" for name in _FACETS})
    keys = ["task", "student", "method", "parameters", "step", "group", "kernel", "k", "statistic"]
    many = frame.groupby(["task", "student", "method"], observed=True)["seed"].transform("nunique") > 1
    if not many.any():
        return frame
    means = across_seeds(frame[many], by=keys)
    return pd.concat([means.drop(columns="within").assign(seed=MEAN), frame], ignore_index=True)


def _size(student: str, count: float) -> str:
    """A parameter count, or "" where the student's name contains it."""
    return "" if math.isnan(count) or names_count(student, int(count)) else compact_count(count)


def _natural(values: pd.Series) -> pd.Series:
    """Sort keys that put means before seeds and K=2 before K=16."""
    if values.dtype.kind in "iuf":
        return values
    parts = r"\d+|\D+"
    return values.map(
        lambda text: tuple((int(p), "") if p.isdigit() else (-1, p) for p in re.findall(parts, str(text)))
    )


def _blocks(
    frame: pd.DataFrame, lines: pd.DataFrame, kernels: list[str], statistics: list[str], most: int
) -> tuple[list[list[Any]], int]:
    where = {tuple(row): i for i, row in enumerate(lines[list(_FACETS)].itertuples(index=False, name=None))}
    last = frame.groupby(list(_FACETS))["step"].transform("max")
    frame = frame.assign(
        early=(frame["group"] != "all") * 2 + (frame["step"] != last),
        line=[where[row] for row in frame[list(_FACETS)].itertuples(index=False, name=None)],
        at=frame["kernel"].map({name: i for i, name in enumerate(kernels)}),
        number=frame["statistic"].map({name: str(i) for i, name in enumerate(statistics)}),
    )
    by_block = frame.groupby(["early", "line", "step", "group"], observed=True)
    total = by_block.size().cumsum()
    frame = frame[(by_block.ngroup() == 0) | (total.to_numpy()[by_block.ngroup()] <= most)]
    columns = ["line", "step", "group", "n", "number", "at", "value", "low", "high"]
    blocks: dict[tuple[int, int, str], list[Any]] = {}
    for line, step, group, n, name, at, *ends in frame[columns].itertuples(index=False, name=None):
        block = blocks.setdefault((line, step, group), [line, int(step), str(group), {}])
        lists = block[3].setdefault(name, [[math.nan] * len(kernels) for _ in range(4)])
        for numbers, number in zip(lists, (*ends, n), strict=True):
            numbers[at] = float(number)
    for block in blocks.values():
        for lists in block[3].values():
            known = {n for n in lists[3] if not math.isnan(n)}
            lists[3] = known.pop() if len(known) == 1 else lists[3]
    return list(blocks.values()), len(frame)
