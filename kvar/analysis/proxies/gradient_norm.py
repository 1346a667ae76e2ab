"""The norm of a step's gradient."""

from __future__ import annotations

import numpy as np

from kvar.gradients.moments import GradientMoments
from kvar.intervals.jackknife import Array

__all__ = ["gradient_norm"]


def gradient_norm(moments: GradientMoments, group: str = "all") -> Array:
    """|gbar|, the length of the mean gradient of all N trajectories: what trainers log as ``grad_norm``.

    E|gbar|^2 = |E g|^2 + tr Cov(g) / N mixes signal and noise. Where noise prevails it is about sqrt(tr Cov / N), where
    signal does it is |E g|, and its value does not say which; it follows the scale of the loss (of the rewards, of the
    normalisation by tokens) besides.

    Args:
        moments: of E estimators on the N trajectories of a step; fields="norms" is enough.
        group: parameter group.

    Returns:
        (E,) lengths.
    """
    return np.sqrt(np.diagonal(moments[group].mean_pair.numpy()))
