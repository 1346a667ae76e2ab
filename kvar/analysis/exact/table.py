"""Moments straight from a table of gradients, without a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvar.gradients.moments import GradientMoments, GroupMoments

__all__ = ["moments_of"]


def moments_of(
    gradients: Tensor, prompt_index: Tensor | None = None, names: Sequence[str] | None = None
) -> GradientMoments:
    """All fields of :class:`kvar.gradients.GradientMoments` from the gradients themselves.

    Args:
        gradients: (E, N, P), g_i^e.
        prompt_index: (N,), the prompt of each trajectory; each its own by default.
        names: the estimators' names; "0", "1", ... by default.

    Returns:
        Moments with the one group "all".

    Example:
        >>> moments_of(torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])).sq_norm.tolist()
        [[25.0, 0.0]]
    """
    g = gradients.double()
    e, n, _ = g.shape
    index = torch.arange(n) if prompt_index is None else prompt_index.long()
    member, counts = index.unique(return_inverse=True, return_counts=True)[1:]
    mean = g.mean(dim=1)
    by_prompt = torch.zeros(e, len(counts), g.shape[2], dtype=g.dtype).index_add_(1, member, g) / counts[:, None]
    cross = torch.einsum("enp,fp->efn", g, mean)
    pair = torch.einsum("enp,fnp->efn", g, g)
    fields = GroupMoments(
        sq_norm=pair.diagonal(dim1=0, dim2=1).T.clone(),
        mean_pair=mean @ mean.T,
        alignment=cross.diagonal(dim1=0, dim2=1).T.clone(),
        cross=cross,
        pair=pair,
        prompt_pair=torch.einsum("emp,fmp->efm", by_prompt, by_prompt),
    )
    return GradientMoments(tuple(names or map(str, range(e))), {"all": fields}, index)
