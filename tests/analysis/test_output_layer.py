"""Pooling of the output layer's per-step parts: right on average, with intervals that cover."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kvar.analysis.output_layer import output_layer_statistics

MEAN = np.array([[3.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
"""E g of two estimators, each with independent unit noise in four dimensions: tr Cov = 4."""
N = 16


def metrics(steps: int, seed: int, means_every: int = 1) -> pd.DataFrame:
    """What a probe would record: (12) from N trajectories at every step."""
    rng = np.random.default_rng(seed)
    rows = []
    for step in range(steps):
        g = MEAN[:, None] + rng.standard_normal((2, N, 4))
        total = g.sum(axis=1)
        inner = (total @ total.T - np.einsum("eik,fik->ef", g, g)) / (N * (N - 1))
        numbers = {"n": N, "seconds": 0.1}
        for e, name in enumerate(("K=1", "K=4")):
            numbers[f"power {name}"] = (g[e] ** 2).sum() / N
            if step % means_every == 0:
                numbers |= {f"signal {name}": inner[e, e], f"inner {name}": inner[e, 0]}
        rows += [{"step": step, "split": "output-layer", "name": k, "value": v} for k, v in numbers.items()]
    return pd.DataFrame(rows)


TRUTH = {
    ("trace", "K=1"): 4.0,
    ("trace", "K=4"): 4.0,
    ("signal", "K=1"): 9.0,
    ("signal", "K=4"): 2.0,
    ("relative_variance", "K=4"): 2.0,
    ("efficiency", "K=1"): 9 / (9 + 4 / 64),
    ("efficiency", "K=4"): 1 / (2 + 4 / 64),
}


@pytest.mark.parametrize("means_every", [1, 2])
def test_pooled_statistics_are_the_truth_and_covered(means_every: int) -> None:
    frames = [output_layer_statistics(metrics(20, seed, means_every), window=20) for seed in range(60)]
    both = pd.concat(frames)
    assert set(both["step"]) == {10} and set(both["n"]) == {20}
    for (statistic, kernel), exact in TRUTH.items():
        own = both[(both["statistic"] == statistic) & (both["kernel"] == kernel)]
        error = own["value"].std() / 60**0.5
        assert abs(own["value"].mean() - exact) < 4 * error + 0.005 * exact, (statistic, kernel)
        inside = ((own["low"] <= exact) & (exact <= own["high"])).sum()
        assert inside >= 50, (statistic, kernel, inside)  # 60 x 0.95 = 57, less four standard deviations


def test_windows() -> None:
    frame = metrics(25, 0)
    assert sorted(output_layer_statistics(frame, window=10)["step"].unique()) == [5, 15]
    found = output_layer_statistics(frame, window=4, centres=[0, 24, 90])
    assert found.groupby("step")["n"].first().to_dict() == {0: 2, 24: 3}
    assert output_layer_statistics(metrics(25, 0, 10), window=4, centres=[6])["value"].isna().all()
    one = output_layer_statistics(frame, window=1, centres=[3])
    assert one["low"].isna().all()
    with pytest.raises(ValueError, match="window must be at least 1"):
        output_layer_statistics(frame, window=0)
    with pytest.raises(ValueError, match="no split 'other'"):
        output_layer_statistics(frame, split="other")
