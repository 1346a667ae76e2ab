"""Small frames of every table, whole groups of rows at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

CONFIG = {"seed": 3, "kernels": ["llmr", "ketchup-4"], "optimiser": {"lr": 1e-3}}


@pytest.fixture
def config() -> dict[str, object]:
    return dict(CONFIG)


@pytest.fixture
def metrics() -> Callable[..., pd.DataFrame]:
    """metrics(step, value=..., rows=...): one metric in ``rows`` splits."""

    def build(step: int, value: float = 0.5, rows: int = 1) -> pd.DataFrame:
        splits = [f"split{row}" for row in range(rows)]
        return pd.DataFrame({"step": step, "split": splits, "name": "loss", "value": value})

    return build


@pytest.fixture
def frames() -> dict[str, pd.DataFrame]:
    """A few random rows of each table, columns in schema order."""
    rng = np.random.default_rng(0)
    n = 6
    common = {"probe": ["fixed"] * n, "step": [5] * n}
    pair = {"group": ["all"] * n, "estimator": ["llmr", "ketchup-4"] * 3, "other": ["llmr"] * n}
    return {
        "trajectories": pd.DataFrame(
            {
                **common,
                "trajectory": [0, 0, 0, 1, 1, 2],
                "prompt": [0, 0, 0, 0, 0, 1],
                "position": [0, 1, 2, 0, 1, 0],
                "token": rng.integers(0, 4096, n),
                "q": rng.normal(size=n),
                "v": rng.normal(size=n) + 5,
                "log_prob": -rng.random(n),
                "length": [3, 3, 3, 2, 2, 1],
                "finished": [True, True, True, False, False, True],
            }
        ),
        "gradients": pd.DataFrame(
            {
                **common,
                **pair,
                "trajectory": [0, 0, 1, 1, 2, 2],
                "prompt": [0, 0, 0, 0, 1, 1],
                "pair": rng.normal(size=n),
                "cross": [0.25, np.nan, 1e-300, -1e300, 0.0, 1.0],
            }
        ),
        "prompt_gradients": pd.DataFrame(
            {**common, **pair, "prompt": [0, 0, 1, 1, 2, 2], "prompt_pair": rng.normal(size=n)}
        ),
        "choices": pd.DataFrame(
            {
                **common,
                "estimator": ["K=1", "K=4"] * 3,
                "previous": ["K=4"] * n,
                "changed": [True, False] * 3,
                "target": ["data"] * n,
                "batch": [64] * n,
                "gain": [0.25, np.nan, 1e-300, -1e300, 0.0, 1.0],
                "gain_low": rng.normal(size=n),
                "gain_high": rng.normal(size=n),
                "reason": ["It gains.", "It does not."] * 3,
                "seconds": rng.random(n),
            }
        ),
        "candidates": pd.DataFrame(
            {
                **common,
                "estimator": ["K=1", "K=4"] * 3,
                "efficiency": [0.25, np.nan, 1e-300, -1e300, 0.0, 1.0],
                "efficiency_low": rng.normal(size=n),
                "efficiency_high": rng.normal(size=n),
            }
        ),
        "metrics": pd.DataFrame(
            {"step": [1, 2], "split": ["train", "test"], "name": ["loss", "bleu"], "value": [1, 2.5]}
        ),
    }
