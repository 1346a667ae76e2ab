"""A measurement as scalars for a tracker, under stable names."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kvar.measurement import Measurement, response_numbers
from kvar.measurement.statistics import known_rollouts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PREFIX", "scalars", "scalars_of", "slugs", "step_statistics"]


PREFIX = "kvar"
"""Of every name."""


def scalars(
    measurement: Measurement,
    batch: float,
    *,
    rollouts_per_prompt: float = 1,
    target: str | None = None,
    prefix: str = PREFIX,
) -> dict[str, float]:
    """The numbers of a measurement that a tracker shows, each finite, by name; docs/howto/watch.md lists them.

    Args:
        measurement: of two trajectories or more.
        batch: B, trajectories of an optimiser step.
        rollouts_per_prompt: R of that step; taken as 1 where fewer than two prompts were measured with several.
        target: of bias and efficiency, as of :meth:`kvar.measurement.Measurement.statistics`.
        prefix: of the names.

    Returns:
        "kvar/efficiency/K4" and so on. What is not resolved or not measured, or has an infinite end, is left out.

    Raises:
        ValueError: as :meth:`kvar.measurement.Measurement.statistics`.

    Example:
        >>> import kvar
        >>> from kvar.tasks import ArithmeticTask
        >>> prompts = [example.prompt for example in ArithmeticTask().examples("validation", 4)]
        >>> m = kvar.measure("arithmetic-50k", "arithmetic", prompts, kernels="1, 4", max_new_tokens=4)
        >>> scalars(m, batch=64)["kvar/response_length"]
        4.0
    """
    frame = step_statistics(measurement, batch, rollouts_per_prompt=rollouts_per_prompt, target=target)
    return scalars_of(measurement, frame, prefix)


def step_statistics(
    measurement: Measurement, batch: float, *, rollouts_per_prompt: float = 1, target: str | None = None
) -> pd.DataFrame:
    """:meth:`kvar.measurement.Measurement.statistics` of the whole gradient, for the arguments of :func:`scalars`."""
    moments = measurement.moments
    whole = replace(measurement, moments=replace(moments, groups={"all": moments["all"]}))
    rollouts = known_rollouts(moments, rollouts_per_prompt)
    return whole.statistics(batch, rollouts_per_prompt=rollouts, target=target)


def scalars_of(measurement: Measurement, frame: pd.DataFrame | None, prefix: str = PREFIX) -> dict[str, float]:
    """:func:`scalars` from the frame of :func:`step_statistics`; those of the responses alone for None.

    Numbers that are others by their nature are left out: the relative variance where the noise scale is that, for one
    response to a prompt, and the bias of the target's own estimator.
    """
    numbers = {**response_numbers(measurement), "seconds": measurement.seconds}
    if not (measurement.values.q.any() or measurement.values.v.any()):
        numbers.pop("total_gap")  # no teacher valued the responses
    if frame is not None:
        values = {str(name): rows.set_index("kernel") for name, rows in frame.groupby("statistic")}
        names = list(values["trace"].index)
        for name, slug in zip(names, slugs(names), strict=True):
            numbers |= {f"{statistic}/{slug}": x for statistic, x in _of_estimator(values, name, frame.attrs).items()}
        numbers["batch"] = frame.attrs["batch"]
        chances = values["best_probability"]["value"]
        if chances.notna().any():
            best = str(chances.idxmax())
            numbers |= {"best/estimator": names.index(best), "best/probability": chances[best]}
    return {f"{prefix}/{name}": float(x) for name, x in numbers.items() if math.isfinite(x)}


def _of_estimator(values: dict[str, Any], name: str, step: Mapping[Any, Any]) -> dict[str, float]:
    """Statistic -> number of one estimator; NaN where a ratio's denominator is not positive.

    Args:
        values: statistic -> rows by estimator.
        name: the estimator.
        step: what the rows are for, ``attrs`` of their frame.
    """

    def of(statistic: str, column: str = "value") -> float:
        return float(values[statistic].loc[name, column])

    resolved, error = of("signal") > 0, of("mse")
    told = math.isfinite(of("efficiency"))
    return {
        "relative_variance": of("relative_variance") if resolved and step["rollouts_per_prompt"] > 1 else math.nan,
        "noise_scale": step["batch"] * of("norm_test") if resolved else math.nan,
        "snr": of("snr"),
        "efficiency": of("efficiency"),
        "efficiency_low": of("efficiency", "low") if told else math.nan,
        "efficiency_high": of("efficiency", "high") if told else math.nan,
        "bias_share": of("bias_sq") / error if error > 0 and name != step["reference"] else math.nan,
        "best_probability": of("best_probability"),
    }


def slugs(names: Sequence[str]) -> list[str]:
    """Estimators' names in letters, digits and ``_ . -``, which every tracker takes as they are.

    A name that would repeat an earlier one gets an ending.

    Example:
        >>> slugs(["K=4", "K=1 - leave-one-out", "gap K=1 exact expected", "lags(1, -0.5)"])
        ['K4', 'K1_leave-one-out', 'gap_K1_exact_expected', 'lags_1_-0.5']
        >>> slugs(["a b", "a: b"])
        ['a_b', 'a_b_2']
    """
    out: list[str] = []
    for name in names:
        slug = re.sub(r"[^A-Za-z0-9_.-]+", "_", name.replace(" - ", " ").replace("=", "")).strip("_") or "estimator"
        while slug in out:
            slug += "_2"
        out.append(slug)
    return out
