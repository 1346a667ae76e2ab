"""What ``kvar.hooks.OutputLayerProbe`` recorded at every step, pooled over windows of steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kvar.analysis.statistic_table import estimate
from kvar.analysis.step.efficiency import signed_square
from kvar.intervals.jackknife import Array, Estimate

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["output_layer_statistics"]


def output_layer_statistics(
    metrics: pd.DataFrame,
    window: int = 50,
    batch: float = 64,
    split: str = "output-layer",
    centres: Sequence[int] | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Statistics of the output layer along a training, a window of steps at a time.

    Each step's power E|g|^2 and inner products of means are unbiased, theory.md (12); each is averaged over the steps
    of the window that have it, by trajectories, before differences and ratios are formed. Intervals are by delete-one
    jackknife over the steps, which treats the policy as standing still in a window. The reference of the efficiency
    (11') is the probe's first estimator. A window without means (``means_every``) has NaN for everything.

    Args:
        metrics: a run's table ``metrics``.
        window: steps in a window.
        batch: B of (11').
        split: the probe's name.
        centres: middle steps of the windows; by default windows that follow each other.
        confidence: of the intervals.

    Returns:
        Columns step (the window's middle), kernel, statistic (trace, signal, relative_variance, efficiency), value,
        low, high, n (steps in the window). Empty windows are left out.

    Raises:
        ValueError: no such split, or a window below one step.
    """
    import pandas as pd

    if window < 1:
        raise ValueError(f"window must be at least 1 step; got {window}.")
    rows = metrics[metrics["split"].astype(str) == split]
    if not len(rows):
        raise ValueError(f"metrics holds no split {split!r}: train with kvar.hooks.OutputLayerProbe(name={split!r}).")
    wide = rows.assign(name=rows["name"].astype(str)).pivot_table(index="step", columns="name", values="value")
    kernels = [name.removeprefix("power ") for name in dict.fromkeys(rows["name"].astype(str)) if name[:6] == "power "]
    steps = wide.index.to_numpy()
    middles = np.arange(steps.min() + window // 2, steps.max() + 1, window) if centres is None else np.asarray(centres)
    out = []
    for middle in middles:
        inside = wide[(steps >= middle - window / 2) & (steps < middle + window / 2)]
        if not len(inside):
            continue
        weight = inside["n"].to_numpy()
        parts = {
            part: inside.reindex(columns=[f"{part} {kernel}" for kernel in kernels]).to_numpy()
            for part in ("power", "signal", "inner")
        }
        for statistic, pooled in _estimates(parts, weight, batch, confidence).items():
            for e, kernel in enumerate(kernels):
                out.append((int(middle), kernel, statistic, pooled.value[e], pooled.low[e], pooled.high[e], pooled.n))
    return pd.DataFrame(out, columns=["step", "kernel", "statistic", "value", "low", "high", "n"])


def _estimates(parts: dict[str, Array], weight: Array, batch: float, confidence: float) -> dict[str, Estimate]:
    """Statistics of one window from its steps' (U, E) unbiased parts and (U,) trajectories."""
    units = len(weight)
    power, signal, inner = (_left_out(parts[name], weight) for name in ("power", "signal", "inner"))
    trace = power - signal
    true = signal[:, :1]
    with np.errstate(all="ignore"):
        square = (signal + trace / batch) * np.where(true > 0, true, np.nan)
        each = {
            "trace": trace,
            "signal": signal,
            "relative_variance": trace / np.where(signal > 0, signal, np.nan),
            "efficiency": np.where(square > 0, signed_square(inner) / square, np.nan),
        }
    if units < 2:
        each = {name: values[:1] for name, values in each.items()}
    return {name: estimate(name, values, units, confidence) for name, values in each.items()}


def _left_out(values: Array, weight: Array) -> Array:
    """(1 + U, E) weighted means over the steps that have a value: over all, then with each step left out."""
    known = np.isfinite(values) * weight[:, None]
    terms = known * np.where(np.isfinite(values), values, 0.0)
    none = np.zeros((1, values.shape[1]))
    with np.errstate(all="ignore"):
        return np.asarray(
            (terms.sum(axis=0) - np.concatenate([none, terms])) / (known.sum(axis=0) - np.concatenate([none, known]))
        )
