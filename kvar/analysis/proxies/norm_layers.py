"""The noise scale of normalisation layers alone."""

from __future__ import annotations

import numpy as np
from torch import nn

from kvar.analysis.proxies.micro_batches import NoiseScale, micro_batch_noise_scale
from kvar.gradients.moments import GradientMoments

__all__ = ["norm_layer_noise_scale", "norm_layers"]


def norm_layers(student: nn.Module) -> list[str]:
    """Names of the trainable gains and biases of normalisation layers: modules whose class name has "norm" in it.

    Args:
        student: a transformers model or any module.

    Returns:
        Parameter names, for ``gradient_moments(..., groups={"norms": norm_layers(student)})``. To measure them alone,
        which is what makes the number cheap, freeze all other parameters meanwhile.

    Raises:
        ValueError: no such parameter.

    Example:
        >>> norm_layers(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)))
        ['1.weight', '1.bias']
    """
    names = [
        f"{path}.{name}".removeprefix(".")
        for path, module in student.named_modules()
        if "norm" in type(module).__name__.lower()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad
    ]
    if not names:
        raise ValueError(
            "student has no trainable normalisation layer (a module with 'norm' in the name of its class): unfreeze "
            "them, or use another proxy."
        )
    return names


def norm_layer_noise_scale(moments: GradientMoments, group: str = "norms") -> NoiseScale:
    """The noise scale of E estimators from the per-trajectory gradients of normalisation layers.

    :func:`micro_batch_noise_scale` with b = 1: |G_1|^2 is the mean of |g_i|^2 over the N trajectories, |G_N|^2 the
    squared norm of their mean, both over these layers' parameters. A trajectory's gradient is summed over its tokens
    before it is squared, gains and biases alike. The published claim is that the ratio follows that of all parameters;
    signal and trace themselves are those of a small part. Source: Gray et al. 2024 (NeurIPS 2024, nanoGNS), who form
    one ratio a layer.

    Args:
        moments: with a group of :func:`norm_layers`, or of a student where all else is frozen; fields="norms" is
            enough.
        group: its name ("all" where all else is frozen).

    Returns:
        (E,) arrays.

    Raises:
        ValueError: no such group, or fewer than two trajectories.
    """
    measured = moments[group]
    count = measured.sq_norm.shape[1]
    if count < 2:
        raise ValueError(f"a noise scale needs at least two trajectories; these moments hold {count}.")
    whole = np.diagonal(measured.mean_pair.numpy())
    return micro_batch_noise_scale(measured.sq_norm.mean(dim=1).numpy(), whole, 1, count)
