"""What every measured cell came to, as three frames, joined to what was kept of earlier runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from figures.acting.cells import BATCH
from figures.acting.tune import read_points
from figures.estimators.collect import statistics
from kvar.measurement import is_measurement
from kvar.records import TABLES
from kvar.records import load as load_records
from kvar.records.study_folder import cell_parts, read_cells

CELL = ["task", "method", "rate", "seed"]
GRADIENTS = ["step", "estimator", "target", "statistic", "value", "low", "high", "n", "units_to_resolve"]
CHOICES = [
    "step", "estimator", "previous", "changed", "target", "gain", "gain_low", "gain_high", "efficiency", "reason",
    "seconds",
]  # fmt: skip


def collect(runs: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Points, gradients and choices of every cell that has them."""
    points = read_points(runs)
    points.loc[points["method"] == "start", "step"] = 0
    tests, gradients, choices = [], [], []
    for name in read_cells(runs):
        folder, at = runs / name, cell_of(name)
        if (folder / "points.json").is_file() and (folder / "evaluation.json").is_file():
            metrics = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["metrics"]
            tests.append({**at, **{f"test_{k}": v for k, v in metrics.items() if isinstance(v, int | float)}})
        gradients += [measured(path).assign(**at) for path in sorted(folder.glob("measured-*")) if is_measurement(path)]
        if "choices" in TABLES and (folder / "choices").is_dir():
            choices.append(chosen_in(folder).assign(**at))
    last = points["step"] == points.groupby(CELL, dropna=False)["step"].transform("max")
    points = points.merge(joined([pd.DataFrame(tests)], []), "left", on=CELL)
    points.loc[~last, [c for c in points if c.startswith("test_")]] = float("nan")
    return points, joined(gradients, GRADIENTS), joined(choices, CHOICES)


def with_earlier(frame: pd.DataFrame, earlier: pd.DataFrame) -> pd.DataFrame:
    """The rows of a frame, and those of the cells that only an earlier one has.

    Raises:
        ValueError: points of starts that differ: students or teachers are others, which cannot be compared.
    """
    if "J" in frame:
        keys = ["task", "seed", "step"]
        starts = (part[part["method"] == "start"].set_index(keys)["J"] for part in (frame, earlier))
        now, then = pd.concat(starts, axis=1, join="inner").to_numpy().T
        if not (abs(now - then) <= 1e-9 * abs(then)).all():
            raise ValueError("starts differ from those of the data kept: analyse these runs into another --output.")
    made = pd.MultiIndex.from_frame(frame[CELL])
    old = earlier[~pd.MultiIndex.from_frame(earlier[CELL]).isin(made)]
    return pd.concat([old, frame], ignore_index=True)


def cell_of(name: str) -> dict[str, Any]:
    """Task, method, rate and seed of a cell's name; the rate of a start is NaN."""
    task, _, whole, seed = cell_parts(name)
    method, _, rate = whole.partition("@")
    return {"task": task, "method": method, "rate": float(rate or "nan"), "seed": int(seed or 0)}


def joined(frames: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """One frame, the cell's columns first; without rows where there is none."""
    if not frames:
        return pd.DataFrame(columns=[*CELL, *columns])
    joint = pd.concat(frames, ignore_index=True)
    return joint[[*CELL, *(c for c in joint if c not in CELL)]]


def measured(folder: Path) -> pd.DataFrame:
    """Statistics of ``measured-STEP``, and verl's proxy of each estimator's power as the statistic ``proxy``."""
    step = int(folder.name.removeprefix("measured-"))
    rows = [statistics(folder, BATCH)]
    proxies = folder.with_name(f"{folder.name}.proxy.json")
    if proxies.is_file():
        powers = json.loads(proxies.read_text(encoding="utf-8"))
        values = {"estimator": list(powers), "value": list(powers.values())}
        rows.append(pd.DataFrame({"target": "", "statistic": "proxy", **values}))
    return pd.concat(rows, ignore_index=True).assign(step=step)


def chosen_in(folder: Path) -> pd.DataFrame:
    """A run's choices, each with the efficiency that was measured of the estimator chosen, where that is recorded."""
    run = load_records(folder)
    choices = run.read("choices")
    if "candidates" in TABLES and "efficiency" not in choices:
        candidates = run.read("candidates").astype({"estimator": str})
        told = candidates.set_index(["step", "estimator"])["efficiency"]
        keys = pd.MultiIndex.from_arrays([choices["step"], choices["estimator"].astype(str)])
        choices = choices.assign(efficiency=told[~told.index.duplicated()].reindex(keys).to_numpy())
    wide = choices.reindex(columns=CHOICES)
    return wide.astype({c: str for c in ("estimator", "previous", "target", "reason")})
