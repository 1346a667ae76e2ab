"""The statistics frame of one measurement: the same numbers for what was just measured and for what was recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kvar.analysis.frames.reference import default_reference
from kvar.analysis.frames.summary import summarise
from kvar.analysis.replicates import Unit
from kvar.gradients.moments import GradientMoments
from kvar.gradients.recombine import recombine
from kvar.returns import TokenValues

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LEAST_PROMPTS", "design_unit", "measurement_frame", "sampling_unit", "whole_or_split"]

LEAST_PROMPTS = 3
"""Prompts that intervals and probabilities need."""


def measurement_frame(
    moments: GradientMoments,
    values: TokenValues,
    mask: Tensor,
    *,
    step: int,
    reference: str | None = None,
    unit: Unit = None,
    **options: Any,
) -> pd.DataFrame:
    """One row per (group, kernel, statistic) of one measurement.

    Args:
        moments: of estimators over whole responses, see :func:`whole_or_split`.
        values: (N, T) teacher values.
        mask: (N, T).
        step: training step.
        reference: the estimator that stands for g*, or an objective; see :func:`default_reference`.
        unit: what was drawn independently; by default :func:`sampling_unit`, and nothing with fewer than three prompts:
            intervals and probabilities are NaN then.
        options: passed to :func:`kvar.analysis.summarise`.

    Returns:
        Columns step, group, kernel, k (NaN with a baseline or a reward in its name), statistic, value, low, high, n;
        ``attrs["reference"]`` names the estimator that bias, error and efficiency are toward.

    Raises:
        ValueError: as :func:`kvar.analysis.summarise`.
    """
    import pandas as pd

    reference = default_reference(moments.names, reference)
    frames = []
    for group in moments:
        frame = summarise(
            moments,
            values=values,
            mask=mask,
            group=group,
            reference=reference,
            unit=unit or design_unit(moments, options.get("rollouts_per_prompt", 1)),
            **options,
        )
        frame.insert(0, "group", group)
        frame.insert(0, "step", step)
        frames.append(frame)
    out = pd.concat(frames, ignore_index=True)
    if unit is None and len(moments.prompts) < LEAST_PROMPTS:
        out[["low", "high"]] = np.nan
        out.loc[out["statistic"].str.endswith("best_probability"), "value"] = np.nan
    out.attrs["reference"] = reference
    return out


def whole_or_split(moments: GradientMoments, split: bool = False) -> GradientMoments | None:
    """The moments of estimators over whole responses, or of those over a range of positions ("K=4 @ 0-7").

    Args:
        moments: of both kinds.
        split: those over a range of positions.

    Returns:
        The moments, or None where there are no such estimators.
    """
    keep = [i for i, name in enumerate(moments.names) if (" @ " in name) == split]
    if len(keep) == len(moments.names):
        return moments
    return recombine(moments, torch.eye(len(moments.names))[keep], [moments.names[i] for i in keep]) if keep else None


def sampling_unit(moments: GradientMoments) -> Unit:
    """What was drawn independently: "prompt" for three prompts or more with several rollouts, else "trajectory"."""
    several = LEAST_PROMPTS <= len(moments.prompts) < len(moments.prompt_index) and moments.pair is not None
    return "prompt" if several or moments.on is not None else "trajectory"


def design_unit(moments: GradientMoments, rollouts_per_prompt: float) -> Unit:
    """:func:`sampling_unit` for steps of R rollouts a prompt; None in place of "trajectory" where R > 1."""
    unit = sampling_unit(moments)
    return None if unit == "trajectory" and rollouts_per_prompt > 1 else unit
