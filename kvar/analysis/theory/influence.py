"""First-order delete-one replicates of a weighted statistic: the infinitesimal jackknife."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from kvar.intervals.jackknife import Array

__all__ = ["weighted_replicates"]


def weighted_replicates(statistic: Callable[[Tensor], Tensor], member: np.ndarray, units: int) -> Array:
    """A statistic with all units, then with each left out, to first order in the units' weights.

    theta_-u = theta - sum_{i in u} d theta / d weight_i at weight 1 (Jaeckel 1972, Efron 1982).

    Args:
        statistic: weights (N,) -> (E,) or (E, ...), differentiable.
        member: (N,) unit of every trajectory, 0 .. units - 1.
        units: U.

    Returns:
        (1 + U, E, ...).

    Example:
        >>> x = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
        >>> weighted_replicates(lambda w: ((w * x).sum() / w.sum())[None], np.arange(3), 3)[:, 0].round(3).tolist()
        [3.0, 3.667, 3.333, 2.0]
    """
    weight = torch.ones(len(member), dtype=torch.float64, requires_grad=True)
    value = statistic(weight)
    flat = value.flatten()
    influence = torch.zeros(units, len(flat), dtype=torch.float64)
    index = torch.as_tensor(member)
    for e, one in enumerate(flat):
        (slope,) = torch.autograd.grad(one, weight, retain_graph=e + 1 < len(flat))
        influence[:, e].index_add_(0, index, slope)
    whole = flat.detach()
    return np.asarray(torch.cat([whole[None], whole - influence]).reshape(1 + units, *value.shape).numpy())
