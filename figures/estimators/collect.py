"""What every measured cell came to, as two frames."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

import kvar
from figures.estimators.cells import BATCH, TARGETS
from kvar.analysis import cosine, noise_scale, signal, trace_covariance
from kvar.analysis.frames.reference import default_reference
from kvar.analysis.targets import toward, units_for_sign
from kvar.measurement import is_measurement
from kvar.records.study_folder import cell_parts, read_cells


def collect(runs: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every number of every cell that is measured."""
    gradients, points = [], []
    for name in read_cells(runs):
        task, student, method, seed = cell_parts(name)
        at = {"task": task, "student": student, "method": method, "seed": int(seed or 0)}
        folder = runs / name
        if (folder / "points.json").is_file():
            rows = json.loads((folder / "points.json").read_text(encoding="utf-8"))
            test = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["metrics"]
            rows[-1] |= {f"test_{key}": value for key, value in test.items() if isinstance(value, int | float)}
            points.append(pd.DataFrame(rows).assign(**at))
        if is_measurement(folder / "measured"):
            gradients.append(statistics(folder / "measured").assign(**at))
            print(name, flush=True)
    return tuple(  # type: ignore[return-value]
        joint[[*at, *(c for c in joint if c not in at)]]
        for joint in (pd.concat(frames, ignore_index=True) for frames in (gradients, points))
    )


def statistics(folder: Path, batch: int = BATCH) -> pd.DataFrame:
    """A measurement's numbers, of a step of ``batch``: one row an estimator, target ("" for none) and statistic."""
    moments = kvar.load(folder).moments
    parts = []
    for statistic, estimate in {
        "trace": trace_covariance(moments),
        "relative_variance": noise_scale(moments),
        "signal": signal(moments),
    }.items():
        parts.append(
            pd.DataFrame(
                {
                    "target": "",
                    "estimator": moments.names,
                    "statistic": statistic,
                    "value": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                    "units_to_resolve": units_for_sign(estimate) if statistic == "signal" else np.nan,
                    "n": estimate.n,
                }
            )
        )
    table = toward(moments, TARGETS, batch)
    for target in TARGETS:
        own = table[table["target"] == target]
        agreement = cosine(moments, batch=batch, reference=default_reference(moments.names, target))
        same = {"target": target, "estimator": moments.names, "n": own["units"].to_numpy()}
        parts += [
            pd.DataFrame(
                {
                    **same,
                    "statistic": "efficiency",
                    "value": own["efficiency"].to_numpy(),
                    "low": own["efficiency_low"].to_numpy(),
                    "high": own["efficiency_high"].to_numpy(),
                    "units_to_resolve": own["units_to_resolve"].to_numpy(),
                }
            ),
            pd.DataFrame({**same, "statistic": "bias", "value": own["bias"].to_numpy()}),
            pd.DataFrame(
                {
                    **same,
                    "statistic": "cosine",
                    "value": agreement.value,
                    "low": agreement.low,
                    "high": agreement.high,
                    "units_to_resolve": units_for_sign(agreement),
                }
            ),
        ]
    return pd.concat(parts, ignore_index=True)
